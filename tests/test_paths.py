"""Paths: schedules, conversions between kinds, and changes of path, all against closed forms."""

import itertools
import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from genkit.denoisers.analytic import Gaussian
from genkit.paths import EDM, KINDS, PATHS, VP, DiscreteVP, RectifiedFlow, TrigFlow, make_path
from genkit.rng import Rng

VARIANTS = [
    TrigFlow(0.5),
    EDM(0.01, 5.0, 3.0),
    VP(0.2, 10.0, 1e-4),
    DiscreteVP("linear", 1e-4, 0.02),
    DiscreteVP("squaredcos_cap_v2"),
    DiscreteVP(rescale_betas_zero_snr=True),
]
ALL = [path() for path in PATHS.values()] + VARIANTS
every_path = pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.config()))


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def times(path, n: int = 41, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return path.time(torch.linspace(low, high, n, dtype=torch.float64))


def close(a, b, atol=1e-12, rtol=1e-10):
    torch.testing.assert_close(a, b, atol=atol, rtol=rtol)


GOLDEN = [
    # path, t, (alpha, sigma, alpha', sigma'), written by hand from the papers' formulas.
    (RectifiedFlow(), 0.3, (0.7, 0.3, -1.0, 1.0)),
    (TrigFlow(), math.pi / 6, (math.sqrt(3) / 2, 0.5, -0.5, math.sqrt(3) / 2)),
    (TrigFlow(0.5), math.pi / 6, (math.sqrt(3) / 2, 0.25, -0.5, math.sqrt(3) / 4)),
    (EDM(), 3.0, (1.0, 3.0, 0.0, 1.0)),
    # beta integral at .5 is .1 * .5 + 19.9 * .125 = 2.5375; beta(.5) = 10.05.
    (
        VP(),
        0.5,
        (
            math.exp(-2.5375 / 2),
            math.sqrt(1 - math.exp(-2.5375)),
            -10.05 / 2 * math.exp(-2.5375 / 2),
            10.05 / 2 * math.exp(-2.5375) / math.sqrt(1 - math.exp(-2.5375)),
        ),
    ),
]


@pytest.mark.parametrize(("path", "t", "values"), GOLDEN, ids=lambda v: getattr(v, "name", ""))
def test_schedule_table(path, t, values):
    at = torch.tensor(t, dtype=torch.float64)
    got = torch.stack([path.alpha(at), path.sigma(at), path.d_alpha(at), path.d_sigma(at)])
    close(got, torch.tensor(values, dtype=torch.float64), atol=1e-14, rtol=1e-13)


def test_edm_clock_is_karras_grid():
    grid = EDM().time(torch.linspace(1, 0, 18, dtype=torch.float64))
    # 2206.00364 eq. 5 with N = 18, rho = 7.
    close(grid[:4], torch.tensor([80.0, 57.586, 40.786, 28.374]).double(), atol=1e-3)
    close(grid[-1:], torch.tensor([0.002], dtype=torch.float64))


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_discrete_vp_is_diffusers_table(schedule, zero):
    config = {"beta_schedule": schedule, "beta_start": 1e-4, "beta_end": 0.02}
    theirs = DDPMScheduler(**config, rescale_betas_zero_snr=zero).alphas_cumprod.double()
    ours = DiscreteVP(**config, rescale_betas_zero_snr=zero)
    index = torch.arange(1000, dtype=torch.float64)
    torch.testing.assert_close(ours.alpha(index) ** 2, theirs, atol=1e-6, rtol=1e-4)


@every_path
def test_derivatives_agree_with_autograd(path):
    t = times(path, 37, 0.004, 0.996).requires_grad_()
    for value, hand in ((path.alpha(t), path.d_alpha(t)), (path.sigma(t), path.d_sigma(t))):
        if value.requires_grad:
            (auto,) = torch.autograd.grad(value.sum(), t)
        else:  # a constant schedule, such as EDM's alpha
            auto = torch.zeros_like(t)
        close(hand.detach(), auto)


@every_path
def test_clock_and_ratio(path):
    t = times(path)
    assert (t.diff() > 0).all()
    close(t[[0, -1]], torch.tensor([path.t_min, path.t_max], dtype=torch.float64))
    ratio = path.sigma(t) / path.alpha(t)
    assert (ratio.diff() > 0).all(), "noise grows with t"
    scale = path.t_max - path.t_min
    close(path.t_of_ratio(ratio) / scale, t / scale, atol=1e-9)
    close(path.t_of_angle(path.angle(t)) / scale, t / scale, atol=1e-9)


@every_path
def test_pure_noise_is_the_last_time(path):
    at = path.t_of_ratio(torch.tensor([math.inf], dtype=torch.float64))
    close(at, torch.tensor([path.t_max], dtype=torch.float64), atol=1e-9)


@every_path
@pytest.mark.parametrize("source", KINDS)
def test_conversions_know_data_and_noise(path, source):
    """Every kind from every kind, away from the two ends, then back again."""
    t = times(path, 21, 0.05, 0.95)
    x_0, eps = doubles(21, 2, 3), doubles(21, 2, 3, seed=1)
    x_t = path.add_noise(x_0, eps, t)
    value = path.target(x_0, eps, t, source)
    for kind in KINDS:
        there = path.convert(value, x_t, t, source, kind)
        close(there, path.target(x_0, eps, t, kind), atol=1e-9, rtol=1e-9)
        close(path.convert(there, x_t, t, kind, source), value, atol=1e-9, rtol=1e-9)


@every_path
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_conversions_at_the_ends(path, end):
    """A velocity determines everything at both ends; x_0 where there is noise, eps where signal."""
    t = path.time(torch.full((4,), end, dtype=torch.float64))
    x_0, eps = doubles(4, 5), doubles(4, 5, seed=1)
    x_t = path.add_noise(x_0, eps, t)
    sources = ["velocity", "v_prediction"]
    sources += ["x_0"] if path.sigma(t)[0] > 0 else []
    sources += ["eps"] if path.alpha(t)[0] > 1e-9 else []
    for source, kind in itertools.product(sources, KINDS):
        got = path.convert(path.target(x_0, eps, t, source), x_t, t, source, kind)
        close(got, path.target(x_0, eps, t, kind), atol=1e-8, rtol=1e-6)


def test_velocity_is_the_papers_ode():
    """Section 0: VE (x - D) / t, rectified flow eps - x_0, TrigFlow cos eps - sin x_0."""
    x_0, eps, t = doubles(5, 3), doubles(5, 3, seed=1), torch.linspace(0.2, 1.0, 5).double()
    at = t[:, None]
    edm = EDM()
    close(edm.target(x_0, eps, t, "velocity"), (edm.add_noise(x_0, eps, t) - x_0) / at)
    close(RectifiedFlow().target(x_0, eps, t, "velocity"), eps - x_0)
    trig = torch.cos(at) * eps - torch.sin(at) * x_0
    close(TrigFlow().target(x_0, eps, t, "velocity"), trig)
    close(TrigFlow().target(x_0, eps, t, "v_prediction"), trig)
    alpha, sigma = VP().alpha(at), VP().sigma(at)
    close(VP().target(x_0, eps, t, "v_prediction"), alpha * eps - sigma * x_0)


pairs = pytest.mark.parametrize(
    ("path", "other"),
    list(itertools.product(ALL, ALL)),
    ids=lambda path: str(list(path.config().values())),
)


def shared_times(path, other) -> torch.Tensor:
    """Times of `path` whose noise angle lies inside `other`'s range."""
    ends = torch.tensor([other.t_min, other.t_max], dtype=torch.float64)
    low, high = other.angle(ends)
    angle = path.angle(times(path, 33))
    return times(path, 33)[(angle >= low) & (angle <= high)]


@pairs
def test_repath_keeps_the_posterior(path, other):
    t = shared_times(path, other)
    c, there = path.repath(t, other)
    close(other.angle(there), path.angle(t), atol=1e-9)
    x_t, data = doubles(len(t), 4), {"mean": 0.3, "std": 0.7}
    ours = Gaussian(path, **data).predict(x_t, t, {}, "x_0")
    theirs = Gaussian(other, **data).predict(c[:, None] * x_t, there, {}, "x_0")
    close(theirs, ours, atol=1e-7, rtol=1e-7)


@pairs
def test_repath_rates_are_derivatives(path, other):
    # Kept off the ends, where a time is clipped, and off the kinks of an index look-up.
    t = shared_times(path, other)[1:-1] + 0.0012345 * (path.t_max - path.t_min)
    t = t[t < path.t_max].requires_grad_()
    c, there = path.repath(t, other)
    d_c, rate = path.repath_rates(t, other)
    close(d_c, torch.autograd.grad(c.sum(), t, retain_graph=True)[0], atol=1e-7, rtol=1e-6)
    close(rate, torch.autograd.grad(there.sum(), t)[0], atol=1e-7, rtol=1e-6)


def test_repath_of_trigflow_is_rcms():
    """Section 0: k = 1 / (cos + sin), t_rf = k sin, = sigma / (1 + sigma) for sigma = tan."""
    theta = torch.linspace(0, math.pi / 2, 101, dtype=torch.float64)
    k, t_rf = TrigFlow().repath(theta, RectifiedFlow())
    want = 1 / (torch.cos(theta) + torch.sin(theta))
    close(k, want, atol=2e-15, rtol=0)
    close(t_rf, want * torch.sin(theta), atol=2e-15, rtol=0)
    sigma = torch.tan(theta[:-1])
    close(t_rf[:-1], sigma / (1 + sigma), atol=2e-15, rtol=0)


@every_path
def test_start_and_noise(path):
    eps = path.noise((2, 3), Rng(0))
    assert torch.equal(eps, Rng(0).normal((2, 3)))
    last = path.sigma(torch.tensor(path.t_max, dtype=torch.float64))
    preserving = path.name in ("vp", "discrete_vp")  # x_T ~ N(0, I), sigma being all but 1 there
    close(path.start(eps.double()), eps.double() * (1 if preserving else last))
    assert 0.99 < float(last) <= 1 or not preserving


@every_path
def test_grid(path):
    for steps in (1, 2, 3, 7):
        grid = path.grid(steps)
        assert grid.dtype == torch.float64 and len(grid) == steps
        close(grid[0], torch.tensor(path.t_max).double(), rtol=1e-6)
        if path.name != "discrete_vp":
            close(grid, path.time(1 - torch.arange(steps, dtype=torch.float64) / steps))


@pytest.mark.parametrize("n", [1000, 100])
def test_grid_of_indices_is_trailing(n):
    """As diffusers' DDIM lays it, but for its rounding of halves where steps does not divide N."""
    stock = DDIMScheduler(num_train_timesteps=n, timestep_spacing="trailing")
    path = DiscreteVP(num_train_timesteps=n)
    for steps in range(1, n + 1):
        stock.set_timesteps(steps)
        grid = path.grid(steps)
        off = (grid - stock.timesteps[:steps]).abs().max()
        assert (grid.diff() < 0).all() and grid[-1] >= 0 and off <= (n % steps != 0)


@every_path
def test_config_rebuilds(path):
    again = make_path(path.config())
    assert type(again) is type(path) and again.config() == path.config()
    t = times(path)
    assert torch.equal(again.alpha(t), path.alpha(t)) and torch.equal(again.sigma(t), path.sigma(t))


def test_times_per_frame():
    x_0, eps, t = doubles(2, 3, 4), doubles(2, 3, 4, seed=1), torch.rand(2, 3).double()
    x_t = RectifiedFlow().add_noise(x_0, eps, t)
    close(x_t, (1 - t[..., None]) * x_0 + t[..., None] * eps)
    with pytest.raises(ValueError, match="prefix"):
        RectifiedFlow().add_noise(x_0, eps, torch.rand(3).double())


def test_float32_keeps_its_dtype():
    x, t = torch.randn(3, 2), torch.full((3,), 0.5)
    assert RectifiedFlow().convert(x, x, t, "velocity", "x_0").dtype == torch.float32
    assert RectifiedFlow().add_noise(x, x, t).dtype == torch.float32


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda: make_path({"name": "cosine"}), "unknown path 'cosine'"),
        (lambda: DiscreteVP("cubic"), "unknown beta_schedule 'cubic'"),
        (
            lambda: RectifiedFlow().target(*[torch.ones(1)] * 3, "noise"),  # type: ignore[arg-type]
            "unknown prediction kind 'noise'",
        ),
    ],
)
def test_names_unknown(wrong, match):
    with pytest.raises(ValueError, match=match):
        wrong()


def test_zero_terminal_snr_falls_at_every_index():
    path = DiscreteVP(rescale_betas_zero_snr=True)
    t = torch.arange(1000, dtype=torch.float64)
    assert (path.log_snr(t).diff() < 0).all()
    assert (path.t_of_angle(path.angle(t)) - t).abs().max() < 1e-6
    assert path.alpha(t[-1]) < 2**-12 + 1e-12
