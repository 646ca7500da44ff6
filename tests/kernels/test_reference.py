"""Tests of kernels/genkit_kernels/reference.py: against PyTorch and a loop."""

import torch
from kernel_toys import error, randoms
from torch.nn import functional as F

from genkit_kernels import GroupLayout, criss_cross, full, reference, surround

LAYOUT = GroupLayout((5, 4), (2, 2), 3, "first")


def test_a_mask_of_ours_in_torch_gives_the_same():
    q, k, v = randoms(LAYOUT, 3, torch.float64)
    key_lens = torch.tensor([3, 1])
    mask = reference.token_mask(LAYOUT, criss_cross(), LAYOUT.lens(key_lens, 2))
    o, lse = reference.grouped_attention(
        q, k, v, LAYOUT, criss_cross(), key_lens, scale=0.3, return_lse=True
    )
    theirs = F.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask, scale=0.3
    ).transpose(1, 2)
    assert error(o[0], theirs[0]) < 1e-14 and error(o[1, 3:], theirs[1, 3:]) < 1e-14
    assert not o[1, 1:3].any() and lse[1, :, 1:3].eq(-torch.inf).all()
    s = 0.3 * torch.einsum("bqhd,bkhd->bhqk", q, k).masked_fill(~mask, -torch.inf)
    assert error(lse[0], s.logsumexp(-1)[0]) < 1e-14


def test_padding_is_invisible_and_zero():
    q, k, v = randoms(LAYOUT, 3, torch.float64)
    key_lens = torch.tensor([2, 0])
    o = reference.grouped_attention(q, k, v, LAYOUT, full(), key_lens)
    for x in (q, k, v):
        x[0, 2], x[1, :3] = torch.nan, torch.nan
    assert torch.equal(reference.grouped_attention(q, k, v, LAYOUT, full(), key_lens), o)
    assert not o[0, 2].any() and not o[1, :3].any()


def test_gradients_and_tangent_exist_in_float64():
    layout = GroupLayout((3, 3), (2, 2), 2)
    inputs = [x.requires_grad_() for x in randoms(layout, 3, torch.float64, 1, 1, 2)]
    key_lens = torch.tensor([1])

    def attend(q, k, v):
        return reference.grouped_attention(q, k, v, layout, surround(0), key_lens)

    assert torch.autograd.gradcheck(attend, inputs, check_forward_ad=True, fast_mode=True)


def test_tangent_is_the_central_difference():
    q, k, v, *t = randoms(LAYOUT, 6, torch.float64)
    o, t_o = reference.attention_jvp(q, k, v, *t)
    moved = [
        reference.attention_jvp(*(x + h * dx for x, dx in zip((q, k, v), t, strict=True)), *t)[0]
        for h in (1e-5, -1e-5)
    ]
    assert error(t_o, (moved[0] - moved[1]) / 2e-5) < 1e-8
    dense = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
    assert error(o, dense.transpose(1, 2)) < 1e-14
