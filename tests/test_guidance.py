"""Guidance: one convention, w = 1 is off."""

import pytest
import torch

from genkit.guidance import both, drop, guide
from genkit.rng import Rng


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


def test_both_refuses_other_names():
    with pytest.raises(ValueError, match=r"cond has \['label'\], uncond has \['text'\]"):
        both({"label": torch.ones(1)}, {"text": torch.ones(1)}, 1)
    with pytest.raises(ValueError, match="must agree"):
        both({"label": torch.ones(1)}, {}, 1)


def test_what_uncond_does_not_name_stays():
    cond = {"text": torch.ones(400, 3), "mask": torch.arange(400)}
    uncond = {"text": torch.zeros(1, 3)}
    twice = both(cond, uncond, 400)
    assert torch.equal(twice["mask"], torch.arange(400).repeat(2))
    assert float(twice["text"][:400].sum()) == 0 and float(twice["text"][400:].mean()) == 1
    dropped = drop(cond, uncond, 0.25, Rng(0, "drop", 0))
    assert torch.equal(dropped["mask"], cond["mask"])
    assert 60 < int((dropped["text"] == 0).all(1).sum()) < 140
