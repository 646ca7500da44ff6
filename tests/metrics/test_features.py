"""The shipped classifier of digits."""

import pytest
import torch

from genkit.data import digits
from genkit.metrics.features import (
    DIGITS_WEIGHTS,
    FeatureNet,
    digits_features,
    digits_features_record,
)


@pytest.fixture(scope="module")
def net():
    return digits_features()


def test_accuracy_is_what_the_record_says(net):
    record = digits_features_record()
    for split in ("train", "test"):
        data = digits.load(split)
        share = (net.classify(data.x_0) == data.cond["label"]).double().mean()
        assert share == pytest.approx(record[f"{split}_accuracy"], abs=0.002)
    assert record["test_accuracy"] > 0.97
    assert DIGITS_WEIGHTS.stat().st_size < 300_000


def test_features_are_standardised_on_the_training_split(net):
    features = net.features(digits.load("train").x_0)
    assert features.shape == (898, 48) and not features.requires_grad
    assert features.mean(0).abs().max() < 1e-3
    assert (features.std(0) - 1).abs().max() < 1e-3


def test_features_and_classes_belong_together(net):
    x = digits.load("test").x_0[:50]
    assert torch.equal(net.head(net.features(x) * net.std + net.mean).argmax(1), net.classify(x))


def test_parts_change_nothing_but_rounding(net):
    x = digits.load("all").x_0
    alone = net.features(x[-3:])
    assert torch.allclose(net.features(x)[-3:], alone, atol=1e-4)


def test_wrong_shape_is_said(net):
    with pytest.raises(ValueError, match="images must be"):
        net.features(torch.zeros(2, 8, 8))


def test_other_sizes_can_be_built():
    assert FeatureNet(size=16, dim=8, num_classes=3)(torch.zeros(2, 1, 16, 16)).shape == (2, 3)
