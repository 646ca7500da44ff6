"""Monotonic alignment: brute force, padding, whole durations without drift, and laying out."""

from itertools import combinations

import pytest
import torch

from genkit.networks.alignment import (
    monotonic_alignment,
    sound_durations,
    spread,
    squared_score,
    whole_durations,
)


def brute(score: torch.Tensor) -> list[int]:
    """The durations of the best path of score (t, l), by trying all."""
    t, length = score.shape
    best, found = -float("inf"), []
    for cuts in combinations(range(1, t), length - 1):
        ends = [0, *cuts, t]
        durations = [b - a for a, b in zip(ends, ends[1:], strict=False)]
        total = sum(
            float(score[a:b, i].sum()) for i, (a, b) in enumerate(zip(ends, ends[1:], strict=False))
        )
        if total > best:
            best, found = total, durations
    return found


@pytest.mark.parametrize(("t", "length"), [(1, 1), (4, 1), (4, 4), (7, 3), (9, 5)])
def test_the_search_finds_what_brute_force_finds(t, length):
    for seed in range(8):
        score = torch.randn(1, t, length, generator=torch.Generator().manual_seed(seed))
        found = monotonic_alignment(score, torch.tensor([t]), torch.tensor([length]))
        assert found[0].tolist() == brute(score[0])


def test_padding_changes_nothing_and_gets_nothing():
    score = torch.randn(1, 9, 5)
    alone = monotonic_alignment(score[:, :7, :3], torch.tensor([7]), torch.tensor([3]))
    padded = torch.full((2, 9, 5), 1e3)
    padded[0], padded[1, :7, :3] = score[0], score[0, :7, :3]
    both = monotonic_alignment(padded, torch.tensor([9, 7]), torch.tensor([5, 3]))
    assert both[1].tolist() == [*alone[0].tolist(), 0, 0]
    assert both.sum(1).tolist() == [9, 7]


def test_too_few_frames_are_told():
    with pytest.raises(ValueError, match="2 frames for 3 sounds"):
        monotonic_alignment(torch.zeros(1, 2, 3), torch.tensor([2]), torch.tensor([3]))


def test_the_score_is_the_squared_distance():
    x, means = torch.randn(2, 5, 4), torch.randn(2, 3, 4)
    want = -torch.cdist(x, means).square() / 2
    assert torch.allclose(squared_score(x, means), want, atol=1e-5)


def test_whole_durations_do_not_drift():
    wanted = torch.rand(3, 200) * 4
    made = whole_durations(wanted)
    ends = (made.cumsum(1), wanted.double().cumsum(1))
    assert ((ends[0] - ends[1]).abs() <= 0.5).sum() >= 3 * 199  # but where 1 is the least
    assert abs(int(made.sum()) - float(wanted.sum())) < 2
    assert whole_durations(wanted, torch.tensor([1, 100, 5000])).sum(1).tolist() == [1, 100, 5000]
    assert whole_durations(torch.full((1, 3), 1e-4)).sum() == 1


def test_values_lie_over_their_durations():
    values = torch.arange(6.0).reshape(1, 3, 2)
    laid, mask = spread(values, torch.tensor([[2, 0, 1]]), 5)
    assert laid[0].tolist() == [[0, 1], [0, 1], [4, 5], [0, 0], [0, 0]]
    assert mask[0].tolist() == [True, True, True, False, False]
    assert spread(values, torch.tensor([[2, 0, 1]]), 2)[1].all()


def test_durations_of_sounds_are_found_by_turns():
    """Sounds whose frames scatter about means of their own, by two speakers; silence between some
    of them has no frames. Each sound is beside others often enough to be told from them."""
    torch.manual_seed(0)
    means = torch.randn(2, 9, 6)
    tokens = torch.stack([torch.randperm(7) + 2 for _ in range(200)])
    tokens[:, 3], tokens[:50, 5:] = 1, 0
    wanted = torch.randint(2, 7, tokens.shape) * (tokens > 1)
    who = torch.arange(200) % 2
    x_0, mask = spread(means[who[:, None], tokens], wanted, 40)
    x_0 = (x_0 + 0.3 * torch.randn(x_0.shape)) * mask[..., None]
    frames = mask.sum(1)
    found = sound_durations(x_0, frames, tokens, who, silent=1)
    assert torch.equal(found.sum(1), frames) and not found[tokens < 2].any()
    assert ((found - wanted).abs() <= 1)[tokens > 1].float().mean() > 0.97
    # Whoever hears one voice where there are two hears worse, and an even guess is far off.
    one = sound_durations(x_0, frames, tokens, torch.zeros_like(who), silent=1)
    off = [(each - wanted).abs()[tokens > 1].float().mean() for each in (found, one)]
    assert off[0] < off[1] and off[0] < 0.2


def test_what_is_too_short_for_its_sounds_is_refused():
    tokens, who = torch.tensor([[2, 3, 4]]), torch.tensor([0])
    with pytest.raises(ValueError, match="2 frames for 3 sounds"):
        sound_durations(torch.zeros(1, 5, 4), torch.tensor([2]), tokens, who)
