"""Draws depend on (seed, keys) and on nothing drawn before, on one process or many."""

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from genkit.rng import Rng, generator, sample_generators, sample_noise


def test_a_generator_is_its_keys():
    first = torch.randn(4, generator=generator(3, "noise", 7))
    torch.manual_seed(99)  # the global generator has no say
    assert torch.equal(first, torch.randn(4, generator=generator(3, "noise", 7)))
    for other in (generator(4, "noise", 7), generator(3, "noise", 8), generator(3, "time", 7)):
        assert not torch.equal(first, torch.randn(4, generator=other))


def test_a_generator_is_the_same_everywhere():
    """The value is frozen: a change would break every saved run's resume."""
    assert generator(0, "a", 1).initial_seed() == 3490709833146166304


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_one_global_draw(world):
    draws = {
        "normal": lambda rng, n: rng.normal((n, 3)),
        "uniform": lambda rng, n: rng.uniform((n,)),
        "integers": lambda rng, n: rng.integers(0, 10, (n, 2)),
    }
    for name, draw in draws.items():
        whole = draw(Rng(0, name), 8)
        parts = [draw(Rng(0, name, rank=r, world=world), 8 // world) for r in range(world)]
        assert torch.equal(torch.cat(parts), whole), name
    control = {Rng(0, rank=r, world=world).integer(0, 10**9) for r in range(world)}
    seeds = {Rng(0, rank=r, world=world).torch_seed() for r in range(world)}
    assert len(control) == len(seeds) == 1


def test_draws_stay_in_step_across_kinds():
    """A second draw is aligned over processes too, whatever was drawn first."""
    alone, second = Rng(5), Rng(5, rank=1, world=2)
    alone.normal((4, 3)), second.normal((2, 3))
    assert torch.equal(alone.uniform((4,))[2:], second.uniform((2,)))


def test_fork_is_independent_of_draws():
    used = Rng(1, "step", 3)
    used.normal((5,))
    assert torch.equal(used.fork("head").normal((5,)), Rng(1, "step", 3, "head").normal((5,)))
    assert used.fork("head", 1).keys == ("step", 3, "head", 1)
    assert Rng(1, rank=1, world=2).fork("x").world == 2


def test_ranges():
    rng = Rng(0)
    u, i = rng.uniform((1000,)), rng.integers(2, 5, (1000,))
    assert 0 <= u.min() and u.max() < 1 and sorted(i.unique().tolist()) == [2, 3, 4]
    assert {rng.integer(0, 3) for _ in range(50)} == {0, 1, 2}


def test_samples_do_not_depend_on_their_batch():
    whole = sample_noise((1, 4), sample_generators(7, 5))
    assert whole.shape == (5, 1, 4) and whole.dtype == torch.float32
    assert torch.equal(whole[3:], sample_noise((1, 4), sample_generators(7, 2, start=3)))


def test_sample_noise_is_diffusers():
    theirs = randn_tensor((3, 1, 8, 8), generator=sample_generators(0, 3))
    assert torch.equal(sample_noise((1, 8, 8), sample_generators(0, 3)), theirs)


def test_generators_are_one_process_s_rows_of_the_whole_batch():
    whole = [torch.randn(2, generator=each) for each in Rng(3, "k").generators(4)]
    second = [torch.randn(2, generator=each) for each in Rng(3, "k", rank=1, world=2).generators(2)]
    assert torch.equal(torch.stack(whole)[2:], torch.stack(second))
    assert len({float(row[0]) for row in whole}) == 4


def test_a_chance_comes_in_its_share_and_draws_nothing_for_none():
    rng = Rng(0, "chance")
    assert sum(rng.chance(0.25) for _ in range(2000)) == pytest.approx(500, abs=60)
    assert all(rng.chance(1.0) for _ in range(50))
    one, other = Rng(0, "same"), Rng(0, "same")
    assert not one.chance(0.0)
    assert one.integer(0, 1000) == other.integer(0, 1000)
