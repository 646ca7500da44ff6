"""Denoisers: kinds, derivatives, features, simulation, steps of the flow."""

import pytest
import torch
from denoiser_toys import COND, C, M, Toy, close, doubles, every_path, network, times
from diffusers import DiTTransformer2DModel
from torch import nn

from genkit.denoisers.analytic import Gaussian
from genkit.denoisers.base import Denoiser, Guided, NetworkDenoiser
from genkit.paths import KINDS, RectifiedFlow, expand
from genkit.sampling import Sampler
from genkit.schedulers.consistency import ConsistencyScheduler
from genkit.schedulers.flow import FlowScheduler

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


# -------------------------------------------------------------------------------------- ode_step


@every_path
def test_an_euler_step_is_ddim(path):
    """x_s = alpha_s D + sigma_s eps_hat, both predicted at t (arXiv 2010.02502, eq. 12, eta 0)."""
    exact, x = Gaussian(path, M, C), doubles(5, 2)
    t, s = times(path, 5, 0.4, 0.95), times(path, 5, 0.0, 0.7)
    alpha, sigma = path.alpha(s)[:, None], path.sigma(s)[:, None]
    want = alpha * exact.predict(x, t, {}, "x_0") + sigma * exact.predict(x, t, {}, "eps")
    close(exact.ode_step(x, t, s, {}, "euler"), want, atol=1e-9, rtol=1e-9)


@every_path
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_ode_steps_converge_to_the_flow_map(path, solver, order):
    exact, x = Gaussian(path, M, C), doubles(64, 2)
    first, last = (path.t_of_ratio(torch.tensor(r, dtype=torch.float64)) for r in (1.5, 0.4))
    want = exact.flow_map(x, first.expand(64), last.expand(64))
    errors = []
    for n in (16, 32):
        angle = torch.linspace(float(path.angle(first)), float(path.angle(last)), n + 1).double()
        grid, y = path.t_of_angle(angle), x
        for t, s in zip(grid[:-1], grid[1:], strict=True):
            y = exact.ode_step(y, t.expand(64), s.expand(64), {}, solver)
        errors.append((y - want).abs().mean())
    assert abs(torch.log2(errors[0] / errors[1]).item() - order) < 0.25


def test_the_last_step_of_an_x_0_prediction_is_euler_s():
    """Its velocity at sigma = 0 is 0 / 0; a step that ends before is Heun's."""

    class Constant(Denoiser):
        def raw(self, x_t, timestep, cond, s=None):
            return 0.3 + 0.1 * x_t

    x, t, s = doubles(3, 2), torch.full((3,), 0.2).double(), torch.tensor([0.0, 0.0, 0.1]).double()
    for kind in ("x_0", "velocity"):
        denoiser = Constant(RectifiedFlow(), kind)
        heun, euler = (denoiser.ode_step(x, t, s, {}, solver) for solver in ("heun", "euler"))
        same = [torch.equal(a, b) for a, b in zip(heun, euler, strict=True)]
        assert heun.isfinite().all() and same == [kind == "x_0"] * 2 + [False]


def test_ode_step_refuses_an_unknown_solver():
    x, t = doubles(2, 1), torch.ones(2).double()
    with pytest.raises(ValueError, match="unknown solver 'dopri'"):
        Gaussian(RectifiedFlow(), M, C).ode_step(x, t, 0 * t, {}, "dopri")  # type: ignore[arg-type]
