"""The river world: what its actions decide, what they do not, and that it is what its seed says."""

import numpy as np
import pytest
import torch

from genkit.data import load, names, river, world
from genkit.metrics.tracker import track


def test_clips_are_drawn_where_they_are_asked_for():
    data = load("world")
    assert "world" in names() and len(data) == 20_000
    assert tuple(data.x_0.shape) == (20_000, world.FRAMES, 3, 64, 64)
    rows = torch.tensor([7, 3])
    some = data.x_0[rows]
    assert some.dtype == torch.float32 and some.abs().max() <= 1
    assert torch.equal(some[1], data.x_0[3:4][0])
    assert torch.equal(data.take(rows).x_0[:1], some[:1])


def test_a_world_is_the_same_whatever_is_drawn_with_it():
    few, many = world.states("train", 5), world.states("train", 50)
    for name, value in vars(few).items():
        assert np.array_equal(value, getattr(many, name)[:5]), name
    picture = river.draw(few.take(slice(2, 3)))
    assert torch.equal(picture, river.draw(many)[2:3])
    assert float(picture.double().sum()) == pytest.approx(-8971.1339, abs=0.01)


def test_the_boat_obeys_and_nothing_else_does():
    starts = np.array([[30, 30], [30, 30]])
    actions = np.array([[1, 3, 0, 2], [2, 4, 0, 1]])
    states = river.simulate(starts, actions, 0)
    assert states.boat[0].tolist() == [[27, 30], [27, 27], [27, 27], [30, 27]]
    again = river.simulate(starts, actions[::-1], 0)
    assert np.array_equal(states.boat, again.boat[::-1])
    for name in ("balloon", "wind", "banks"):
        assert np.array_equal(getattr(states, name), getattr(again, name)), name
        assert not np.array_equal(getattr(states, name)[0], getattr(states, name)[1]), name


def test_the_boat_stays_inside():
    actions = np.full((1, 40), 2)
    boat = river.simulate(np.array([[30, 30]]), actions, 0).boat[0]
    assert boat[-1].tolist() == [river.HIGH, 30] and boat.max() <= river.HIGH


def test_the_river_comes_down_with_banks_that_wander():
    states = world.states("train", 200, 60)
    frames = river.draw(states.take(slice(0, 4)))
    still = frames.clone()
    moved = frames[:, :-1, :, : -river.SCROLL] - still[:, 1:, :, river.SCROLL :]
    assert (moved.abs().amax(2) == 0).float().mean() > 0.9
    assert states.banks.min() >= river.BANK_LOW and states.banks.max() <= river.BANK_HIGH
    assert states.banks[:, -1].std() > 3


def test_the_wind_is_hidden_and_stays_what_it_is():
    states = world.states("train", 500, 400)
    early, late = states.wind[:, 5].std(), states.wind[:, -1].std()
    assert early == pytest.approx(river.WIND, rel=0.15) and late == pytest.approx(early, rel=0.2)
    drift = np.diff(states.balloon[..., 0], axis=1)
    inside = (states.balloon[:, 1:, 0] > 12) & (states.balloon[:, 1:, 0] < 51)
    assert np.corrcoef(drift[inside], states.wind[:, 1:][inside])[0, 1] > 0.85


def test_splits_share_no_start_and_no_string_of_actions():
    for split in world.SPLITS:
        found = world.states(split, 300)
        assert (world.split_of(found.actions) == split).all()
        assert found.actions.min() == 0 and found.actions.max() == 4
    cells = {}
    for split in ("train", "test"):
        draws = np.random.RandomState(1).random_sample((500, 2))
        starts = world._starts(split, draws)
        cells[split] = {tuple(each) for each in starts.tolist()}
        held_out = world.held_out_start((starts - river.LOW) // river.SPEED)
        assert (held_out == (split == "test")).all()
    assert not cells["train"] & cells["test"]


def test_actions_are_random_and_mostly_kept():
    actions = world.states("train", 2000).actions
    share = np.bincount(actions.ravel(), minlength=5) / actions.size
    assert share.min() > 0.15
    assert 0.7 < (actions[:, 1:-1] == actions[:, :-2]).mean() < 0.82


def test_strings_of_actions_are_read():
    assert world.read_actions(".lrud") == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"no action is called 'x'; there are: \. \(stay\)"):
        world.read_actions("llx")
    with pytest.raises(ValueError, match="no action is given"):
        world.read_actions("")
    with pytest.raises(ValueError, match="no split 'dev'"):
        load("world", "dev")


def test_in_some_training_clips_the_boat_comes_later():
    states = world.states("train", 800)
    late = np.flatnonzero(states.since)
    assert len(late) == pytest.approx(800 * world.LATE, rel=0.15)
    counts = np.bincount(states.since[late], minlength=world.FRAMES)
    assert counts[1:].min() > 0.6 * len(late) / (world.FRAMES - 1)
    clips = river.draw(states.take(late[:50]))
    seen = track(clips.flatten(0, 1))[1].view(50, -1)
    due = torch.arange(world.FRAMES) >= torch.from_numpy(states.since[late[:50], None])
    assert torch.equal(seen, due)
    mask = world.load("train", 800).mask
    assert torch.equal(mask[late[:50]].bool(), due) and mask.mean() < 1
    assert world.load("test", 50).mask is None
    assert not world.states("test").since.any()


def test_in_some_training_clips_the_balloon_meets_the_boat_when_it_is_sent_to():
    states = world.states("train", 800)
    draws = np.random.RandomState(1).random_sample((800, 3 + 2 * world.FRAMES))[:, 2]
    late, met = world._rare(draws, world.FRAMES)
    assert np.array_equal(late, states.since)
    sent = np.flatnonzero(met >= 0)
    assert len(sent) == pytest.approx(800 * world.MET, rel=0.15) and not late[sent].any()
    assert np.bincount(met[sent]).min() > 0.5 * len(sent) / world.FRAMES
    apart = np.abs(states.boat - states.balloon).max(-1)
    # By chance 3 of 100 frames have them so near; a boat at a wall is met by fewer.
    assert (apart[sent, met[sent]] <= 4).mean() > 0.45
    assert (apart[met < 0] <= 4).mean() < 0.06
