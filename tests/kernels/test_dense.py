"""Tests of kernels/genkit_kernels/dense.py: PyTorch's kernel and the plain products agree."""

import pytest
import torch
from kernel_toys import error

from genkit_kernels import dense


@pytest.fixture
def tensors():
    """q, do, tq of 9 rows and k, v, tk, tv of 40, float64 (2, 3, rows, 8)."""
    rng = torch.Generator().manual_seed(0)
    rows = (9, 9, 9, 40, 40, 40, 40)
    return [torch.randn(2, 3, n, 8, generator=rng, dtype=torch.float64) for n in rows]


def plainly(monkeypatch):
    """Never the fused kernel, and only a row or two at a time."""
    monkeypatch.setattr(dense, "fused", lambda q, k: False)
    monkeypatch.setattr(dense, "ELEMENTS", 2 * 6 * 40)


def test_plain_products_are_the_fused_kernel(tensors, monkeypatch):
    q, do, _, k, v, _, _ = tensors
    assert dense.fused(q, k) and not dense.fused(q, k[:, :, :16])
    o, lse = dense.forward(q, k, v, 0.4)
    d = dense.backward(do, q, k, v, o, lse, 0.4)
    plainly(monkeypatch)
    assert len(list(dense.row_chunks(q, k))) == 5
    o_2, lse_2 = dense.forward(q, k, v, 0.4)
    d_2 = dense.backward(do, q, k, v, o, lse, 0.4)
    assert error(o, o_2) < 1e-12 and error(lse, lse_2) < 1e-12
    assert all(error(a, b) < 1e-12 for a, b in zip(d, d_2, strict=True))


def test_the_tangent_is_that_of_the_plain_products(tensors, monkeypatch):
    q, _, tq, k, v, tk, tv = tensors
    monkeypatch.setattr(dense, "ELEMENTS", 1)

    def plain(q, k, v):
        return (0.4 * q @ k.mT).softmax(-1) @ v

    o, t_o = torch.func.jvp(plain, (q, k, v), (tq, tk, tv))
    _, lse = dense.forward(q, k, v, 0.4)
    assert error(dense.tangent(q, k, v, o, lse, (tq, tk, tv), 0.4), t_o) < 1e-12


@pytest.mark.parametrize("plain", [False, True])
def test_gradients_of_parts_add_up(tensors, monkeypatch, plain):
    """With the whole's o and log-sum-exp, each part of the keys gives its share exactly."""
    q, do, _, k, v, _, _ = tensors
    k, v = (torch.cat([x, -x], 2) for x in (k, v))
    o, lse = dense.forward(q, k, v, 0.4)
    dq, dk, dv = dense.backward(do, q, k, v, o, lse, 0.4)
    if plain:
        plainly(monkeypatch)
    halves = [
        dense.backward(do, q, k[:, :, part], v[:, :, part], o, lse, 0.4)
        for part in (slice(0, 40), slice(40, 80))
    ]
    assert error(halves[0][0] + halves[1][0], dq) < 1e-12
    assert error(torch.cat([halves[0][1], halves[1][1]], 2), dk) < 1e-12
    assert error(torch.cat([halves[0][2], halves[1][2]], 2), dv) < 1e-12
