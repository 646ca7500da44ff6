"""Tests of kernels/genkit_kernels/native.py: threads, tiles, and what an operator must keep."""

import pytest
import torch
from kernel_toys import error, implementation, randoms

import genkit_kernels as kernels
from genkit_kernels import GroupLayout, criss_cross, reference, use
from genkit_kernels.region import compile_region
from genkit_kernels.registered import attend, attend_backward


@pytest.fixture
def threads():
    """Sets torch's threads; puts them back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def run(layout, tensors):
    """o, t_o and the three gradients."""
    q, k, v, weight, *t = tensors
    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    with use("cpp"):
        o = kernels.grouped_attention(*inputs, layout, criss_cross())
        _, t_o = kernels.attention_jvp(q, k, v, *t, layout, criss_cross())
        return [o.detach(), t_o, *torch.autograd.grad((o * weight).sum(), inputs)]


@pytest.mark.parametrize("heads", [1, 3])  # one split by keys, or two whole and one split
def test_threads_change_little_and_not_from_run_to_run(heads, threads):
    implementation("cpp")
    layout = GroupLayout((6, 8), (3, 2), 5)
    tensors = randoms(layout, 7, batch=1, heads=heads)
    threads(1)
    one = run(layout, tensors)
    threads(2)
    two, again = run(layout, tensors), run(layout, tensors)
    assert all(torch.equal(a, b) for a, b in zip(two, again, strict=True))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert all(error(a, b) < 1e-5 for a, b in zip(one[2:], two[2:], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_of_several_tiles(dtype):
    """Groups of 300 tokens: three tiles of queries, two of keys, both with a ragged end."""
    implementation("cpp", dtype)
    layout = GroupLayout((30, 31), (15, 20), 310)
    q, k, v, weight, *t = randoms(layout, 7, dtype, 1, 1, 32)
    mine = run(layout, (q, k, v, weight, *t))
    inputs = [x.double().requires_grad_() for x in (q, k, v)]
    o = reference.grouped_attention(*inputs, layout, criss_cross())
    _, t_o = reference.attention_jvp(
        *(x.detach() for x in inputs), *(x.double() for x in t), layout, criss_cross()
    )
    d = torch.autograd.grad((o * weight.double()).sum(), inputs)
    for a, b in zip(mine, (o, t_o, *d), strict=True):
        assert error(a, b) < (1e-6 if dtype == torch.float32 else 8e-3) * max(1, b.abs().max())


@pytest.mark.parametrize("head_dim", [4, 72])
def test_any_head_dim(head_dim):
    """PixArt's 72 and less than a vector, with the strides of diffusers' processors."""
    implementation("cpp")
    layout = GroupLayout((6, 8), (3, 2), 5)
    q, k, v, weight, *t = randoms(layout, 7, head_dim=head_dim)
    mine = run(layout, (q, k, v, weight, *t))
    inputs = [x.double().requires_grad_() for x in (q, k, v)]
    o = reference.grouped_attention(*inputs, layout, criss_cross())
    exact = [x.detach() for x in inputs], [x.double() for x in t]
    _, t_o = reference.attention_jvp(*exact[0], *exact[1], layout, criss_cross())
    d = torch.autograd.grad((o * weight.double()).sum(), inputs)
    assert mine[0].stride() == q.stride()
    for a, b in zip(mine, (o, t_o, *d), strict=True):
        assert a.shape == b.shape and error(a, b) < 2e-6 * max(1, b.abs().max())


def test_large_logits_stay_exact():
    """Maxima that rise from block to block, and logits far below them."""
    implementation("cpp")
    layout = GroupLayout((8, 8), (2, 2))
    q, k, v = randoms(layout, 3)
    q, k = 3 * q, k * torch.linspace(0.1, 30, 64)[:, None, None]
    with use("cpp"):
        o, lse = kernels.grouped_attention(q, k, v, layout, criss_cross(), return_lse=True)
    exact = [x.double() for x in (q, k, v)]
    expected, expected_lse = reference.grouped_attention(
        *exact, layout, criss_cross(), return_lse=True
    )
    assert error(o, expected) < 1e-4 and expected_lse.max() > 100
    assert torch.allclose(lse.double(), expected_lse, rtol=1e-6)


def test_padding_stays_out_where_all_logits_are_far_below_zero():
    """exp(0 - lse) of a padded key would overflow."""
    implementation("cpp")
    layout = GroupLayout((5, 5), (4, 4))
    q, k, v, weight, *t = randoms(layout, 7)
    q, k = 0.1 * q + 10, 0.1 * k - 10
    for a in run(layout, (q, k, v, weight, *t)):
        assert a.isfinite().all()
    assert (
        reference.grouped_attention(q, k, v, layout, criss_cross(), None, None, True)[1].max()
        < -100
    )


def test_operators_keep_their_contract():
    implementation("cpp")
    layout = GroupLayout((3, 4), (2, 2), 3)
    lists = compile_region(criss_cross(), layout)
    parts = (layout.order(), layout.lens(None, 2), lists.offsets, lists.blocks, 0.25, "cpp")
    q, k, v, do = (x.transpose(1, 2) for x in randoms(layout, 4))
    o, lse = attend(q, k, v, *parts)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(attend, (q, k, v, *parts), test_utils=checks)
    torch.library.opcheck(attend_backward, (do, q, k, v, o, lse, *parts), test_utils=checks)


def test_no_tokens_are_no_problem():
    implementation("cpp")
    layout = GroupLayout((2, 2), (1, 1))
    q = torch.zeros(0, 4, 2, 16)
    with use("cpp"):
        assert kernels.grouped_attention(q, q, q, layout, criss_cross()).shape == q.shape
