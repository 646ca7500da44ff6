"""The implementation for GPUs: the Triton kernels of triton_forward, triton_backward, triton_jvp.

Tokens are read and written where they stand, through the order of the slots. float16, bfloat16 and
float32, head dims up to 256 (padded to a power of two inside the kernels); products accumulate in
float32, and those of float32 are exact (IEEE, no TF32), so it does not use the tensor cores.
Checked through Triton's interpreter (TRITON_INTERPRET=1, on the CPU, float16 and float32), and
compiled for GPUs; never run or timed on one. Triton is imported at the first launch.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from genkit_kernels.problem import Problem, blank, empty_lse
from genkit_kernels.triton_lists import Lists, lists, turned

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
HEAD_DIMS = range(1, 257)
INTERPRETED = ("1", "true", "on", "yes", "y")  # what Triton takes for yes


def refusal(device: str, dtype: torch.dtype, head_dim: int) -> str:
    """Why such tensors cannot be taken here, or nothing."""
    interpreted = os.environ.get("TRITON_INTERPRET", "0").lower() in INTERPRETED
    if device not in ("cuda", "cpu"):
        return f"the Triton kernels are for GPUs, not {device}"
    if device == "cpu" and not interpreted:
        return (
            "the Triton kernels are for GPUs; with TRITON_INTERPRET=1 in the environment before "
            "Triton is imported, its interpreter runs them on a CPU, slowly"
        )
    if dtype not in DTYPES:
        return f"the Triton kernels take float16, bfloat16 and float32, not {dtype}"
    if head_dim not in HEAD_DIMS:
        return f"the Triton kernels take head dims up to 256, not {head_dim}"
    if not installed():
        return "Triton is not installed: pip install triton"
    if device == "cuda":
        return _refusal_of_gpu(interpreted)
    return "Triton's interpreter computes bfloat16 wrongly" if dtype == torch.bfloat16 else ""


@cache
def installed() -> bool:
    """Whether there is a Triton to import."""
    return find_spec("triton") is not None


def _refusal_of_gpu(interpreted: bool) -> str:
    if interpreted:
        return "TRITON_INTERPRET is set, and Triton's interpreter is for tensors on the CPU"
    capability = torch.cuda.get_device_capability()
    if capability < (8, 0):
        return f"the Triton kernels need compute capability 8.0, and this GPU has {capability}"
    return ""


def forward(problem: Problem, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(o, lse), both in token order; padding gives 0 and -inf."""
    from genkit_kernels.triton_forward import forward_kernel

    o, lse = blank(problem, q), empty_lse(q).fill_(-torch.inf)
    launch(forward_kernel, "BLOCK_M", problem, lists(problem, q.device), (q, k, v, o), (lse,))
    return o, lse


def backward(
    problem: Problem, do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) in token order."""
    from genkit_kernels.triton_backward import keys_kernel, queries_kernel

    dq, dk, dv = (blank(problem, x) for x in (q, k, v))
    numbers = (lse.contiguous(), empty_lse(q))  # the second is filled for all queries, then read
    here, given = q.device, (do, q, k, v)
    launch(queries_kernel, "BLOCK_M", problem, lists(problem, here), (*given, o, dq), numbers)
    launch(keys_kernel, "BLOCK_N", problem, turned(problem, here), (*given, dk, dv), numbers)
    return dq, dk, dv


def tangent(
    problem: Problem,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    tq: Tensor,
    tk: Tensor,
    tv: Tensor,
) -> Tensor:
    """The tangent of o in token order, from `forward`'s results: five products."""
    t_o = blank(problem, q)
    _tangent(problem, (q, k, v, o, tq, tk, tv, t_o), lse.contiguous(), False)
    return t_o


def forward_tangent(
    problem: Problem, q: Tensor, k: Tensor, v: Tensor, tq: Tensor, tk: Tensor, tv: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(o, its tangent, lse) in one pass: six products."""
    o, t_o, lse = blank(problem, q), blank(problem, q), empty_lse(q).fill_(-torch.inf)
    _tangent(problem, (q, k, v, o, tq, tk, tv, t_o), lse, True)
    return o, t_o, lse


def _tangent(problem: Problem, rows: tuple[Tensor, ...], lse: Tensor, fused: bool) -> None:
    from genkit_kernels.triton_jvp import tangent_kernel

    who = lists(problem, lse.device)
    launch(tangent_kernel, "BLOCK_M", problem, who, rows, (lse,), FUSED=fused)


def launch(
    kernel: Any,
    tile: str,
    problem: Problem,
    who: Lists,
    rows: tuple[Tensor, ...],
    numbers: tuple[Tensor, ...],
    **flags: bool,
) -> None:
    """Run a kernel with one program for each tile of each block, `tile` the name of its size.

    rows: (batch, heads, tokens, head dim), of which what is written has a dense last dimension.
    numbers: (batch, heads, tokens).
    """
    batch, heads, tokens, dim = rows[0].shape
    if not rows[0].numel():
        return
    dense = (x if x.stride(-1) == 1 else x.contiguous() for x in rows)
    size, blocks = problem.block_size, problem.lens.shape[1]

    def grid(chosen: dict[str, Any]) -> tuple[int]:
        return (batch * heads * blocks * -(-size // chosen[tile]),)

    with torch.cuda.device_of(rows[0]):
        kernel[grid](
            *((x, *x.stride()[:3]) for x in dense),
            *numbers,
            who,
            heads,
            tokens,
            problem.scale,
            SIZE=size,
            DIM=dim,
            D=max(16, 1 << (dim - 1).bit_length()),
            BYTES=rows[0].element_size(),
            **flags,
        )
