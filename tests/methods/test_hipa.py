"""HiPA's parts on pictures: projections onto high frequencies and edges, and what each is blind to
(card 13)."""

import pytest
import torch
from torch import nn

from genkit import terms
from genkit.denoisers.base import NetworkDenoiser
from genkit.methods.base import Roles
from genkit.methods.hipa import Method, edges, high_pass
from genkit.paths import RectifiedFlow
from genkit.rng import Rng

CUTOFF = 0.25


def pictures(seed=0, size=16):
    return Rng(seed).normal((4, 3, size, size), torch.float64)


def blurred(x):
    kernel = torch.ones(3, 1, 3, 3, dtype=x.dtype) / 9
    return nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1), "circular"), kernel, groups=3)


def radius(size):
    f = torch.fft.fftfreq(size, 0.5)
    return torch.sqrt(f[:, None] ** 2 + f**2)


def apart(part, a, b):
    return terms.squared(part(a), part(b)).mean().item()


def magnitude(x, cutoff):
    """The broken twin: high frequencies without their phase."""
    return torch.fft.fft2(high_pass(x, cutoff)).abs()


@pytest.mark.parametrize("size", [16, 15])
def test_high_and_low_make_the_picture(size):
    x = pictures(size=size)
    spectrum = torch.fft.fft2(x) * (radius(size) < CUTOFF)
    low = torch.fft.ifft2(spectrum).real
    assert torch.allclose(high_pass(x, CUTOFF) + low, x, atol=1e-6)
    high = high_pass(x, CUTOFF)
    assert torch.allclose(high_pass(high, CUTOFF), high, atol=1e-12), "a projection"
    assert high_pass(torch.full((1, 1, size, size), 3.0), CUTOFF).abs().max() < 1e-5
    assert high_pass(x.bfloat16(), CUTOFF).dtype == torch.float32


def test_the_fourier_part_sees_blur_and_position_and_no_low_offset():
    x = pictures()
    wave = torch.cos(2 * torch.pi * torch.arange(16).double() / 16)  # 1/8 of Nyquist's
    offset = x + 0.7 + wave
    high = lambda x: high_pass(x, CUTOFF)  # noqa: E731
    assert apart(high, offset, x) < 1e-12 < 0.1 < apart(high, blurred(x), x)
    moved = x.roll(3, -1)
    assert apart(high, moved, x) > 0.1
    twin = lambda x: magnitude(x, CUTOFF)  # noqa: E731
    assert apart(twin, moved, x) < 1e-12, "twin: magnitudes alone do not see where things are"


def test_its_gradient_has_no_low_frequency():
    made, wanted = pictures().requires_grad_(True), pictures(1)
    loss = terms.squared(high_pass(made, CUTOFF), high_pass(wanted, CUTOFF)).mean()
    (slope,) = torch.autograd.grad(loss, made)
    spectrum = torch.fft.fft2(slope).abs().amax((0, 1))
    low = radius(16) < CUTOFF
    assert spectrum[low].max() < 1e-12 < 1e-3 < spectrum[~low].max()


def test_edges_are_the_steepness():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert torch.allclose(edges(0.5 * ramp)[..., 1:-1], torch.tensor(0.5), atol=1e-5)
    assert torch.allclose(edges(ramp.mT)[..., 1:-1, :], torch.tensor(1.0), atol=1e-5)
    assert edges(torch.full((1, 2, 8, 8), 4.0)).max() < 2e-3, "a flat picture has none"
    flat = torch.zeros(1, 1, 8, 8, requires_grad=True)
    edges(flat).sum().backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


class Blurry(nn.Module):
    """Makes x_0 = scale * noise, blurred as much as it is let."""

    def __init__(self):
        super().__init__()
        self.blur = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, x):
        return x + self.blur * (blurred(x) - x)


def losses_of(method, network, eps, x_0):
    path = method.path
    student = NetworkDenoiser(network, lambda net, x, *_: net(x), path, "x_0")
    pairs = {"eps": eps, "x_0": x_0, "cond": {}}
    return method.loss(Roles(student=student), {"pairs": pairs}, None, Rng(0))


def test_the_loss_is_its_three_parts_and_finds_the_pair():
    config = Method.Config(fourier=3.0, edges=0.5)
    method, eps, network = Method(config, RectifiedFlow(), (3, 16, 16)), pictures(), Blurry()
    parts = losses_of(method, network, eps, eps)
    total = parts["plain"] + 3 * parts["fourier"] + 0.5 * parts["edges"]
    assert torch.isclose(parts["total"], total)
    assert all(part.item() > 1e-4 for part in parts.values())
    adam = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(100):
        adam.zero_grad()
        losses_of(method, network, eps, eps)["total"].backward()
        adam.step()
    assert abs(network.blur.item()) < 0.01
    assert losses_of(method, network, eps, eps.roll(1, 0))["total"] > 0.5, "twin: untied pairs"


def test_latents_are_decoded_with_gradient():
    seen = []

    def decode(latents):
        seen.append(latents.requires_grad)
        return nn.functional.interpolate(latents, scale_factor=2)

    method = Method(Method.Config(), RectifiedFlow(), (3, 16, 16), decode=decode)
    network = Blurry()
    losses_of(method, network, pictures(), pictures())["total"].backward()
    assert seen == [True, False] and network.blur.grad is not None


def test_adapters_are_trained_unless_said_otherwise():
    from genkit.settings import Settings

    for data in ("digits", "a folder"):
        assert Settings.of(Method, {}, data).run.lora == 8
    assert Settings.of(Method, {"lora": 2}, "digits").run.lora == 2


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="cutoff is 0"):
        Method(Method.Config(cutoff=0.0), RectifiedFlow(), (3, 8, 8))
    method = Method(Method.Config(), RectifiedFlow(), (5,))
    with pytest.raises(ValueError, match="pictures"):
        losses_of(method, nn.Identity(), torch.zeros(2, 5), torch.zeros(2, 5))
