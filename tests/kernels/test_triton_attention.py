"""Tests of kernels/genkit_kernels/triton_*.py: interpreted, or on a GPU with TRITON_INTERPRET=0.

What holds for every implementation is tested in test_ops.py, there through the interpreter only.
"""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_toys import REGIONS, error, randoms
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import genkit_kernels as kernels
from genkit_kernels import (
    GroupLayout,
    criss_cross,
    full,
    reference,
    resolve,
    surround,
    triton_attention,
    triton_lists,
    use,
)
from genkit_kernels.region import compile_region
from genkit_kernels.registered import attend, attend_backward

INTERPRETED = os.environ["TRITON_INTERPRET"] not in ("", "0")
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
SEVERAL = GroupLayout((8, 9), (7, 5), 20)  # tiles of 32 queries and 16 keys, the last ones ragged


def runs(dtype=torch.float32, head_dim=16):
    """Skip the test where the kernels cannot run."""
    why = triton_attention.refusal(DEVICE, dtype, head_dim)
    if why:
        pytest.skip(why)


def everything(attend, jvp, layout, region, tensors, key_lens=None):
    """o, its tangents (fused, and by torch.func where ours), and the three gradients."""
    q, k, v, weight, *t = tensors
    inputs = [x.detach().clone().requires_grad_() for x in (q, k, v)]

    def run(*x):
        return attend(*x, layout, region, key_lens)

    o = run(*inputs)
    gradients = torch.autograd.grad((o * weight).sum(), inputs)
    fused = jvp(q, k, v, *t, layout, region, key_lens)
    through = torch.func.jvp(run, (q, k, v), tuple(t))[1]
    return [o.detach(), fused[0], *gradients, fused[1], through]


def both(layout, region, tensors, key_lens=None):
    """The same by Triton, and by the reference in float64 on the CPU."""
    exact = [x.double() for x in tensors]
    there = [x.to(DEVICE) for x in tensors]
    truth = everything(
        reference.grouped_attention, reference.attention_jvp, layout, region, exact, key_lens
    )
    with use("triton"):
        mine = everything(
            kernels.grouped_attention, kernels.attention_jvp, layout, region, there, key_lens
        )
    return zip((x.cpu() for x in mine), truth, strict=True)


@st.composite
def small_layouts(draw):
    """Layouts of at most six groups of at most twelve tokens, ragged or not, and some text."""
    axes = draw(st.integers(2, 3))
    group = [draw(st.integers(1, 3 if axes == 2 else 2)) for _ in range(axes)]
    grid = [draw(st.integers(g, n * g)) for g, n in zip(group, (3, 2, 1), strict=False)]
    side = draw(st.sampled_from(["first", "last"]))
    return GroupLayout(tuple(grid), tuple(group), draw(st.integers(0, 4)), side)


@settings(max_examples=5, deadline=None)
@given(small_layouts(), st.sampled_from(REGIONS), st.integers(1, 20), st.integers(0, 2**16))
def test_random_layouts_agree_with_the_reference(layout, region, head_dim, seed):
    runs(head_dim=head_dim)
    tensors = randoms(layout, 7, heads=1, head_dim=head_dim, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    key_lens = torch.randint(0, layout.text_len + 1, (2,), generator=rng)
    for mine, truth in both(layout, region, tensors, key_lens):
        assert error(mine, truth) < 2e-6 * max(1, truth.abs().max())


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)]
)
def test_blocks_of_several_tiles(dtype, bound):
    runs(dtype, 24)
    tensors = randoms(SEVERAL, 7, dtype, batch=1, heads=1, head_dim=24)
    for mine, truth in both(SEVERAL, surround(0), tensors):
        assert mine.dtype == dtype and error(mine, truth) < bound * max(1, truth.abs().max())


@pytest.mark.parametrize("head_dim", [1, 72, 200, 256])
def test_any_head_dim(head_dim):
    runs(head_dim=head_dim)
    layout = GroupLayout((3, 6), (3, 2), 5)
    tensors = randoms(layout, 7, batch=1, heads=1, head_dim=head_dim)
    for mine, truth in both(layout, surround(0), tensors):
        assert mine.shape == truth.shape
        assert error(mine, truth) < 2e-6 * max(1, truth.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_errors_are_at_most_twice_those_of_torch(dtype):
    """Of o, its gradients and its tangent, dense attention through the same code."""
    runs(dtype, 64)
    layout = GroupLayout((8, 20), (8, 8))
    tensors = randoms(layout, 7, dtype, 1, 1, 64)

    def sdpa(q, k, v, *_):
        given = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(*given).transpose(1, 2)

    def jvp(q, k, v, *t):
        with sdpa_kernel(SDPBackend.MATH):
            return torch.func.jvp(sdpa, (q, k, v), t[:3])

    q, k, v, weight, *t = (x.to(DEVICE) for x in tensors)
    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    o = sdpa(*inputs)
    d = torch.autograd.grad((o * weight).sum(), inputs)
    t_o = jvp(q, k, v, *t)[1]
    rough = [x.detach().cpu() for x in (o, o, *d, t_o, t_o)]
    for (mine, truth), theirs in zip(both(layout, full(), tensors), rough, strict=True):
        assert error(mine, truth) <= 2 * error(theirs, truth)


def test_large_logits_stay_exact():
    """Maxima that rise from block to block, and logits far below them."""
    runs()
    layout = GroupLayout((8, 8), (4, 4))
    q, k, v = randoms(layout, 3, batch=1)
    q, k = 3 * q, k * torch.linspace(0.1, 30, 64)[:, None, None]
    more = (layout, criss_cross(), None, None, True)
    with use("triton"):
        o, lse = kernels.grouped_attention(*(x.to(DEVICE) for x in (q, k, v)), *more)
    expected, expected_lse = reference.grouped_attention(*(x.double() for x in (q, k, v)), *more)
    assert error(o.cpu(), expected) < 1e-4 and expected_lse.max() > 100
    assert torch.allclose(lse.cpu().double(), expected_lse, rtol=1e-6)


def test_padding_stays_out_where_all_logits_are_far_below_zero():
    """exp(0 - lse) of a padded key would overflow."""
    runs()
    layout = GroupLayout((5, 5), (4, 4))
    q, k, *others = randoms(layout, 7, batch=1)
    tensors = (0.1 * q + 10, 0.1 * k - 10, *others)
    for mine, _ in both(layout, criss_cross(), tensors):
        assert mine.isfinite().all()
    more = (layout, criss_cross(), None, None, True)
    assert reference.grouped_attention(*tensors[:3], *more)[1].max() < -100


def test_operators_keep_their_contract():
    runs()
    layout = GroupLayout((3, 4), (2, 2), 3)
    lists = compile_region(criss_cross(), layout)
    parts = (layout.order(), layout.lens(None, 1), lists.offsets, lists.blocks, 0.25, "triton")
    tensors = randoms(layout, 4, batch=1, heads=1)
    q, k, v, do = (x.to(DEVICE).transpose(1, 2) for x in tensors)
    o, lse = attend(q, k, v, *parts)
    assert o.stride() == q.stride()
    assert lists.blocks in triton_lists._kept and layout.order() in triton_lists._kept
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(attend, (q, k, v, *parts), test_utils=checks)
    torch.library.opcheck(attend_backward, (do, q, k, v, o, lse, *parts), test_utils=checks)


def test_no_tokens_are_no_problem():
    runs()
    q = torch.zeros(0, 4, 2, 16, device=DEVICE)
    with use("triton"):
        o = kernels.grouped_attention(q, q, q, GroupLayout((2, 2), (1, 1)), criss_cross())
    assert o.shape == q.shape


# ---- Where it runs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (("cpu", torch.float64, 64), "not torch.float64"),
        (("cpu", torch.float32, 257), "head dims up to 256, not 257"),
        (("mps", torch.float32, 64), "for GPUs, not mps"),
        (("cpu", torch.bfloat16, 64), "interpreter computes bfloat16 wrongly"),
        (("cuda", torch.float32, 64), "TRITON_INTERPRET is set"),
    ],
)
def test_what_it_cannot_take_is_said(kind, why, monkeypatch):
    monkeypatch.setattr(triton_attention, "installed", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton_attention.refusal("cpu", torch.float32, 256) == ""
    assert why in triton_attention.refusal(*kind)


def test_the_cpu_has_only_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    assert "interpreter" in triton_attention.refusal("cpu", torch.float32, 64)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(triton_attention, "installed", lambda: True)
    assert "this GPU has (7, 5)" in triton_attention.refusal("cuda", torch.float16, 64)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert triton_attention.refusal("cuda", torch.bfloat16, 64) == ""


def test_without_triton_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(triton_attention, "installed", lambda: False)
    why = triton_attention.refusal(DEVICE, torch.float32, 64)
    assert why == "Triton is not installed: pip install triton"
    with use("triton"), pytest.raises(ValueError, match="pip install triton"):
        resolve.resolve(torch.zeros(1, 64, device=DEVICE))
