"""The implementations as `torch.library` operators, differentiable in reverse and forward mode.

Inside an autograd.Function's `jvp` under torch.func the tensors are functorch's own, whose memory
nobody may touch; an operator called there is given plain ones. So every launch is an operator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genkit_kernels.problem import Problem, empty_like, empty_lse
from genkit_kernels.resolve import implementation_named

Lists = tuple[Tensor, Tensor, Tensor, Tensor]  # order, lens, offsets, blocks


@torch.library.custom_op("genkit_kernels::attend", mutates_args=())
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    lens: Tensor,
    offsets: Tensor,
    blocks: Tensor,
    scale: float,
    name: str,
) -> tuple[Tensor, Tensor]:
    """(o like q, lse (batch, heads, tokens) in at least float32)."""
    problem = Problem(order, lens, offsets, blocks, scale)
    return implementation_named(name).forward(problem, q, k, v)


@torch.library.custom_op("genkit_kernels::attend_backward", mutates_args=())
def attend_backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    order: Tensor,
    lens: Tensor,
    offsets: Tensor,
    blocks: Tensor,
    scale: float,
    name: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) from do and what `attend` was given and gave."""
    problem = Problem(order, lens, offsets, blocks, scale)
    return implementation_named(name).backward(problem, do, q, k, v, o, lse)


@torch.library.custom_op("genkit_kernels::attend_tangent", mutates_args=())
def attend_tangent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    tq: Tensor,
    tk: Tensor,
    tv: Tensor,
    order: Tensor,
    lens: Tensor,
    offsets: Tensor,
    blocks: Tensor,
    scale: float,
    name: str,
) -> Tensor:
    """The tangent of o, from what `attend` was given and gave and the tangents of q, k and v."""
    problem = Problem(order, lens, offsets, blocks, scale)
    return implementation_named(name).tangent(problem, q, k, v, o, lse, tq, tk, tv)


@torch.library.custom_op("genkit_kernels::attend_with_tangent", mutates_args=())
def attend_with_tangent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tq: Tensor,
    tk: Tensor,
    tv: Tensor,
    order: Tensor,
    lens: Tensor,
    offsets: Tensor,
    blocks: Tensor,
    scale: float,
    name: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """(o, its tangent, lse) in one pass."""
    problem = Problem(order, lens, offsets, blocks, scale)
    return implementation_named(name).forward_tangent(problem, q, k, v, tq, tk, tv)


@attend.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return empty_like(q), empty_lse(q)


@attend_backward.register_fake
def _(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return empty_like(q), empty_like(k), empty_like(v)


@attend_tangent.register_fake
def _(q: Tensor, *_: Any) -> Tensor:
    return empty_like(q)


@attend_with_tangent.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return empty_like(q), empty_like(q), empty_lse(q)


class AttendBackward(torch.autograd.Function):
    """`attend_backward`, which has no derivative of its own."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        return attend_backward(*inputs[:6], *inputs[6], *inputs[7:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            "sparse attention has no second derivatives; use('reference') has, at small sizes"
        )


class AttendTangent(torch.autograd.Function):
    """`attend_tangent`, which has no derivative of its own."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        return attend_tangent(*inputs[:8], *inputs[8], *inputs[9:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            "the tangent of sparse attention has no gradient; detach it, or use('reference') at "
            "small sizes"
        )


class Attend(torch.autograd.Function):
    """(o, lse) of `attend`, with gradients and tangents of o; lse has none."""

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, lists: Lists, scale: float, name: str
    ) -> tuple[Tensor, Tensor]:
        return attend(q, k, v, *lists, scale, name)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        q, k, v, ctx.lists, ctx.scale, ctx.name = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(q, k, v, *output)
        ctx.save_for_forward(q, k, v, *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        given = AttendBackward.apply(grads[0], *ctx.saved_tensors, ctx.lists, ctx.scale, ctx.name)
        return *given, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        q, k, v, o, lse = ctx.saved_tensors
        given = zip(tangents[:3], (q, k, v), strict=True)
        moved = [torch.zeros_like(x) if t is None else t for t, x in given]
        inputs = (q, k, v, o, lse, *moved, ctx.lists, ctx.scale, ctx.name)
        return AttendTangent.apply(*inputs), None


class AttendWithTangent(torch.autograd.Function):
    """(o, its tangent) of `attend_with_tangent`; o has gradients, the tangent has none."""

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tangents: tuple[Tensor, Tensor, Tensor],
        lists: Lists,
        scale: float,
        name: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return attend_with_tangent(q, k, v, *tangents, *lists, scale, name)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        q, k, v, _, ctx.lists, ctx.scale, ctx.name = inputs
        o, t_o, lse = output
        ctx.mark_non_differentiable(t_o, lse)
        ctx.save_for_backward(q, k, v, o, lse)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        given = AttendBackward.apply(grads[0], *ctx.saved_tensors, ctx.lists, ctx.scale, ctx.name)
        return *given, None, None, None, None
