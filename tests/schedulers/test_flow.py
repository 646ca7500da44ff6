"""The deterministic sampler against known errors, DDIM, stock Euler, and its order on a mixture."""

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_map_euler_discrete import FlowMapEulerDiscreteScheduler

from genkit.paths import EDM, VP, DiscreteVP, RectifiedFlow, TrigFlow
from genkit.sampling import sample
from genkit.schedulers.flow import FlowScheduler, adams_bashforth

S2 = 0.25
FLOW = RectifiedFlow()


def gaussian(path, kind):
    """The network of data N(0, S2) on `path`, predicting `kind`."""

    def evaluate(x, t):
        t = t.double()
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        x_0 = alpha * S2 * x / (alpha**2 * S2 + sigma**2)
        if kind == "x_0":
            return x_0
        if kind == "eps":
            return sigma * x / (alpha**2 * S2 + sigma**2)
        return path.convert(x_0, x, t, "x_0", kind)

    return evaluate


def one():
    return torch.ones(1, 1, dtype=torch.float64)


# |x - 0.5| from x = 1 on the uniform grid 1 -> 0, computed apart from this code.
GOLDEN = {
    1: [1.6e-1, 1.3e-1, 6.9e-2, 3.6e-2, 1.8e-2, 9.2e-3],
    2: [5.7e-2, 3.7e-2, 8.4e-3, 1.9e-3, 4.4e-4, 1.1e-4],
    3: [1.6e-2, 3.7e-3, 1.4e-3, 2.0e-4, 8.7e-6, 3.7e-6],
}


@pytest.mark.parametrize("order", GOLDEN)
def test_golden_errors_of_adams_bashforth(order):
    scheduler = FlowScheduler(FLOW.config(), solver_order=order)
    errors = [
        abs(float(sample(gaussian(FLOW, "velocity"), scheduler, one(), n)) - 0.5)
        for n in (4, 5, 10, 20, 40, 80)
    ]
    # The golden figures have two digits: half a unit of the second is at most 5%.
    assert errors == pytest.approx(GOLDEN[order], rel=0.05)


def mixture(x, t):
    """Velocity of the data 1/2 N(-1, 0.04) + 1/2 N(1, 0.04)."""
    t = t[:, None]
    alpha, var = 1 - t, (1 - t) ** 2 * 0.04 + t**2
    mode = torch.tanh(alpha * x / var)  # posterior mean of the mode, -1 or 1
    return (x - mode - alpha * 0.04 / var * (x - alpha * mode)) / t


# Order 2 at 20,000 steps, which differs from 10,000 by 2e-8.
MIXTURE = {0.7: 1.00805984, -0.3: -0.85603920, 1.6: 1.24573314}


def test_orders_on_a_mixture():
    """A quarter of the step divides the error by 4^order, until the first, Euler step's own error,
    which falls as h^2, limits order 3."""
    start, exact = (torch.tensor([list(v)]).double().mT for v in (MIXTURE, MIXTURE.values()))
    error = {}
    for order in (1, 2, 3):
        scheduler = FlowScheduler(FLOW.config(), solver_order=order)
        ends = [sample(mixture, scheduler, start, n) for n in (20, 100, 400)]
        error[order] = [float((end - exact).abs().max()) for end in ends]
    for order in (1, 2):
        assert error[order][1] / error[order][2] > 4 ** (order - 0.3), error
    for i in range(3):
        assert error[3][i] < 0.5 * error[2][i] < 0.3 * error[1][i], error


@pytest.mark.parametrize("kind", ["eps", "x_0", "velocity", "v_prediction"])
@pytest.mark.parametrize("path", [TrigFlow(0.5), EDM(), VP(), DiscreteVP()], ids=lambda p: p.name)
def test_every_path_and_kind_reaches_the_exact_flow(path, kind):
    """The flow of N(0, S2): x_0 = x sqrt(S2 / var(t))."""
    u = torch.linspace(0.97, 0.0, 400, dtype=torch.float64)[:-1]
    times = path.time(u).tolist()
    scheduler = FlowScheduler(path.config(), kind, steps=399, times=times, solver_order=2)
    end = sample(gaussian(path, kind), scheduler, one())
    t = torch.tensor(times[0], dtype=torch.float64)
    var = path.alpha(t) ** 2 * S2 + path.sigma(t) ** 2
    expected = float(path.sigma(t) * torch.sqrt(S2 / var))
    assert float(end) == pytest.approx(expected, abs=2e-3)


def test_order_1_is_ddim():
    """On discrete VP, eps-prediction, against diffusers' own DDIM."""
    stock = DDIMScheduler(timestep_spacing="trailing", clip_sample=False)
    stock.set_timesteps(5)
    path = DiscreteVP("linear", 1e-4, 0.02)
    times = [float(t) for t in stock.timesteps]
    ours = FlowScheduler(path.config(), "eps", steps=5, times=times)
    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eps = lambda x, t: torch.tanh(x + t[:, None] / 1000)  # noqa: E731
    start = noise * ours.init_noise_sigma / stock.init_noise_sigma
    x = start
    for t in stock.timesteps:
        x = stock.step(eps(x, t.expand(4).double()), t, x).prev_sample
    # diffusers holds its alphas in float32.
    assert torch.allclose(sample(eps, ours, noise), x, atol=1e-4)


def test_order_1_is_stock_euler_on_rectified_flow():
    stock = FlowMapEulerDiscreteScheduler()
    ours = FlowScheduler(FLOW.config(), time_scale=1000.0)
    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    net = lambda x, t: torch.tanh(x + t[:, None] / 1000)  # noqa: E731
    for steps in (1, 4, 7):
        assert torch.allclose(
            sample(net, ours, noise, steps), sample(net, stock, noise, steps), atol=1e-6
        )


def test_weights_integrate_polynomials_exactly():
    nodes, end = torch.tensor([0.5, 0.8, 0.95], dtype=torch.float64), torch.tensor(0.1).double()
    w = adams_bashforth(nodes, end)
    for k in range(3):
        exact = (end ** (k + 1) - nodes[0] ** (k + 1)) / (k + 1)
        assert float((w * nodes**k).sum() - exact) == pytest.approx(0, abs=1e-12)


def test_sampling_again_forgets_the_velocities_before():
    scheduler = FlowScheduler(FLOW.config(), steps=4, solver_order=3)
    ends = [sample(gaussian(FLOW, "velocity"), scheduler, one()) for _ in range(2)]
    assert torch.equal(*ends)


def test_unknown_order():
    with pytest.raises(ValueError, match="choose 1, 2 or 3"):
        FlowScheduler(FLOW.config(), solver_order=4)
