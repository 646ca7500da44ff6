"""Tests of kernels/genkit_kernels/ops.py: every implementation against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_toys import REGIONS, error, implementation, layouts, randoms
from torch.nn import functional as F

import genkit_kernels as kernels
from genkit_kernels import GroupLayout, criss_cross, full, reference, resolve, surround, use

COMPILED = pytest.mark.parametrize("name", list(resolve.MODULES))
# Of what takes long, Triton's interpreter runs a smaller part in test_triton_attention.py.
LONG = pytest.mark.parametrize("name", [name for name in resolve.MODULES if name != "triton"])
TEXTED = GroupLayout((5, 7), (2, 3), 9, "first")


def texted(name):
    """TEXTED, or something smaller for Triton's interpreter, which is slow."""
    return GroupLayout((2, 6), (2, 2), 3, "first") if name == "triton" else TEXTED


def gradients(attend, q, k, v, weight):
    inputs = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    return torch.autograd.grad((attend(*inputs) * weight).sum(), inputs)


@LONG
@settings(max_examples=25, deadline=None)
@given(layouts(), st.sampled_from(REGIONS), st.integers(0, 2**16))
def test_random_layouts_agree_with_the_reference(name, layout, region, seed):
    implementation(name)
    q, k, v, *t, weight = randoms(layout, 7, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    key_lens = torch.randint(0, layout.text_len + 1, (2,), generator=rng)
    more = (layout, region, key_lens)
    exact = [x.double() for x in (q, k, v, *t, weight)]
    with use("reference"):
        o, lse = kernels.grouped_attention(*exact[:3], *more, return_lse=True)
        _, t_o = kernels.attention_jvp(*exact[:6], *more)
        d = gradients(lambda *x: kernels.grouped_attention(*x, *more), *exact[:3], exact[6])
    with use(name):
        mine, my_lse = kernels.grouped_attention(q, k, v, *more, return_lse=True)
        mine_too, my_t_o = kernels.attention_jvp(q, k, v, *t, *more)
        my_d = gradients(lambda *x: kernels.grouped_attention(*x, *more), q, k, v, weight)
    bound = 2e-6 if name == "cpp" else 4e-6  # torch's own exponential is less exact
    assert error(mine, o) < bound and error(mine_too, o) < bound
    assert torch.equal(lse.isfinite(), my_lse.isfinite())
    assert error(lse.nan_to_num(0, 0, 0), my_lse.nan_to_num(0, 0, 0)) < 2e-6
    assert error(my_t_o, t_o) < 1e-5
    assert all(error(a, b) < 1e-5 for a, b in zip(my_d, d, strict=True))


@LONG
@pytest.mark.parametrize("head_dim", [48, 64, 72, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_errors_are_at_most_twice_those_of_torch(name, dtype, head_dim):
    implementation(name, dtype, head_dim)
    layout = GroupLayout((16, 24), (16, 16))
    q, k, v, weight = randoms(layout, 4, dtype, 1, 1, head_dim)
    exact = [x.double() for x in (q, k, v)]

    def sdpa(*x):
        return F.scaled_dot_product_attention(*(y.transpose(1, 2) for y in x)).transpose(1, 2)

    def ours(*x):
        return kernels.grouped_attention(*x, layout, full())

    def truth(*x):
        return reference.grouped_attention(*x, layout, full())

    with use(name):
        o, d = ours(q, k, v), gradients(ours, q, k, v, weight)
    o_64, d_64 = truth(*exact), gradients(truth, *exact, weight.double())
    o_sdpa, d_sdpa = sdpa(q, k, v), gradients(sdpa, q, k, v, weight)
    assert error(o, o_64) <= 2 * error(o_sdpa, o_64)
    assert dtype != torch.float32 or error(o, o_64) < 2e-6
    for mine, theirs, right in zip(d, d_sdpa, d_64, strict=True):
        assert error(mine, right) <= 2 * error(theirs, right)


def test_gradients_in_float64():
    layout, key_lens = GroupLayout((3, 2), (2, 2), 2), torch.tensor([1, 2])
    inputs = [x.requires_grad_() for x in randoms(layout, 3, torch.float64, 2, 1, 2)]
    with use("torch"):
        assert torch.autograd.gradcheck(
            lambda *x: kernels.grouped_attention(*x, layout, surround(0), key_lens),
            inputs,
            check_forward_ad=True,
            fast_mode=True,
        )


@COMPILED
@pytest.mark.parametrize("region", [None, criss_cross()])
def test_the_tangent_is_the_central_difference(name, region):
    implementation(name)
    layout = texted(name)
    q, k, v, *t = randoms(layout, 6)
    asked = layout if region else None
    exact = [x.double() for x in (q, k, v)]
    moved = [
        reference.grouped_attention(
            *(x + h * dx for x, dx in zip(exact, t, strict=True)), layout, region or full()
        )
        for h in (1e-5, -1e-5)
    ]
    expected = (moved[0] - moved[1]) / 2e-5
    with use(name):
        assert error(kernels.attention_jvp(q, k, v, *t, asked, region)[1], expected) < 1e-5


@COMPILED
def test_functorch_takes_the_same_derivative(name):
    implementation(name)
    layout = texted(name)
    q, k, v, *t = randoms(layout, 6)

    def attend(*x):
        return kernels.grouped_attention(*x, layout, surround(1))

    with use(name):
        o, t_o = kernels.attention_jvp(q, k, v, *t, layout, surround(1))
        o_2, t_o_2 = torch.func.jvp(attend, (q, k, v), tuple(t))
        only_k = torch.func.jvp(lambda k: attend(q, k, v), (k,), (t[1],))[1]
        zero = torch.zeros_like(q)
        expected = kernels.attention_jvp(q, k, v, zero, t[1], zero, layout, surround(1))[1]
        grad = torch.func.grad(lambda q: attend(q, k, v).square().sum())(q)
        with torch.autograd.forward_ad.dual_level():
            duals = [
                torch.autograd.forward_ad.make_dual(*x) for x in zip((q, k, v), t, strict=True)
            ]
            t_o_3 = torch.autograd.forward_ad.unpack_dual(attend(*duals)).tangent
    assert error(o, o_2) < 1e-6 and error(t_o, t_o_2) < 1e-5 and error(t_o, t_o_3) < 1e-5
    assert error(only_k, expected) < 1e-5
    assert grad.shape == q.shape and grad.any()


@COMPILED
def test_gradients_flow_through_a_function_and_its_tangent(name):
    """Reverse mode through the primal of a jvp, as continuous-time consistency asks."""
    implementation(name)
    layout = texted(name)
    q, k, v, *t = randoms(layout, 6)

    def loss(q, attend):
        more = [x.to(q.dtype) for x in (k, v, *t)]
        o, t_o = torch.func.jvp(attend, (q, *more[:2]), tuple(more[2:]))
        return (o * t_o.detach()).sum()

    with use(name):
        q.requires_grad_()
        loss(q, lambda *x: kernels.grouped_attention(*x, layout, full())).backward()
        mine = q.grad
        q.grad = None
        o, t_o = kernels.attention_jvp(q, k, v, *t, layout, full())
        assert not t_o.requires_grad
        (o * t_o).sum().backward()
    expected = torch.func.grad(loss)(
        q.detach().double(), lambda *x: reference.grouped_attention(*x, layout, full())
    )
    assert error(mine, expected) < 1e-4 and error(q.grad, expected) < 1e-4


@COMPILED
def test_what_has_no_derivative_says_so(name):
    implementation(name)
    layout = texted(name)
    q, k, v, *t = randoms(layout, 6)
    q.requires_grad_()

    def attend(*x):
        return kernels.grouped_attention(*x, layout, full())

    with use(name):
        (d,) = torch.autograd.grad(attend(q, k, v).square().sum(), q, create_graph=True)
        with pytest.raises(RuntimeError, match="no second derivatives"):
            d.sum().backward()
        with pytest.raises(RuntimeError, match="tangent .* has no gradient; detach"):
            torch.func.jvp(attend, (q, k, v), tuple(t))[1].sum().backward()


@pytest.mark.parametrize("name", resolve.NAMES)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_nan_comes_out_where_it_is_seen_and_nowhere_else(name, which):
    implementation(name)
    layout = GroupLayout((6, 6), (2, 2), 3)
    inputs = randoms(layout, 3)
    inputs[which][0, 0, 0] = torch.nan  # one token of the first group, first head
    sees = reference.token_mask(layout, surround(0), layout.lens(None, 1))[0, 0, :, 0]
    if which == 0:
        sees = torch.arange(layout.tokens) == 0
    with use(name):
        o = kernels.grouped_attention(*inputs, layout, surround(0))
    assert o[0, sees, 0].isnan().all() and not o[0, ~sees, 0].isnan().any()
    assert not o[0, :, 1].isnan().any() and not o[1].isnan().any()


@pytest.mark.parametrize("name", resolve.NAMES)
def test_padded_text_is_invisible_even_where_it_is_nan(name):
    implementation(name)
    layout, key_lens = GroupLayout((3, 5), (2, 3), 7, "first"), torch.tensor([7, 2])
    *inputs, weight = randoms(layout, 4)
    with use(name):
        o = kernels.grouped_attention(*inputs, layout, criss_cross(), key_lens)
        for x in inputs:
            x[1, 2:7] = torch.nan
        assert torch.equal(kernels.grouped_attention(*inputs, layout, criss_cross(), key_lens), o)
        assert not o[1, 2:7].any()
        if name == "reference":  # P @ V of a dense mask has no such gradients
            return
        for d in gradients(
            lambda *x: kernels.grouped_attention(*x, layout, criss_cross(), key_lens),
            *inputs,
            weight,
        ):
            assert d.isfinite().all() and not d[1, 2:7].any()


@COMPILED
def test_lists_of_blocks(name):
    implementation(name)
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 24, 16, generator=rng) for _ in range(3))
    offsets, blocks = torch.tensor([0, 2, 3, 6, 7]), torch.tensor([0, 3, 2, 0, 1, 3, 3])
    for lens in (None, torch.tensor([6, 1, 3, 6]), torch.tensor([[6, 1, 3, 6], [2, 0, 6, 5]])):
        given = (q, k, v, offsets, blocks, 6, lens, 0.5, True)
        with use(name):
            o, lse = kernels.block_sparse_attention(*given)
        expected, expected_lse = reference.block_sparse_attention(*given)
        assert error(o, expected) < 2e-6
        assert torch.allclose(lse, expected_lse, atol=2e-6)


@COMPILED
def test_strides_do_not_matter(name):
    implementation(name)
    layout = texted(name)
    q, k, v = randoms(layout, 3)
    odd = [x.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0) for x in (q, k, v)]
    assert odd[0].stride(-1) != 1
    with use(name):
        a, b = (kernels.grouped_attention(*x, layout, full()) for x in ((q, k, v), odd))
        assert error(a, b) == 0
        q.requires_grad_()
        kernels.grouped_attention(q, k, v, layout, full()).sum().backward()  # an expanded gradient
    assert q.grad is not None and q.grad.isfinite().all()


@pytest.mark.parametrize("which", ["k", "v"])
def test_mismatched_tensors_are_named(which):
    good = dict(zip("qkv", randoms(TEXTED, 3), strict=True))
    bad = [good[which][:, :, :1], good[which].double(), good[which].to("meta"), good[which][0]]
    for x in bad:
        with pytest.raises(ValueError, match=rf"^{which} is .*\({', '.join(map(str, x.shape))}"):
            kernels.grouped_attention(**(good | {which: x}), layout=TEXTED, region=full())


def test_other_bad_arguments_are_named():
    q, k, v = randoms(TEXTED, 3)
    more = (TEXTED, full())
    with pytest.raises(ValueError, match=r"44 tokens, but the layout's grid \(5, 8\)"):
        short = [x[:, :44] for x in (q, k, v)]
        kernels.grouped_attention(*short, GroupLayout((5, 8), (2, 3), 9), full())
    with pytest.raises(ValueError, match="key_lens"):
        kernels.grouped_attention(q, k, v, *more, key_lens=torch.tensor([9, 10]))
    with pytest.raises(ValueError, match="scale is -1"):
        kernels.grouped_attention(q, k, v, *more, scale=-1.0)
    with pytest.raises(ValueError, match="tk is"):
        kernels.attention_jvp(q, k, v, q, k.double(), v)
    with pytest.raises(ValueError, match="layout is None"):
        kernels.attention_jvp(q, k, v, q, k, v, region=full())
    with pytest.raises(ValueError, match="key_lens"):
        kernels.attention_jvp(q, k, v, q, k, v, key_lens=torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="q is torch.int64"):
        kernels.grouped_attention(*(x.long() for x in (q, k, v)), *more)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"block_size": 5}, "block_size 5"),
        ({"offsets": [0, 1, 1, 3]}, "offsets leaves query block 1"),
        ({"offsets": [0, 1, 2]}, "offsets is"),
        ({"offsets": [0, 1, 2, 4]}, "offsets goes"),
        ({"blocks": [0, 1, 3]}, "blocks goes"),
        ({"offsets": [0, 2, 3, 4], "blocks": [0, 0, 1, 2]}, "blocks .* twice"),
        ({"lens": [4, 4, 5]}, "lens goes"),
        ({"lens": [4, 4]}, "lens is"),
        ({"lens": [[4, 4, 4], [4, 4, 4], [4, 4, 4]]}, "lens is"),
    ],
)
def test_bad_lists_are_named(change, names):
    q = torch.zeros(2, 1, 12, 16)
    given = {"offsets": [0, 1, 2, 3], "blocks": [0, 1, 2], "lens": [4, 4, 4]} | change
    lists = {key: torch.tensor(x) for key, x in given.items() if key != "block_size"}
    with pytest.raises(ValueError, match=names):
        kernels.block_sparse_attention(q, q, q, block_size=given.get("block_size", 4), **lists)


def test_lens_that_leave_a_query_without_keys_are_named():
    q = torch.zeros(2, 1, 8, 16)
    lists = (torch.tensor([0, 1, 2]), torch.tensor([1, 1]), 4)
    lens = torch.tensor([[4, 4], [4, 0]])
    with pytest.raises(ValueError, match="queries of block 0 in row 1 without keys"):
        kernels.block_sparse_attention(q, q, q, *lists, lens)
