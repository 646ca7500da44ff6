"""The tracker on frames whose truth is known, and on frames with nothing to find."""

import pytest
import torch

from genkit.data import river, world
from genkit.metrics.tracker import obeyed, track


@pytest.fixture(scope="module")
def clips():
    states = world.states("test", 60)
    return states, river.draw(states)


def test_the_boat_is_found_at_its_true_pixel(clips):
    states, frames = clips
    places, seen = track(frames.flatten(0, 1))
    assert seen.all()
    assert torch.equal(places, torch.from_numpy(states.boat).flatten(0, 1))


def test_the_balloon_is_found_unless_it_is_behind_the_boat(clips):
    states, frames = clips
    places, seen = track(frames.flatten(0, 1), river.BALLOON)
    true = torch.from_numpy(states.balloon).flatten(0, 1)
    far = (true - torch.from_numpy(states.boat).flatten(0, 1)).abs().amax(-1) > 10
    assert seen[far].all() and torch.equal(places[far], true[far])


def test_noise_does_not_hide_the_boat_and_blur_does(clips):
    states, frames = clips
    true = torch.from_numpy(states.boat).flatten(0, 1)
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    places, seen = track((frames + 0.2 * noise).flatten(0, 1))
    assert seen.float().mean() > 0.99 and (places == true).all(-1).float().mean() > 0.99
    faded = frames.mean(0, keepdim=True).expand_as(frames)
    assert not track(faded.flatten(0, 1))[1].any()


def test_obedience_is_of_the_action_that_led_to_a_frame(clips):
    states, frames = clips
    actions = torch.from_numpy(states.actions)
    assert obeyed(frames, actions) == (1.0, 1.0)
    # A boat told something else: right by chance only, where the two agree or a wall holds it.
    assert obeyed(frames, (actions + 1) % 5)[0] < 0.3
    # The action of the frame before: wrong wherever the action changes.
    late = torch.cat([actions[:, :1], actions[:, :-1]], 1)
    assert 0.6 < obeyed(frames, late)[0] < 0.95
    assert obeyed(torch.zeros_like(frames), actions) == (0.0, 0.0)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"frames must be \(n, 3, 64, 64\)"):
        track(torch.zeros(2, 3, 32, 32))
