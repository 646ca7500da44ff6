"""Distance to the nearest training example."""

import pytest
import torch

from genkit.metrics.nearest import copied, nearest_distance


def test_by_hand_and_over_all_pixels():
    train = torch.zeros(3, 1, 2, 2)
    train[1:] = 10
    samples = torch.stack([torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), 10.0)])
    assert nearest_distance(samples, train).tolist() == pytest.approx([2, 0])


def test_copies_are_seen_where_the_median_is_blind():
    rng = torch.Generator().manual_seed(0)
    train, held_out = (torch.randn(500, 8, generator=rng) for _ in range(2))
    fresh = torch.randn(500, 8, generator=rng)
    mixed = torch.cat([train[:50], fresh[50:]])
    base = nearest_distance(held_out, train)
    assert copied(nearest_distance(fresh, train), base) < 0.03
    assert copied(nearest_distance(mixed, train), base) == pytest.approx(0.1, abs=0.03)
    assert nearest_distance(mixed, train).median() > 0.9 * base.median()
