"""Guidance: one convention, w = 1 is off."""

import pytest
import torch

from genkit.guidance import both, guide


def test_convention():
    cond, uncond = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 1.0])
    assert torch.equal(guide(cond, uncond, 1.0), cond)
    assert torch.equal(guide(cond, uncond, 0.0), uncond)
    assert torch.equal(guide(cond, uncond, 2.0), torch.tensor([5.0, 9.0]))


def test_weight_per_sample():
    cond, uncond = torch.randn(3, 2, 2), torch.randn(3, 2, 2)
    got = guide(cond, uncond, torch.tensor([1.0, 0.0, 4.0]))
    for i, w in enumerate((1.0, 0.0, 4.0)):
        torch.testing.assert_close(got[i], guide(cond[i], uncond[i], w))


def test_both_puts_uncond_first():
    got = both({"label": torch.tensor([4, 5])}, {"label": torch.tensor([10])}, 2)
    assert got["label"].tolist() == [10, 10, 4, 5]
    rows = both({"c": torch.ones(2, 3)}, {"c": torch.zeros(2, 3)}, 2)["c"]
    assert rows.shape == (4, 3) and rows[:2].sum() == 0


def test_both_needs_equal_names():
    with pytest.raises(ValueError, match=r"cond has \['label'\], uncond has \['text'\]"):
        both({"label": torch.ones(1)}, {"text": torch.ones(1)}, 1)
