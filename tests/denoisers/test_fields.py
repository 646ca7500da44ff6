"""Analytic fields, and one density for each class: closed forms that agree with each other."""

import math

import pytest
import torch

from genkit.denoisers.analytic import ByClass, Field, Mixture, fourier_basis
from genkit.paths import PATHS, RectifiedFlow

every_path = pytest.mark.parametrize("path", [p() for p in PATHS.values()], ids=list(PATHS))


def close(a, b, atol=1e-12, rtol=1e-10):
    torch.testing.assert_close(a, b, atol=atol, rtol=rtol)


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def times(path, n: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return path.time(torch.linspace(low, high, n, dtype=torch.float64))


def mixture(path, shape=(2,)) -> Mixture:
    """Six components of unequal width and weight in three classes."""
    std = torch.tensor([0.2, 0.3, 0.4, 0.5, 0.3, 0.2])
    weights = torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 1.0])
    return Mixture(path, 1.5 * doubles(6, *shape), std, weights, torch.tensor([0, 0, 1, 1, 2, 2]))


def field(path) -> Field:
    basis, frequency = fourier_basis(4)
    radius = torch.sqrt(frequency[:, None] ** 2 + frequency**2)
    return Field(path, basis, 1 / radius.clamp(min=1)[None])


@pytest.mark.parametrize("size", [2, 4, 32])
def test_the_fourier_basis_is_orthonormal_and_in_order(size):
    basis, frequency = fourier_basis(size)
    close(basis @ basis.T, torch.eye(size).double())
    assert torch.equal(frequency, (torch.arange(size) + 1).div(2, rounding_mode="floor").double())
    wave = torch.cos(2 * math.pi * torch.arange(size).double() / size)
    close(basis[1], wave * math.sqrt((1 if size == 2 else 2) / size))
    with pytest.raises(ValueError, match="even"):
        fourier_basis(5)


def test_a_field_is_stationary():
    """The covariance of two pixels depends on how far they lie apart alone, around the edges."""
    exact = field(RectifiedFlow())
    columns = exact._pixels(torch.eye(16).double().view(16, 1, 4, 4) * exact.waves.std)
    covariance = columns.flatten(1).T @ columns.flatten(1)
    moved = torch.arange(16).view(4, 4).roll((1, 2), (0, 1)).flatten()
    close(covariance[moved][:, moved], covariance)


@every_path
def test_a_field_agrees_with_itself(path):
    exact, t = field(path), times(path, 3, 0.2, 0.9)
    x = doubles(3, 1, 4, 4).requires_grad_(True)
    (score,) = torch.autograd.grad(exact.log_density(x, t).sum(), x)
    x = x.detach()
    close(exact.score(x, t), score)
    s = times(path, 3, 0.1, 0.5)
    moved = exact.flow_map(x, t, s)
    ahead, behind = (exact.flow_map(x, t, t + h) for h in (1e-5, -1e-5))
    close((ahead - behind) / 2e-5, exact.velocity(x, t, {}), atol=1e-6, rtol=1e-6)
    close(exact.flow_map(moved, s, t), x)


def test_draws_of_a_field_have_its_variance():
    exact = field(RectifiedFlow())
    z = exact.coefficients(exact.draw(20_000, torch.Generator().manual_seed(0)).double())
    torch.testing.assert_close(z.std(0), exact.waves.std, rtol=0.03, atol=0.0)


def test_one_density_for_each_class():
    path = RectifiedFlow()
    first, second = field(path), mixture(path, (1, 4, 4))
    both = ByClass([first, second])
    x, t = doubles(4, 1, 4, 4), torch.tensor([0.3, 0.5, 0.7, 0.9]).double()
    label = torch.tensor([0, 1, 2, 2])
    v = both.velocity(x, t, {"label": label})
    close(v[:1], first.velocity(x[:1], t[:1], {}))
    close(v[1:2], second.velocity(x[1:2], t[1:2], {}))
    # Without a class, each weighs by its density; a mixture of components says the same.
    halves = Mixture(path, doubles(2, 1, 4, 4), torch.tensor([0.3, 0.6]))
    parts = [Mixture(path, halves.means[k : k + 1], halves.std[k : k + 1]) for k in range(2)]
    close(ByClass(parts).velocity(x, t, {"label": torch.full((4,), 2)}), halves.velocity(x, t, {}))


def test_draws_of_a_class_are_of_it():
    exact = mixture(RectifiedFlow())
    label = torch.tensor([0, 1, 2]).repeat(2000)
    x, component = exact.draw(6000, torch.Generator().manual_seed(0), label)
    assert torch.equal(component // 2, label)
    share = (component[label == 0] == 1).double().mean()
    assert abs(share - 2 / 3) < 0.03
    mean = (exact.means * exact.log_weights[:3].exp()[..., None]).sum((0, 1)) / 3
    close(x.double().mean(0), mean, atol=0.1, rtol=0.1)
