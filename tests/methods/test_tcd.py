"""TCD on a Gaussian: any end of the trajectory, and a sampler that re-noises part of the way."""

import pytest
import torch

from genkit.denoisers.analytic import Gaussian
from genkit.denoisers.base import Denoiser
from genkit.hub import make_scheduler
from genkit.methods.base import Moment, Roles
from genkit.methods.tcd import Method
from genkit.paths import VP, DiscreteVP, RectifiedFlow
from genkit.rng import Rng, sample_generators
from genkit.sampling import Sampler, sample


def roles_of(teacher, student, target=None):
    return Roles({"teacher": teacher, "student": student, "student.target": target or student})


def loss_of(method, roles, n=4096):
    batch = {"data": {"x_0": 1.3 + 0.5 * Rng(0).normal((n, 1), torch.float64), "cond": {}}}
    return method.loss(roles, batch, Moment(method.stages()[0], 0, 1), Rng(2))["total"]


class ToEnd(Method):
    """TCD with one end for all, at a share of the grid, and an exact map to it as the student."""

    share = 0.0

    def ends(self, index, rng):
        return self.grid[torch.full_like(index, self.config.intervals)].float()


@pytest.mark.parametrize("path", [RectifiedFlow(), VP()])
def test_an_end_at_t_min_is_lcm(path, learned):
    """There the student's point is its x_0 and the trace of noise that t_min has."""
    from genkit.methods import lcm

    teacher, student = Gaussian(path, 1.3, 0.5), learned(path, "consistency", 1.0, 0.7)
    ours = loss_of(ToEnd(ToEnd.Config(intervals=16), path, (1,)), roles_of(teacher, student))
    theirs = loss_of(
        lcm.Method(lcm.Method.Config(intervals=16), path, (1,)), roles_of(teacher, student)
    )
    assert torch.allclose(ours, theirs, rtol=0.02)


@pytest.mark.parametrize("path", [RectifiedFlow(), VP(), DiscreteVP()])
def test_the_point_at_the_end_is_on_the_exact_trajectory(path, learned):
    """A student whose x_0 and eps are the line to the end; the identity where t is the end."""
    teacher, t = Gaussian(path, 1.3, 0.5), path.time(torch.full((8,), 0.7)).double()
    end = path.time(torch.full((8,), 0.3)).double()
    x_t = Rng(0).normal((8, 1), torch.float64)
    want = teacher.flow_map(x_t, t, end)
    from genkit import terms

    class Line(Denoiser):
        def raw(self, x, timestep, cond, s=None):
            return terms.line_x_0(x, timestep, want, end, path)

    method = Method(Method.Config(), path, (1,))
    got = method.moved(Line(path, "x_0"), x_t, t, end, {}, torch.ones(8))
    assert torch.allclose(got, want, atol=1e-6)
    again = method.moved(Line(path, "x_0"), x_t, t, t, {}, torch.ones(8))
    assert torch.equal(again, x_t)


def test_ends_are_any_later_time(path):
    method = Method(Method.Config(intervals=4), path, (1,))
    index = torch.tensor([0, 1, 2, 3]).repeat(4000)
    ends, grid = method.ends(index, Rng(0)), [*method.grid.tolist()]
    for i in range(4):
        assert set(ends[index == i].tolist()) == set(grid[i + 1 :])
    shares = torch.stack([(ends[index == 0] == each).float().mean() for each in grid[1:]])
    assert (shares - 0.25).abs().max() < 0.03


def test_learns_the_trajectory(fit, learned, error, path):
    config = Method.Config(intervals=32, solver="heun", huber=0.1, eta=0.0)
    assert error(fit(Method(config, path, (1,)), learned(path, "consistency"), steps=600)) < 0.1


class Elsewhere(Method):
    """The broken twin: student and target end at different points."""

    def moved(self, network, x_t, t, end, cond, w):
        later = end if network is self.last else (end * 0.5).clamp(min=self.path.t_min)
        self.last = network
        return super().moved(network, x_t, t, later, cond, w)

    last = None


def test_the_broken_twin_fails(fit, learned, error, path):
    config = Elsewhere.Config(intervals=32, solver="heun", huber=0.1, eta=0.0)
    assert error(fit(Elsewhere(config, path, (1,)), learned(path, "consistency"))) > 0.15


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("path", [RectifiedFlow(), VP(), DiscreteVP()])
def test_the_sampler_keeps_the_distribution_of_a_perfect_student(path, eta):
    """Whatever share is noise: the exact trajectory from level to level, and noise, leave N(m, c^2)
    (the student's line ends where the scheduler's step does)."""
    teacher = Gaussian(path, 1.3, 0.5)
    method = Method(Method.Config(eta=eta, steps=4), path, (1,))
    scheduler = make_scheduler(method.sampler(), path, "x_0", 1.0)
    levels = [*method.sampler().grid(path).tolist(), path.t_min]
    ends = iter([(1 - eta) * each for each in levels[1:-1]] + [path.t_min])
    from genkit import terms

    def student(x, timestep):
        t = timestep.double()
        end = torch.full_like(t, max(next(ends), path.t_min))
        x_s = teacher.flow_map(x.double(), t, end)
        return terms.line_x_0(x.double(), t, x_s, end, path)

    n = 40_000
    noise = Rng(0).normal((n, 1))
    start = torch.full((n,), levels[0]).double()
    scale = float(path.alpha(start[:1])), float(path.sigma(start[:1]))
    exact = (scale[0] * 1.3 + (scale[0] ** 2 * 0.25 + scale[1] ** 2) ** 0.5 * noise) / (
        scheduler.init_noise_sigma
    )
    x = sample(student, scheduler, exact, 4, torch.Generator().manual_seed(0))
    assert x.mean().item() == pytest.approx(1.3, abs=0.03)
    assert x.std().item() == pytest.approx(0.5, abs=0.03)


def test_the_stock_scheduler_is_used_where_it_is_the_same():
    path = DiscreteVP()

    def made(eta=0.3, steps=4, kind="eps", path=path):
        sampler = Method(Method.Config(eta=eta, steps=steps), path, (1,)).sampler()
        return type(make_scheduler(sampler, path, kind, 1.0)).__name__

    assert made() == made(steps=1) == made(kind="v_prediction") == "TCDScheduler"
    assert made(eta=0.0) == "DDIMScheduler"
    assert made(eta=0.5) == made(steps=3) == made(kind="velocity") == "ConsistencyScheduler"
    assert made(path=VP()) == "ConsistencyScheduler"


@pytest.mark.parametrize("kind", ["eps", "x_0", "v_prediction"])
def test_ours_takes_the_stock_scheduler_s_steps(kind):
    """All but the last, which ours takes to x_0 and TCD to index 0; both floor their ends alike."""
    from genkit.schedulers.consistency import ConsistencyScheduler

    path, sampler = DiscreteVP(), Sampler(5, stochastic=True, eta=0.3)
    stock = make_scheduler(sampler, path, kind, 1.0)
    ours = ConsistencyScheduler(path.config(), kind, 1.0, 5, eta=0.3)
    stock.set_timesteps(5)
    ours.set_timesteps(5)
    assert stock.timesteps.tolist() == ours.timesteps.tolist() == [999, 799, 599, 399, 199]
    x = torch.randn(3, 2)
    for t in stock.timesteps[:-1]:
        output = torch.tanh(x)
        theirs = stock.step(output, t, x, generator=sample_generators(0, 3)).prev_sample
        mine = ours.step(output, t, x, generator=sample_generators(0, 3)).prev_sample
        # TCD's end is a whole index, ours is not.
        assert torch.allclose(mine, theirs, atol=3e-3)
        x = theirs


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_an_eta_that_is_no_share_is_refused(path, eta):
    with pytest.raises(ValueError, match="share from 0 to 1"):
        Method(Method.Config(eta=eta), path, (1,))


def test_the_target_s_point_at_its_own_time_is_its_input(learned, path, teacher):
    """Where the end is s, the target is the teacher's own x_s, whatever the target network."""

    class Next(Method):
        def ends(self, index, rng):
            return self.grid[index + 1].float()

    method, student = Next(Next.Config(intervals=8), path, (1,)), learned(path, "consistency")
    found = {
        loss_of(method, roles_of(teacher, student, learned(path, "consistency", mean, 0.1))).item()
        for mean in (0.0, 9.0)
    }
    assert len(found) == 1 and found.pop() > 0
