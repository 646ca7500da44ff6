"""Per-class diversity and class agreement."""

import pytest
import torch

from genkit.metrics.diversity import (
    class_accuracy,
    class_diversity,
    class_spread,
    class_total_variation,
)


def test_spread_by_hand():
    """Pairs of different samples only: a self-pair would pull the mean down."""
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    spread = class_spread(features, torch.tensor([0, 0, 2]), 3)
    assert spread[0] == 5 and spread[1:].isnan().all()


def test_one_picture_per_class_has_none_whatever_the_classes():
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    centres = 10 * torch.randn(4, 3, generator=rng)
    real = centres[labels] + torch.randn(40, 3, generator=rng)
    assert class_diversity(centres[labels], labels, real, labels, 4).abs().max() < 1e-6
    halved = centres[labels] + 0.5 * (real - centres[labels])
    assert class_diversity(halved, labels, real, labels, 4) == pytest.approx([0.5] * 4)


def test_accuracy():
    asked = torch.tensor([0, 1, 2, 3])
    assert class_accuracy(torch.tensor([0, 1, 2, 0]), asked) == 0.75
    with pytest.raises(ValueError, match="labels"):
        class_accuracy(torch.tensor([0]), asked)


def test_total_variation_compares_shares_not_counts():
    same = class_total_variation(torch.tensor([0, 1]), torch.tensor([0, 0, 1, 1]), 3)
    assert same == 0
    assert class_total_variation(torch.tensor([0, 0]), torch.tensor([1, 2, 2]), 3) == 1
    assert class_total_variation(torch.tensor([0, 0]), torch.tensor([0, 1]), 3) == 0.5
