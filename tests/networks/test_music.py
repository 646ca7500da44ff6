"""The music transformer: its attention against the sum written out, any length, its neighbours."""

import pytest
import torch

from genkit.harmony import WIDTH
from genkit.networks.music import MusicTransformer, _rotated, linear_attention


def reference(q, k, v, window):
    """Every pair of frames whose windows are at most one apart, weighted and averaged."""
    frames = q.shape[-2]
    place = torch.arange(frames) // window
    near = ((place[:, None] - place[None]).abs() <= 1).to(q.dtype)
    q, k = q.relu(), k.relu()
    above = (_rotated(q) @ _rotated(k).transpose(-1, -2)) * near
    below = (q @ k.transpose(-1, -2)) * near
    return above @ v / (below.sum(-1, keepdim=True) + window * 1e-4)


@pytest.mark.parametrize("frames", [1, 7, 8, 24, 45])
def test_attention_is_the_sum_written_out(frames):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, frames, 6, dtype=torch.float64)
    made, want = linear_attention(q, k, v, 8), reference(q, k, v, 8)
    assert torch.allclose(made, want, atol=1e-6)
    wrong = reference(q, k, v, 4)
    assert frames <= 8 or not torch.allclose(made, wrong, atol=1e-2)


def network(window: int = 8) -> MusicTransformer:
    torch.manual_seed(0)
    made = MusicTransformer(4, 24, ("a", "b"), 16, 2, 2, 32, window, 12).eval()
    for zero in (made.modulation, made.final, made.leave):
        torch.nn.init.normal_(zero.weight, std=0.2)
    return made


def told(n: int, frames: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "text": torch.randn(n, 3, 12, generator=generator),
        "bpm": torch.tensor([100.0, 0.0])[:n],
        "key": torch.tensor([3, 24])[:n],
        "instrument": torch.tensor([1, 2])[:n],
        "plan": torch.randn(n, frames, WIDTH, generator=generator),
    }


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 24, 50])
def test_any_length_and_a_batch_is_its_singles(frames):
    made, x, t = network(), torch.randn(2, frames, 4), torch.tensor([10.0, 700.0])
    cond = told(2, frames)
    both = made(x, t, **cond)
    assert both.shape == x.shape
    for i in range(2):
        rows = {name: value[i : i + 1] for name, value in cond.items()}
        assert torch.allclose(made(x[i : i + 1], t[i : i + 1], **rows)[0], both[i], atol=1e-5)


@torch.no_grad()
def test_a_window_far_from_the_ends_knows_no_place():
    """Of a long piece moved by a window, all that is far from the ends moves with it."""
    made, x, cond = network(), torch.randn(1, 96, 4), told(1, 96)
    t = torch.tensor([500.0])
    whole = made(x, t, **cond)
    moved = {**cond, "plan": cond["plan"][:, 8:]}
    part = made(x[:, 8:], t, **moved)
    # Two blocks see two windows and four frames to either side.
    assert torch.allclose(part[:, 32:-32], whole[:, 40:-32], atol=1e-4)
    assert not torch.allclose(part[:, :4], whole[:, 8:12], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", ["text", "bpm", "key", "instrument", "plan"])
def test_every_condition_matters(name):
    made, x, t = network(), torch.randn(1, 24, 4), torch.tensor([500.0])
    plain = told(1, 24)
    other = {"bpm": torch.tensor([101.0]), "key": torch.tensor([15])}
    other |= {"instrument": torch.tensor([0])}
    changed = plain | {name: other.get(name, plain[name] + 1.0)}
    assert not torch.allclose(made(x, t, **plain), made(x, t, **changed), atol=1e-5)


def test_a_jvp_is_its_difference():
    made, x, cond = network().double(), torch.randn(1, 24, 4).double(), told(1, 24)
    cond = {k: v.double() if v.is_floating_point() else v for k, v in cond.items()}
    t, dx = torch.tensor([500.0]).double(), torch.randn(1, 24, 4).double()
    f = lambda each: made(each, t, **cond)  # noqa: E731
    value, tangent = torch.func.jvp(f, (x,), (dx,))
    near = (f(x + 1e-5 * dx) - f(x - 1e-5 * dx)) / 2e-5
    assert torch.allclose(value, f(x)) and torch.allclose(tangent, near, atol=1e-4)
