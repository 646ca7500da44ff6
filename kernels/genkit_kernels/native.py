"""The compiled implementation for CPUs: cpp/ through ctypes, built by `building` at first use.

It reads and writes tokens where they stand, through the order of the slots, so that nothing is
permuted: keys and values are packed block by block, once per head. bfloat16 and float32; products
accumulate in float32. Head dims that are no multiple of 16 (PixArt's is 72) cost a copy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from genkit_kernels import building
from genkit_kernels.problem import Problem, blank, empty_like, empty_lse

DTYPES = (torch.float32, torch.bfloat16)
HEAD_DIMS = range(1, 257)
UNIT = 16  # what the head dim is padded to a multiple of
Function = TypeVar("Function", bound=Callable[..., Any])


class Rows(ctypes.Structure):
    """A tensor (batch, heads, tokens, dim): strides in elements, the last dimension dense."""

    _fields_ = [("data", ctypes.c_void_p)] + [
        (name, ctypes.c_int64) for name in ("batch", "head", "token")
    ]

    @classmethod
    def of(cls, x: Tensor) -> Rows:
        """The memory of x, which the caller keeps alive."""
        assert x.stride(-1) == 1 or x.shape[-1] == 1
        return cls(x.data_ptr(), *x.stride()[:3])


class NativeProblem(ctypes.Structure):
    """cpp/problem.h's Problem, field for field."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in "batch heads tokens dim blocks block_size".split()]
        + [(name, ctypes.c_void_p) for name in "order lens offsets ids".split()]
        + [("scale", ctypes.c_double)]
        + [(name, Rows) for name in "q k v o tq tk tv t_o d_o dq dk dv".split()]
        + [("lse", ctypes.c_void_p)]
    )


def refusal(device: str, dtype: torch.dtype, head_dim: int) -> str:
    """Why such tensors cannot be taken here, or nothing. Builds the kernel where they could be."""
    if device != "cpu":
        return f"the compiled kernel is for CPUs, not {device}"
    if dtype not in DTYPES:
        return f"the compiled kernel takes float32 and bfloat16, not {dtype}"
    if head_dim not in HEAD_DIMS:
        return f"the compiled kernel takes head dims up to 256, not {head_dim}"
    return building.refusal(dtype)


def fitted(function: Function) -> Function:
    """`function` for every head dim: zeros behind it change no logit, and no output before it."""

    @wraps(function)
    def run(problem: Problem, *tensors: Tensor) -> Any:
        dim = tensors[0].shape[-1]
        if dim % UNIT == 0:
            return function(problem, *tensors)
        found = function(
            problem, *(pad(x, (0, -dim % UNIT)) if x.ndim == 4 else x for x in tensors)
        )

        def cut(x: Tensor) -> Tensor:
            return empty_like(tensors[0]).copy_(x[..., :dim]) if x.ndim == 4 else x

        return tuple(map(cut, found)) if isinstance(found, tuple) else cut(found)

    return cast(Function, run)


@fitted
def forward(problem: Problem, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(o, lse), both in token order; padding gives 0 and -inf."""
    o, lse = blank(problem, q), empty_lse(q).fill_(-torch.inf)
    launch("genkit_forward", problem, lse, q=q, k=k, v=v, o=o)
    return o, lse


@fitted
def backward(
    problem: Problem, do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) in token order."""
    dq, dk, dv = (blank(problem, x) for x in (q, k, v))
    launch("genkit_backward", problem, lse, q=q, k=k, v=v, o=o, d_o=do, dq=dq, dk=dk, dv=dv)
    return dq, dk, dv


@fitted
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
    launch("genkit_tangent", problem, lse, q=q, k=k, v=v, o=o, tq=tq, tk=tk, tv=tv, t_o=t_o)
    return t_o


@fitted
def forward_tangent(
    problem: Problem, q: Tensor, k: Tensor, v: Tensor, tq: Tensor, tk: Tensor, tv: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(o, its tangent, lse) in one pass: six products."""
    o, t_o, lse = blank(problem, q), blank(problem, q), empty_lse(q).fill_(-torch.inf)
    launch("genkit_both", problem, lse, q=q, k=k, v=v, o=o, tq=tq, tk=tk, tv=tv, t_o=t_o)
    return o, t_o, lse


def launch(name: str, problem: Problem, lse: Tensor, **tensors: Tensor) -> None:
    """Run one entry point of the library; tensors named as the fields of `NativeProblem`."""
    q = tensors["q"]
    if not q.numel():
        return
    outputs = ("o", "t_o", "dq", "dk", "dv")
    # What is read may need a copy; what is written is ours and dense.
    dense = {
        key: x if x.stride(-1) == 1 or key in outputs else x.contiguous()
        for key, x in tensors.items()
    }
    lists = [x.contiguous() for x in (problem.order, problem.lens, problem.offsets, problem.blocks)]
    lse = lse.contiguous()
    batch, heads, tokens, dim = q.shape
    given = NativeProblem(
        batch, heads, tokens, dim, problem.lens.shape[1], problem.block_size,
        *(x.data_ptr() for x in lists),
        problem.scale, **{key: Rows.of(x) for key, x in dense.items()}, lse=lse.data_ptr(),
    )  # fmt: skip
    library, why = building.library()
    assert library is not None, why
    error = getattr(library, name)(ctypes.byref(given), int(q.dtype == torch.bfloat16))
    if error:
        raise RuntimeError(f"{name} failed: {error.decode()}")
