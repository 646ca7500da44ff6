"""The sampling loop: it runs a scheduler as given, ours or diffusers', and nothing else."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMapEulerDiscreteScheduler

from genkit.denoisers.analytic import Gaussian
from genkit.paths import PATHS, VP, RectifiedFlow
from genkit.sampling import Sampler, sample, starting_scale, step_arguments


class Countdown:
    """x <- x - output, `steps` times; adds the generator's noise if it is given one."""

    def set_timesteps(self, steps=None, device=None):
        self.timesteps = torch.arange(steps or 3, 0, -1, device=device)

    def scale_model_input(self, x, timestep):
        return 2 * x

    def step(self, output, timestep, x, generator=None, return_dict=True):
        assert return_dict is False
        fresh = 0 if generator is None else torch.randn(x.shape, generator=generator)
        return (x - output + fresh,)


def test_the_loop():
    seen = []

    def evaluate(x, timestep):
        seen.append((x.clone(), timestep))
        return torch.ones_like(x)

    noise = torch.zeros(2, 3)
    assert torch.equal(sample(evaluate, Countdown(), noise), torch.full((2, 3), -3.0))
    assert [t.tolist() for _, t in seen] == [[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]]
    assert [float(x[0, 0]) for x, _ in seen] == [0, -2, -4], "scale_model_input is used"
    assert float(sample(evaluate, Countdown(), noise, steps=5)[0, 0]) == -5
    assert len(seen) == 8


def test_a_network_of_two_times_is_told_the_next_level_too():
    seen = []

    def evaluate(x, timestep, following):
        seen.append((timestep.tolist(), following.tolist()))
        return torch.ones_like(x)

    sample(evaluate, Countdown(), torch.zeros(2, 3), two_time=True)
    assert seen == [([3.0] * 2, [2.0] * 2), ([2.0] * 2, [1.0] * 2), ([1.0] * 2, [0.0] * 2)]


def test_stop_returns_x_before_that_evaluation():
    calls = []

    def evaluate(x, timestep):
        calls.append(1)
        return torch.ones_like(x)

    x = sample(evaluate, Countdown(), torch.zeros(1, 1), steps=4, stop=2)
    assert float(x) == -2 and len(calls) == 2
    assert torch.equal(sample(evaluate, Countdown(), x, stop=0), x) and len(calls) == 2


def test_callback_sees_and_may_change_x():
    def callback(i, timestep, x):
        return torch.full_like(x, 10.0 * i)

    x = sample(lambda x, t: x, Countdown(), torch.ones(1), steps=3, callback=callback)
    assert float(x) == 20.0


def test_generator_goes_where_it_is_taken():
    seeded = [torch.Generator().manual_seed(3) for _ in range(2)]
    one, two = (
        sample(lambda x, t: x, Countdown(), torch.zeros(2), generator=each) for each in seeded
    )
    assert torch.equal(one, two) and one.abs().sum() > 0
    stock = FlowMapEulerDiscreteScheduler()
    assert step_arguments(Countdown(), seeded[0]) == {"generator": seeded[0]}
    assert set(step_arguments(stock, seeded[0])) <= {"generator"}


def test_starting_scale():
    assert starting_scale(Countdown()) == 1.0
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    assert starting_scale(scheduler) == float(scheduler.init_noise_sigma) > 1


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_stock_flow_map_scheduler_is_euler(steps):
    """What rectified-flow students leave with: x <- x - v / N on the uniform grid."""
    teacher = Gaussian(RectifiedFlow(), 0.3, 0.5)
    noise = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scheduler = FlowMapEulerDiscreteScheduler(num_train_timesteps=1000)
    got = sample(lambda x, t: teacher.predict(x, t / 1000, {}, "velocity"), scheduler, noise, steps)
    x = noise
    for i in range(steps):
        t = torch.full((64,), 1 - i / steps, dtype=torch.float64)
        x = x - teacher.predict(x, t, {}, "velocity") / steps
    torch.testing.assert_close(got, x, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("path", [p() for p in PATHS.values()], ids=list(PATHS))
def test_grid(path):
    grid = Sampler(steps=4).grid(path)
    assert grid.shape == (4,) and grid.dtype == torch.float64 and (grid.diff() < 0).all()
    torch.testing.assert_close(grid[0].item(), path.t_max)
    assert grid[-1] > path.t_min


def test_explicit_grid():
    assert Sampler(steps=2, times=(0.9, 0.4)).grid(VP()).tolist() == [0.9, 0.4]


def test_a_first_frame_takes_its_opening_where_that_is_more():
    assert [Sampler(steps, opening=4).first.steps for steps in (1, 4, 6)] == [4, 4, 6]
    assert [Sampler(steps, opening=4).stops for steps in (1, 3, 4, 6)] == [4, 12, 4, 6]
    assert Sampler(3).stops == Sampler(3).first.steps == 3


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": -3}, "steps is -3"),
        ({"steps": 2, "times": (1.0,)}, "1 times for 2 steps"),
        ({"steps": 1, "network_times": (1.0, 0.5)}, "2 network_times for 1 steps"),
        ({"steps": 1, "opening": 0}, "opening is 0"),
        ({"steps": 1, "times": (1.0,), "opening": 4}, "an opening of 4 steps has no times"),
    ],
)
def test_wrong_samplers(given, match):
    with pytest.raises(ValueError, match=match):
        Sampler(**given)
