"""What every scheduler in genkit/schedulers must do, whatever it solves."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from diffusers.pipelines.pipeline_loading_utils import _fetch_class_library_tuple
from diffusers.schedulers.scheduling_utils import SchedulerMixin

import genkit.schedulers
from genkit.paths import EDM, VP, DiscreteVP, RectifiedFlow, TrigFlow
from genkit.rng import sample_generators, sample_noise
from genkit.sampling import sample

PATHS = [RectifiedFlow(), TrigFlow(0.5), EDM(), VP(), DiscreteVP()]
GRID = {"times": [0.9, 0.5123456789], "steps": 2, "time_scale": 1000.0}


def _found():
    for module in pkgutil.iter_modules(genkit.schedulers.__path__, "genkit.schedulers."):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and value.__module__ == module.name:
                if issubclass(value, SchedulerMixin):
                    yield value


SCHEDULERS = list(_found())
each = pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda c: c.__name__)


def make(scheduler, path=None, **config):
    return scheduler(path=(path or RectifiedFlow()).config(), **config)


def run(scheduler, n=3, steps=None, seed=0, dtype=torch.float32):
    generators = sample_generators(seed, n)
    noise = sample_noise((2, 4), generators).to(dtype)
    return sample(lambda x, t: torch.tanh(x), scheduler, noise, steps, generators)


def test_all_are_found():
    assert {c.__name__ for c in SCHEDULERS} == {"ConsistencyScheduler", "FlowScheduler"}


@each
def test_module_path_reloads(scheduler):
    """diffusers' two traps: the mixin in the module's own namespace, no pipeline folder's name."""
    assert "SchedulerMixin" in vars(importlib.import_module(scheduler.__module__))
    assert _fetch_class_library_tuple(make(scheduler))[0] == scheduler.__module__


@each
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_config_round_trip_keeps_the_grid(scheduler, path, tmp_path):
    u = torch.tensor([0.95, 0.4], dtype=torch.float64)
    first = make(
        scheduler,
        path,
        times=path.time(u).tolist(),
        network_times=[0.3, 0.1],
        steps=2,
        start_scale=2,
    )
    first.save_pretrained(tmp_path)
    for second in (scheduler.from_pretrained(tmp_path), scheduler.from_config(first.config)):
        second.set_timesteps(None)
        assert torch.equal(first.timesteps, second.timesteps)
        assert torch.equal(first.levels, second.levels)
        assert first.init_noise_sigma == second.init_noise_sigma
        assert torch.equal(run(first), run(second))


@each
def test_trained_number_of_steps(scheduler):
    uniform, fixed = make(scheduler, steps=3), make(scheduler, **GRID)
    uniform.set_timesteps(None)
    assert torch.allclose(uniform.timesteps, torch.tensor([3, 2, 1.0]).double() / 3)
    uniform.set_timesteps(5)
    assert len(uniform.timesteps) == 5
    fixed.set_timesteps(2)
    assert fixed.timesteps.tolist() == [900.0, 512.3456789]
    with pytest.raises(ValueError, match="exactly 2 steps, not 4"):
        fixed.set_timesteps(4)
    for steps in (0, -1):
        with pytest.raises(ValueError, match="at least one"):
            uniform.set_timesteps(steps)


@each
def test_network_is_told_other_times(scheduler):
    """SDXL's one-step students: told 399 at the noise level of 999."""
    path = DiscreteVP()
    told = make(scheduler, path, prediction_type="eps", times=[999.0], network_times=[399.0])
    plain = make(scheduler, path, prediction_type="eps", times=[999.0])
    assert told.timesteps.tolist() == [399.0]
    assert torch.equal(run(told), run(plain))


@each
def test_no_value_is_read_back_from_the_device(scheduler):
    """On the meta device every read-back (a GPU sync) is an error."""
    one = make(scheduler, **GRID)
    noise = torch.empty(2, 1, 4, 4, device="meta")
    assert sample(lambda x, t: x + t[:, None, None, None], one, noise).shape == noise.shape


@each
def test_a_sample_does_not_depend_on_its_batch(scheduler):
    one = make(scheduler, steps=3)
    assert torch.equal(run(one, 5)[:2], run(one, 2))
    assert torch.equal(run(one), run(one))
    assert not torch.equal(run(one, seed=1), run(one, seed=0))


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype_is_kept(scheduler, dtype):
    assert run(make(scheduler, steps=3), dtype=dtype).dtype == dtype


@each
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_kinds_agree(scheduler, path):
    """A network asked in another kind samples the same: the conversion is in the scheduler."""
    times = path.time(torch.tensor([0.95, 0.5], dtype=torch.float64)).tolist()
    ends = []
    for kind in ("x_0", "eps", "velocity", "v_prediction"):
        one = make(scheduler, path, prediction_type=kind, times=times, steps=2)

        def evaluate(x, t, kind=kind):
            return path.convert(torch.tanh(0.3 * x), x, t, "x_0", kind)

        generators = sample_generators(0, 2)
        noise = sample_noise((3,), generators).double()
        ends.append(sample(evaluate, one, noise, generator=generators))
    for end in ends[1:]:
        assert torch.allclose(ends[0], end, atol=1e-9)


@each
def test_start_scale(scheduler):
    assert make(scheduler, EDM(), times=[2.5], start_scale=1.0).init_noise_sigma == 2.5
    assert make(scheduler, start_scale=2.0).init_noise_sigma == 2.0
    assert make(scheduler, TrigFlow(0.5)).init_noise_sigma == pytest.approx(0.5)


@each
@pytest.mark.parametrize(
    "config, message",
    [
        ({"prediction_type": "epsilon"}, "unknown prediction_type 'epsilon'"),
        ({"times": [0.5, 0.9], "steps": 2}, "decrease strictly"),
        ({"times": [0.5, 0.5], "steps": 2}, "decrease strictly"),
        ({"times": [999.0]}, "outside the path"),
        ({"times": [0.9]} | {"steps": 2}, "1 times for 2 steps"),
        ({"steps": 0}, "at least one"),
        ({"prediction_type": "eps"}, "predicts eps says nothing of x_0 at t = 1"),
    ],
)
def test_refused(scheduler, config, message):
    with pytest.raises(ValueError, match=message):
        make(scheduler, **config)


@each
def test_unknown_path(scheduler):
    with pytest.raises(ValueError, match="unknown path 'flow'"):
        scheduler(path={"name": "flow"})


@each
def test_a_step_too_many(scheduler):
    one = make(scheduler)
    x = torch.zeros(1, 1)
    assert one.step_index is None
    one.step(x, one.timesteps[0], x)
    with pytest.raises(ValueError, match="after the last of 1 steps"):
        one.step(x, one.timesteps[0], x)


@each
def test_starting_in_the_middle(scheduler):
    """From index 1 on, the steps are those of the shorter grid."""
    whole, tail = (
        make(scheduler, times=[0.9, 0.6, 0.2], steps=3),
        make(scheduler, times=[0.6, 0.2], steps=2),
    )
    whole.set_begin_index(1)
    x = y = torch.ones(1, 1)
    for i, timestep in enumerate(tail.timesteps):
        generators = [torch.Generator().manual_seed(i) for _ in range(2)]
        extra = [{"generator": g} if scheduler.stochastic else {} for g in generators]
        x = whole.step(torch.tanh(x), timestep, x, **extra[0]).prev_sample
        y = tail.step(torch.tanh(y), timestep, y, **extra[1]).prev_sample
    assert torch.equal(x, y)
    assert whole.begin_index == 1 and whole.step_index == 3
