"""Denoisers: kinds, derivatives, features, simulation, and Denoisers around Denoisers."""

import itertools

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import nn

from genkit.denoisers.analytic import Gaussian, Mixture
from genkit.denoisers.base import (
    Boundary,
    Denoiser,
    EDMPreconditioned,
    Guided,
    NetworkDenoiser,
    Repathed,
)
from genkit.denoisers.calls import network_call
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import EDM, KINDS, PATHS, VP, DiscreteVP, RectifiedFlow, TrigFlow, expand
from genkit.sampling import Sampler
from genkit.schedulers.consistency import ConsistencyScheduler
from genkit.schedulers.flow import FlowScheduler

ALL = [path() for path in PATHS.values()]
every_path = pytest.mark.parametrize("path", ALL, ids=list(PATHS))
every_pair = pytest.mark.parametrize(
    ("path", "other"),
    list(itertools.product(ALL, ALL)),
    ids=lambda path: path.name,
)
M, C = 0.3, 0.7


def close(a, b, atol=1e-12, rtol=1e-10):
    torch.testing.assert_close(a, b, atol=atol, rtol=rtol)


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def times(path, n: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return path.time(torch.linspace(low, high, n, dtype=torch.float64))


class Toy(Denoiser):
    """A smooth network of x, network time, label and, when two-time, a second time."""

    def __init__(self, path=None, kind="velocity", time_scale=1.0, two_time=False):
        super().__init__(path or RectifiedFlow(), kind, time_scale, two_time)
        self.scale = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))
        self.calls = 0

    def raw(self, x_t, timestep, cond, s=None):
        self.calls += 1
        label = expand(cond["label"].to(x_t.dtype), x_t)
        second = 0 if s is None else torch.sin(0.3 * expand(s, x_t))
        return self.scale * torch.tanh(x_t) * torch.cos(expand(timestep, x_t)) + label + second


COND = {"label": torch.tensor([0, 1, 2])}


def network(width: int = 16, seed: int = 0) -> NetworkDenoiser:
    """A randomly weighted MLP in float64 (its output layer is zero when new)."""
    torch.manual_seed(seed)
    net = MLPDenoiser(sample_size=4, width=width, depth=2).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return NetworkDenoiser(net, network_call(net), RectifiedFlow(), "velocity", 1000.0)


# --------------------------------------------------------------------------------------- predict


@every_path
@pytest.mark.parametrize("source", KINDS)
def test_every_kind_from_every_kind(path, source):
    """A network that gives the Gaussian's posterior in one kind gives it in all."""
    exact = Gaussian(path, M, C)
    denoiser = NetworkDenoiser(
        exact, lambda net, x, t, cond, s: net.predict(x, t / 3, cond, source), path, source, 3.0
    )
    x, t = doubles(5, 2), times(path, 5, 0.1, 0.9)
    for kind in KINDS:
        got = denoiser.predict(x, t, {}, kind)
        close(got, exact.predict(x, t, {}, kind), atol=1e-8, rtol=1e-8)


def test_network_time_is_scaled():
    seen = []
    denoiser = NetworkDenoiser(
        nn.Identity(),
        lambda net, x, t, cond, s: seen.append((t, s)) or x,
        RectifiedFlow(),
        "velocity",
        1000.0,
        two_time=True,
    )
    x, t, s = doubles(2, 1), torch.tensor([0.25, 1.0]), torch.tensor([0.0, 0.5])
    denoiser.predict(x, t, {}, "velocity")
    denoiser.predict(x, t, {}, "mean_velocity", s)
    assert [[each.tolist() for each in pair] for pair in seen] == [
        [[250, 1000], [250, 1000]],
        [[250, 1000], [0, 500]],
    ]


def test_mean_velocity_needs_a_two_time_network():
    x, t = doubles(3, 2), torch.ones(3).double()
    with pytest.raises(ValueError, match="Toy has one time input"):
        Toy().predict(x, t, COND, "mean_velocity", t)
    with pytest.raises(ValueError, match="give s exactly when"):
        Toy(two_time=True).predict(x, t, COND, "x_0", t)


def test_predict_is_differentiable_in_weights_and_times():
    toy = Toy(two_time=True)
    x, t, s = doubles(3, 2), torch.rand(3).double(), torch.rand(3).double()
    inputs = (x.requires_grad_(), t.requires_grad_(), s.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda x, t, s: toy.predict(x, t, COND, "mean_velocity", s), inputs
    )
    toy.predict(x, t, COND, "x_0").sum().backward()
    assert toy.scale.grad is not None and toy.scale.grad.abs() > 0


# ------------------------------------------------------------------------------------------- jvp


def tiny_dit() -> NetworkDenoiser:
    torch.manual_seed(0)
    net = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=2,
        out_channels=2,
        num_layers=2,
        sample_size=4,
        patch_size=2,
        num_embeds_ada_norm=10,
        norm_num_groups=2,
    ).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)

    def call(net, x, timestep, cond, s):
        return net(x, timestep=timestep, class_labels=cond["label"]).sample

    return NetworkDenoiser(net.eval(), call, RectifiedFlow(), "velocity", 1000.0)


@pytest.mark.parametrize("make", [network, tiny_dit], ids=["mlp", "dit"])
def test_jvp_backends_agree(make):
    denoiser = make()
    channels = 1 if make is network else 2
    x, dx = doubles(3, channels, 4, 4), doubles(3, channels, 4, 4, seed=1)
    t, dt = torch.tensor([0.2, 0.5, 0.9]).double(), torch.tensor([0.1, -0.1, 0.05]).double()
    # diffusers' time embedding is float32 in a float64 network too, which a difference feels.
    for move, tolerance in ((0 * dt, 1e-6), (dt, 0.02)):
        for kind in ("velocity", "x_0"):
            value, slope = denoiser.jvp(x, t, COND, kind, dx, move, backend="func")
            near, quotient = denoiser.jvp(x, t, COND, kind, dx, move, backend="difference")
            close(value, denoiser.predict(x, t, COND, kind))
            close(near, value)
            assert slope.abs().max() > 0.01
            assert (slope - quotient).abs().max() < tolerance * slope.abs().max()


def test_jvp_along_each_argument():
    toy = Toy(two_time=True)
    x, t, s = doubles(3, 2), torch.rand(3).double(), torch.rand(3).double()
    dx, dt, ds = doubles(3, 2, seed=1), doubles(3, seed=2), doubles(3, seed=3)
    for moves in ((dx, dt, ds), (dx * 0, dt, ds * 0), (dx * 0, dt * 0, ds)):
        ways = [
            toy.jvp(x, t, COND, "mean_velocity", *moves[:2], s, moves[2], backend=backend)[1]
            for backend in ("func", "kernel", "difference")
        ]
        close(ways[0], ways[1])
        close(ways[0], ways[2], atol=1e-7)
    standing = toy.jvp(x, t, COND, "mean_velocity", dx, dt, s)[1]
    close(standing, toy.jvp(x, t, COND, "mean_velocity", dx, dt, s, ds * 0)[1])


@every_path
def test_jvp_is_the_flows_derivative(path):
    """Along the flow an x_0-trajectory of one Gaussian moves as dD/dt does by autograd."""
    exact, x = Gaussian(path, M, C), doubles(4, 2)
    t = times(path, 4, 0.2, 0.9)
    v = exact.predict(x, t, {}, "velocity")
    _, slope = exact.jvp(x, t, {}, "x_0", v, torch.ones_like(t))
    h = 1e-6 * (path.t_max - path.t_min)
    moved = [exact.predict(exact.flow_map(x, t, t + side), t + side, {}, "x_0") for side in (h, -h)]
    close(slope, (moved[0] - moved[1]) / (2 * h), atol=1e-6, rtol=1e-4)


def test_jvp_backend_unknown():
    x, t = doubles(3, 2), torch.ones(3).double()
    with pytest.raises(ValueError, match="unknown jvp backend 'magic'"):
        Toy().jvp(x, t, COND, "x_0", x, t, backend="magic")  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------- trace


def count(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_trace_gives_tokens_and_the_same_prediction():
    denoiser = network()
    x, t = doubles(3, 1, 4, 4), torch.rand(3).double()
    names = ["network.blocks.1", "network.enter"]
    prediction, features = denoiser.trace(x, t, COND, "x_0", names)
    close(prediction, denoiser.predict(x, t, COND, "x_0"))
    assert list(features) == names
    assert all(each.shape == (3, 1, 16) for each in features.values())
    assert not denoiser.network.enter._forward_hooks, "no hook stays behind"


@pytest.mark.parametrize(
    ("output", "shape"),
    [((2, 5), (2, 1, 5)), ((2, 7, 5), (2, 7, 5)), ((2, 5, 3, 4), (2, 12, 5))],
)
def test_trace_tokens(output, shape):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.Identity()

        def forward(self, x):
            self.seen = torch.arange(float(torch.Size(output).numel())).view(output)
            self.inside(self.seen)
            return x

    denoiser = NetworkDenoiser(Net(), lambda net, x, *_: net(x), RectifiedFlow(), "x_0")
    _, features = denoiser.trace(torch.ones(2, 1), torch.ones(2), {}, "x_0", ["network.inside"])
    got = features["network.inside"]
    assert got.shape == shape
    if len(output) == 4:  # token i is the i-th place, with its channels
        assert torch.equal(got[1, 5], denoiser.network.seen[1, :, 1, 1])


def test_trace_until_stops_early():
    denoiser = network()
    x, t = doubles(3, 1, 4, 4).requires_grad_(), torch.rand(3).double()
    first, second, leave = (
        count(m)
        for m in (denoiser.network.blocks[0], denoiser.network.blocks[1], denoiser.network.leave)
    )
    _, whole = denoiser.trace(x, t, COND, "x_0", ["network.blocks.0"])
    assert (len(first), len(second), len(leave)) == (1, 1, 1)
    prediction, features = denoiser.trace(
        x, t, COND, "x_0", ["network.blocks.0"], until="network.blocks.0"
    )
    assert prediction is None and (len(first), len(second), len(leave)) == (2, 1, 1)
    close(features["network.blocks.0"], whole["network.blocks.0"])
    features["network.blocks.0"].sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert len(denoiser.network.blocks[0]._forward_hooks) == 1, "only the counter stays"


def test_trace_of_a_wrapped_and_a_tuple_output():
    denoiser = Guided(network(), 2.0, {"label": torch.tensor([10])})
    x, t = doubles(3, 1, 4, 4), torch.rand(3).double()
    _, features = denoiser.trace(x, t, COND, "x_0", ["inner.network.blocks.0"])
    assert features["inner.network.blocks.0"].shape == (6, 1, 16), "both halves of the batch"


def test_trace_name_unknown():
    x, t = doubles(3, 1, 4, 4), torch.rand(3).double()
    with pytest.raises(ValueError, match="no submodule 'network.middle'"):
        network().trace(x, t, COND, "x_0", ["network.middle"])
    with pytest.raises(ValueError, match="no submodule 'nothing'"):
        network().trace(x, t, COND, "x_0", [], until="nothing")


# -------------------------------------------------------------------------------------- simulate


def make_scheduler(sampler: Sampler, path):
    if sampler.stochastic:
        return ConsistencyScheduler(path.config(), steps=sampler.steps)
    return FlowScheduler(path.config(), steps=sampler.steps)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("stop", [0, 2])
def test_simulate_has_the_exit_evaluations_gradient_only(stochastic, stop):
    toy, path, sampler = Toy(), RectifiedFlow(), Sampler(3, stochastic=stochastic)
    scheduler, noise = make_scheduler(sampler, path), doubles(3, 2)

    def generators():
        return [torch.Generator().manual_seed(i) for i in range(3)] if stochastic else None

    toy.calls = 0
    x_0 = toy.simulate(noise, COND, scheduler, sampler, stop, generators())
    assert toy.calls == stop + 1
    (got,) = torch.autograd.grad(x_0.sum(), toy.scale)

    # Freeze x before the exit, then differentiate what is left by hand.
    before: list[torch.Tensor] = []
    original = toy.raw

    def spy(x, *rest):
        before.append(x.detach())
        return original(x, *rest)

    toy.raw = spy  # type: ignore[method-assign]
    again = toy.simulate(noise, COND, scheduler, sampler, stop, generators())
    close(again, x_0)
    t, h = torch.full((3,), 1 - stop / 3).double(), 1e-6

    def exit_sum(offset):
        toy.scale.data += offset
        value = original(before[-1], t, COND)
        toy.scale.data -= offset
        return (before[-1] - expand(t, value) * value).sum()

    quotient = (exit_sum(h) - exit_sum(-h)) / (2 * h)
    close(got, quotient.detach(), atol=1e-7, rtol=1e-6)

    def whole_sum(offset):
        toy.scale.data += offset
        value = toy.simulate(noise, COND, scheduler, sampler, stop, generators()).sum()
        toy.scale.data -= offset
        return value.detach()

    through = (whole_sum(h) - whole_sum(-h)) / (2 * h)
    assert bool((through - got).abs() > 1e-2) == (stop > 0), "earlier steps are cut off"


@every_path
def test_simulate_ends_where_sampling_does(path):
    """The last evaluation's x_0 is what the scheduler returns."""
    exact, sampler = Gaussian(path, M, C), Sampler(4)
    scheduler, noise = make_scheduler(sampler, path), doubles(3, 2)
    got = exact.simulate(noise, {}, scheduler, sampler, 3)
    close(got, exact.sample(noise, {}, scheduler), atol=1e-9, rtol=1e-9)


# -------------------------------------------------------------------------- guidance as a Denoiser


def test_guidance_of_one_changes_nothing():
    toy = Toy()
    x, t = doubles(3, 2), torch.rand(3).double()
    for w in (1.0, torch.ones(3).double()):
        guided = Guided(toy, w, {"label": torch.tensor([7])})
        for kind in KINDS:
            close(guided.predict(x, t, COND, kind), toy.predict(x, t, COND, kind), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_means_the_same_in_every_kind(kind):
    toy, none = Toy(kind="eps", path=VP()), {"label": torch.tensor([7])}
    x, t, w = doubles(3, 2), torch.tensor([0.2, 0.5, 0.9]).double(), torch.tensor([0.0, 1.0, 3.0])
    uncond = toy.predict(x, t, {"label": torch.tensor([7, 7, 7])}, kind)
    cond = toy.predict(x, t, COND, kind)
    toy.calls = 0
    got = Guided(toy, w, none).predict(x, t, COND, kind)
    assert toy.calls == 1, "both halves in one forward"
    close(got, uncond + w.double()[:, None] * (cond - uncond), atol=1e-9)


def test_guided_mixture_is_the_tilted_density():
    """uncond + w (cond - uncond) of scores is the gradient of w log p(x|y) + (1 - w) log p(x)."""
    path, labels = RectifiedFlow(), torch.tensor([0, 0, 1])
    exact = Mixture(path, doubles(3, 2), 0.6, labels=labels)
    cond, t = {"label": torch.tensor([0, 1])}, torch.tensor([0.3, 0.7]).double()
    x = doubles(2, 2, seed=3).requires_grad_()
    tilted = 2.5 * exact.log_density(x, t, cond) - 1.5 * exact.log_density(x, t)
    (score,) = torch.autograd.grad(tilted.sum(), x)
    guided = Guided(exact, 2.5, {"label": torch.tensor([2])})
    close(guided.predict(x.detach(), t, cond, "eps"), -t[:, None] * score, atol=1e-9)


# ----------------------------------------------------------------------------- change of path


def shared_times(path, other) -> torch.Tensor:
    """Times of `path` whose noise angle lies inside `other`'s range; ends where both have them."""
    low, high = other.angle(torch.tensor([other.t_min, other.t_max], dtype=torch.float64))
    t = times(path, 25)
    return t[(path.angle(t) >= low - 1e-12) & (path.angle(t) <= high + 1e-12)]


@every_pair
def test_repathed_is_the_gaussian_there(path, other):
    repathed, exact = Repathed(Gaussian(other, M, C), path), Gaussian(path, M, C)
    t = shared_times(path, other)
    assert len(t) >= 5
    x = doubles(len(t), 2)
    for kind in ("velocity", "v_prediction"):
        close(repathed.predict(x, t, {}, kind), exact.predict(x, t, {}, kind), 1e-6, 1e-6)
    inside = t[1:-1]
    for kind in ("x_0", "eps"):
        want = exact.predict(x[1:-1], inside, {}, kind)
        close(repathed.predict(x[1:-1], inside, {}, kind), want, 1e-6, 1e-6)


def test_repathed_trigflow_is_rcms_wrapper():
    """Section 0, to 1e-15: F = k ((cos - sin) x + v_rf), D = k x - k sin v_rf."""
    toy, theta = Toy(), torch.linspace(0, torch.pi / 2, 33, dtype=torch.float64)
    x, cond = doubles(33, 2), {"label": torch.zeros(33)}
    sin, cos = torch.sin(theta)[:, None], torch.cos(theta)[:, None]
    k = 1 / (sin + cos)
    v = toy.predict(k * x, (k * sin)[:, 0], cond, "velocity")
    repathed = Repathed(toy, TrigFlow())
    velocity = repathed.predict(x, theta, cond, "velocity")
    close(velocity, k * ((cos - sin) * x + v), atol=1e-14, rtol=0)
    close(repathed.predict(x, theta, cond, "x_0"), k * x - k * sin * v, atol=1e-14, rtol=0)


def test_repathed_trigflow_has_no_quotient_in_float32():
    """At theta = 1e-8 the form (cos x - D) / sin is wrong by 0.24 in float32."""
    toy, theta = Toy().float(), torch.tensor([1e-8, 1e-4, 1.57])
    x, cond = torch.randn(3, 2), {"label": torch.zeros(3)}
    got = Repathed(toy, TrigFlow()).predict(x, theta, cond, "velocity")
    want = Repathed(Toy(), TrigFlow()).predict(x.double(), theta.double(), cond, "velocity")
    close(got.double(), want, atol=1e-5, rtol=0)


def test_repathed_jvp():
    repathed = Repathed(Gaussian(RectifiedFlow(), M, C), TrigFlow())
    exact, x, t = Gaussian(TrigFlow(), M, C), doubles(3, 2), torch.tensor([0.2, 0.8, 1.4]).double()
    dx, dt = doubles(3, 2, seed=1), torch.ones(3).double()
    close(
        repathed.jvp(x, t, {}, "velocity", dx, dt)[1],
        exact.jvp(x, t, {}, "velocity", dx, dt)[1],
        atol=1e-9,
    )


def test_repathed_keeps_its_networks_time_scale():
    toy = Toy(time_scale=0.5)
    x, t, cond = doubles(3, 2), torch.tensor([0.2, 0.5, 0.8]).double(), COND
    same = Repathed(toy, RectifiedFlow())
    close(same.predict(x, t, cond, "velocity"), toy.predict(x, t, cond, "velocity"))


# ------------------------------------------------------------------------ preconditioning, boundary


@pytest.mark.parametrize("sigma_data", [0.5, 0.7])
def test_a_perfect_f_gives_the_posterior(sigma_data):
    """With F = (D - c_skip x) / c_out as a function of its own inputs only."""
    path = EDM()

    def perfect(net, x_in, c_noise, cond, s):
        sigma = torch.exp(4 * c_noise)[:, None]
        norm = torch.sqrt(sigma**2 + sigma_data**2)
        x = x_in * norm
        exact = M + (x - M) * C**2 / (C**2 + sigma**2)
        return (exact - sigma_data**2 / norm**2 * x) / (sigma * sigma_data / norm)

    inner = NetworkDenoiser(nn.Identity(), perfect, path, "x_0")
    denoiser, exact = EDMPreconditioned(inner, path, sigma_data), Gaussian(path, M, C)
    t = times(path, 9)
    x = doubles(9, 2) * torch.sqrt(C**2 + t**2)[:, None]
    for kind in ("x_0", "velocity"):
        close(denoiser.predict(x, t, {}, kind), exact.predict(x, t, {}, kind), 1e-9, 1e-7)


def test_preconditioned_f_of_zero_is_the_skip():
    inner = NetworkDenoiser(nn.Identity(), lambda net, x, *_: 0 * x, EDM(), "x_0")
    x, t = doubles(4, 2), times(EDM(), 4)
    got = EDMPreconditioned(inner, EDM(), C).predict(x, t, {}, "x_0")
    # For data of mean 0 and std sigma_data the skip is already the posterior mean.
    close(got, Gaussian(EDM(), 0.0, C).predict(x, t, {}, "x_0"))


@every_path
def test_boundary_condition(path):
    """alpha(t_min) f(x, t_min) = x, to 1e-6, for a network that says something else entirely."""
    wrong = Toy(path, "x_0")
    bounded, x = Boundary(wrong), doubles(3, 2)
    first = torch.full((3,), path.t_min, dtype=torch.float64)
    assert (wrong.predict(x, first, COND, "x_0") - x).abs().max() > 0.1
    f = bounded.predict(x, first, COND, "x_0")
    close(path.alpha(first)[:, None] * f, x, atol=1e-6)
    if not isinstance(path, VP | DiscreteVP):  # there alpha(t_min) is .9996, not 1
        close(f, x, atol=1e-6)
    last = torch.full((3,), path.t_max, dtype=torch.float64)
    close(bounded.predict(x, last, COND, "x_0"), wrong.predict(x, last, COND, "x_0"), 0.05, 0)


def test_boundary_weights_are_the_papers_on_edm():
    path, inner = EDM(), Toy(EDM(), "x_0")
    x, t = doubles(3, 2), torch.tensor([0.01, 0.5, 3.0]).double()
    c_skip = 0.25 / ((t - 0.002) ** 2 + 0.25)
    want = c_skip[:, None] * x + (1 - c_skip)[:, None] * inner.predict(x, t, COND, "x_0")
    close(Boundary(inner).predict(x, t, COND, "x_0"), want)
    assert path.t_min == 0.002


def test_boundary_of_a_scaled_time():
    inner = Toy(RectifiedFlow(), "x_0", time_scale=1000.0)
    x, zero = doubles(3, 2), torch.zeros(3).double()
    close(Boundary(inner).predict(x, zero, COND, "x_0"), x)
