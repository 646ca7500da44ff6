"""The digits: values, the fixed split, and that data sets are found by looking."""

import subprocess
import sys

import pytest
import torch

from genkit import data
from genkit.data import digits


@pytest.fixture(scope="module")
def splits():
    return {split: digits.load(split) for split in digits.SPLITS}


def test_sizes_values_and_types(splits):
    assert {k: len(v) for k, v in splits.items()} == {"train": 898, "test": 899, "all": 1797}
    for samples in splits.values():
        assert samples.x_0.shape[1:] == (1, 8, 8) and samples.x_0.dtype == torch.float32
        assert samples.cond["label"].dtype == torch.int64 and samples.num_classes == 10
        assert samples.x_0.min() == -1 and samples.x_0.max() == 1
        assert (samples.x_0 * 8 == (samples.x_0 * 8).round()).all()


def test_paper_is_minus_one(splits):
    assert (splits["all"].x_0[:, 0, :, 0] == -1).float().mean() > 0.99


def test_halves_partition_the_whole_with_their_labels(splits):
    def rows(samples):
        return sorted(
            (*x.flatten().tolist(), int(y))
            for x, y in zip(samples.x_0, samples.cond["label"], strict=True)
        )

    assert sorted(rows(splits["train"]) + rows(splits["test"])) == rows(splits["all"])


def test_every_class_is_halved(splits):
    counts = [splits[s].cond["label"].bincount(minlength=10) for s in ("train", "test")]
    assert (counts[0] - counts[1]).abs().max() <= 1


def test_the_split_never_changes(splits):
    """Committed figures stand on this very split."""
    train = splits["train"]
    assert train.cond["label"][:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 3, 5, 7, 9]
    assert round(float(train.x_0.double().sum()), 3) == -22406.625


def test_unknown_split_says_which_there_are():
    with pytest.raises(ValueError, match="train, test, all"):
        digits.load("valid")


def test_take_keeps_samples_and_conditions_together(splits):
    part = splits["all"].take(torch.tensor([5, 3]))
    assert torch.equal(part.x_0, splits["all"].x_0[[5, 3]])
    assert part.cond["label"].tolist() == [5, 3]


def test_data_sets_are_found_by_looking(splits):
    assert "digits" in data.names() and "base" not in data.names()
    assert data.describe("digits").startswith("Handwritten digits")
    assert torch.equal(data.load("digits", "test").x_0, splits["test"].x_0)
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        data.load("digit")


def test_listing_data_sets_imports_no_torch():
    code = "import sys; from genkit import data; data.names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
