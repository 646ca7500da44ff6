"""What tests of Denoisers share: paths, small numbers, a network simple enough to follow."""

import pytest
import torch
from torch import nn

from genkit.denoisers.base import Denoiser, NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import PATHS, RectifiedFlow, expand

ALL = [path() for path in PATHS.values()]
every_path = pytest.mark.parametrize("path", ALL, ids=list(PATHS))
M, C = 0.3, 0.7  # mean and spread of a Gaussian


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
