"""Attention of some queries to one set of keys, by PyTorch alone: the inner step of `gathered`.

On a CPU torch's flash kernel and its backward, which take and give the log-sum-exp; elsewhere, and
for the tangent, matrix products over as many query rows at a time as `ELEMENTS` logits allow.
All tensors (m, n, rows, head dim), log-sum-exp (m, n, rows) in at least float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from genkit_kernels.problem import wide

ELEMENTS = 1 << 20
aten = torch.ops.aten


def forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(o, lse)."""
    if fused(q, k):
        return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale)
    o, lse = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=wide(q))
    for rows in row_chunks(q, k):
        s = logits(q[:, :, rows], k, scale)
        lse[:, :, rows] = s.logsumexp(-1)
        p = (s - lse[:, :, rows, None]).exp()
        o[:, :, rows] = p.to(v.dtype) @ v
    return o, lse


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv), where o and lse may be those of a larger set of keys than k and v."""
    if fused(q, k):
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            do, q, k, v, o, lse, 0.0, False, scale=scale
        )
    dq = torch.empty_like(q)
    dk, dv = (torch.zeros_like(x, dtype=wide(x)) for x in (k, v))
    delta = (do.to(wide(q)) * o).sum(-1, keepdim=True)
    for rows in row_chunks(q, k):
        p = (logits(q[:, :, rows], k, scale) - lse[:, :, rows, None]).exp()
        dp = (do[:, :, rows] @ v.mT).to(p.dtype)
        ds = (p * (dp - delta[:, :, rows]) * scale).to(q.dtype)
        dq[:, :, rows] = ds @ k
        dk += ds.mT @ q[:, :, rows]
        dv += p.to(q.dtype).mT @ do[:, :, rows]
    return dq, dk.to(k.dtype), dv.to(v.dtype)


def tangent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    tangents: tuple[Tensor, Tensor, Tensor],
    scale: float,
) -> Tensor:
    """The tangent of o: P tv + (P * ts) v - rowsum(P * ts) o, with ts that of the logits."""
    tq, tk, tv = (t.to(wide(q)) for t in tangents)
    k, v = k.to(wide(q)), v.to(wide(q))
    t_o = torch.empty_like(q)
    for rows in row_chunks(q, k):
        here = q[:, :, rows].to(k.dtype)
        p = (logits(here, k, scale) - lse[:, :, rows, None]).exp()
        pts = p * (tq[:, :, rows] @ k.mT + here @ tk.mT) * scale
        t_o[:, :, rows] = p @ tv + pts @ v - pts.sum(-1, keepdim=True) * o[:, :, rows]
    return t_o


def fused(q: Tensor, k: Tensor) -> bool:
    """Whether torch's flash kernel is taken. With fewer than 16 keys it gives 0 for rows of NaN."""
    return q.device.type == "cpu" and k.shape[2] >= 32


def logits(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """scale q k^T, in at least float32."""
    return (q @ k.mT).to(wide(q)) * scale


def row_chunks(q: Tensor, k: Tensor) -> Iterator[slice]:
    """Slices of q's rows whose logits against k stay within ELEMENTS."""
    step = max(1, ELEMENTS // (q.shape[0] * q.shape[1] * k.shape[2]))
    yield from (slice(i, min(i + step, q.shape[2])) for i in range(0, q.shape[2], step))
