"""Grouped sparse attention in diffusers' transformers, by attention processors.

    apply_grouped_attention(pipeline.transformer, surround(1), (16, 16))

A processor of ours runs diffusers' own beneath it, so projections, norms, rotations and text
streams stay theirs, and takes the one call of torch's attention in it over to genkit_kernels. The
grid is read off every call of the transformer, so any size may follow any other. The text's padding
comes from the mask that the transformer passes on, if it passes one. Tokens are not permuted: the
kernels read them where they stand.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from genkit.acceleration.attention_families import Family, family_of
from genkit.acceleration.training_attention import TrainingAttention
from genkit_kernels import GroupLayout, grouped_attention
from genkit_kernels.region import Region


def apply_grouped_attention(
    transformer: nn.Module,
    region: Region,
    group: Sequence[int],
    *,
    dense_layers: Sequence[int] = (),
    dense_steps: float = 0.0,
) -> None:
    """Let the self attention of `transformer` see only `region` on groups of `group` tokens.

    group: (rows, columns), or (frames, rows, columns) for video, in tokens, not in pixels.
    dense_layers: blocks that stay as they are, counted through the transformer from 0, or from its
    end with -1. dense_steps: the share of time, from pure noise on, in which attention stays dense:
    with 0.2 wherever t >= 0.8, where t = 1 is pure noise. Each row of the batch goes by its own
    timestep, so nothing is remembered from call to call. (A schedule that is shifted towards noise
    spends more than this share of its steps there.)

    ValueError for an unknown transformer, one that has grouped attention or other processors than
    diffusers' own already, and for settings that fit no grid; at the call, where the grid is
    smaller than a group or a mask is not the text's padding.
    """
    family = family_of(transformer)
    if not isinstance(region, Region):
        raise ValueError(f"region is {region!r}; give surround(1), criss_cross() or another region")
    if len(group) != family.axes:
        raise ValueError(
            f"group is {tuple(group)}; {type(transformer).__name__} needs {family.axes} sizes: "
            + ("(frames, rows, columns)" if family.axes == 3 else "(rows, columns)")
        )
    if not 0 <= dense_steps <= 1:
        raise ValueError(f"dense_steps is {dense_steps}; it is a share of time, from 0 to 1")
    net: Any = transformer
    held: dict[str, Any] = net.attn_processors
    if any(isinstance(each, GroupedProcessor) for each in held.values()):
        raise ValueError("the transformer has grouped attention; remove_grouped_attention() first")
    plan = Plan(family, region, tuple(group), dense_steps)
    for name in _sparse(net, family, dense_layers):
        held[name] = GroupedProcessor(_beneath(held[name], family), held[name], plan)
    net.set_attn_processor(held)
    plan.handles = (
        transformer.register_forward_pre_hook(plan.before, with_kwargs=True),
        transformer.register_forward_hook(plan.after, always_call=True),
    )


def remove_grouped_attention(transformer: nn.Module) -> None:
    """Give the transformer its own processors back. ValueError where it has them."""
    family_of(transformer)
    net: Any = transformer
    held: dict[str, Any] = net.attn_processors
    ours = {name: each for name, each in held.items() if isinstance(each, GroupedProcessor)}
    if not ours:
        raise ValueError(f"{type(transformer).__name__} has no grouped attention to remove")
    net.set_attn_processor(held | {name: each.original for name, each in ours.items()})
    for plan in {each.plan for each in ours.values()}:
        for handle in plan.handles:
            handle.remove()


@contextmanager
def using_grouped_attention(
    transformer: nn.Module, region: Region, group: Sequence[int], **settings: Any
) -> Iterator[None]:
    """`apply_grouped_attention` inside, removed at the end."""
    apply_grouped_attention(transformer, region, group, **settings)
    try:
        yield
    finally:
        remove_grouped_attention(transformer)


def _sparse(transformer: Any, family: Family, dense_layers: Sequence[int]) -> Iterator[str]:
    """Names of the processors to replace."""
    blocks = [
        (f"{name}.{i}", attentions)
        for name, attentions in family.blocks.items()
        for i in range(len(getattr(transformer, name)))
    ]
    n = len(blocks)
    if any(not -n <= layer < n for layer in dense_layers):
        raise ValueError(f"dense_layers is {tuple(dense_layers)}; the {n} layers are 0 to {n - 1}")
    dense = {layer % n for layer in dense_layers}
    if len(dense) == n:
        raise ValueError(f"dense_layers names all {n} layers, so that nothing is left to be sparse")
    for i, (block, attentions) in enumerate(blocks):
        names = [f"{block}.{attention}.processor" for attention in attentions]
        yield from (
            name for name in names if i not in dense and name in transformer.attn_processors
        )


def _beneath(processor: Any, family: Family) -> Any:
    """The processor of diffusers that runs beneath ours. ValueError where it is another one."""
    stock = processor.fused if isinstance(processor, TrainingAttention) else processor
    if type(stock).__name__ not in family.processors:
        raise ValueError(
            f"the transformer's attention is run by {type(stock).__name__}, which cannot run "
            f"beneath grouped attention; set its own first: {' or '.join(family.processors)}"
        )
    return stock


# ---- One call of the transformer --------------------------------------------------------------


@dataclass(eq=False)
class Call:
    """What the processors need to know while the transformer runs.

    layouts: by the number of tokens in an attention, with the text and without. dense: rows that
    stay dense (batch,), None where none do. checkpoint: diffusers' checkpointing, while ours runs.
    """

    region: Region
    layouts: Mapping[int, GroupLayout]
    dense: Tensor | None
    checkpoint: Any = None
    lens: tuple[Tensor | None, Tensor | None] = (None, None)  # a mask and what it said

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None
    ) -> Tensor:
        """Attention of q, k, v (batch, heads, tokens, head dim): dense rows so, others sparse."""
        if self.dense is None or not self.dense.any():
            return self.sparse(q, k, v, mask, scale)
        if self.dense.all():
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        dense, sparse = (rows.nonzero().squeeze(1) for rows in (self.dense, ~self.dense))
        parts = []
        for rows, call in ((dense, F.scaled_dot_product_attention), (sparse, self.sparse)):
            rows = rows.to(q.device)
            part = mask if mask is None or len(mask) == 1 else mask[rows]
            parts.append(call(q[rows], k[rows], v[rows], attn_mask=part, scale=scale))
        return torch.cat(parts)[torch.cat([dense, sparse]).argsort().to(q.device)]

    def sparse(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, scale: float | None
    ) -> Tensor:
        """Grouped attention, as autocast would have it."""
        if torch.is_autocast_enabled(q.device.type):
            q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
        layout = self.layouts[q.shape[2]]
        lens = self.key_lens(attn_mask, layout, len(q))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        o = grouped_attention(q, k, v, layout, self.region, lens, scale)
        assert isinstance(o, Tensor)
        return o.transpose(1, 2)

    def key_lens(self, mask: Tensor | None, layout: GroupLayout, batch: int) -> Tensor | None:
        """Valid text tokens of each row (batch,); all layers of a call bring the same mask."""
        if mask is None:
            return None
        known, lens = self.lens
        if known is not mask:
            lens = valid_text(mask, layout)
            self.lens = mask, lens
        assert lens is not None
        return lens.expand(batch)


def valid_text(mask: Tensor, layout: GroupLayout) -> Tensor:
    """Valid text tokens (batch or 1,) from a mask of keys (batch or 1, 1, 1, tokens), True: seen.

    ValueError where it says more than how long each row's text is.
    """
    tokens = layout.tokens
    if mask.dtype != torch.bool or mask.ndim != 4 or mask.shape[1:] != (1, 1, tokens):
        raise ValueError(
            f"the attention mask is {mask.dtype} of shape {tuple(mask.shape)}; grouped attention "
            f"takes booleans (batch, 1, 1, {tokens}) that leave out the text's padding"
        )
    seen = mask[:, 0, 0].cpu()
    begin = 0 if layout.text_side == "first" else tokens - layout.text_len
    text = seen[:, begin : begin + layout.text_len]
    lens = text.sum(1)
    prefix = torch.arange(layout.text_len) < lens[:, None]
    if not torch.equal(text, prefix) or int((~seen).sum()) != int((~text).sum()):
        raise ValueError(
            "the attention mask leaves out tokens of the grid, or text tokens before others that "
            "it keeps; grouped attention takes masks that leave out the text's padding at its end"
        )
    return lens


# Who is being called; a thread that recomputes a checkpoint enters its call again.
_calls: ContextVar[Mapping[Plan, Call]] = ContextVar("calls", default={})  # noqa: B039


@dataclass(eq=False)
class Plan:
    """What `apply_grouped_attention` was given, and the hooks that tell processors of a call."""

    family: Family
    region: Region
    group: tuple[int, ...]
    dense_steps: float
    handles: tuple[Any, ...] = field(default=(), repr=False)

    def before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Read the grid, the text and the times off the transformer's arguments."""
        given = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
        grid, text = self.family.grid(module, given), self.family.text_len(given)
        layouts = {prod(grid): GroupLayout(grid, self.group)}
        if text:
            layouts[prod(grid) + text] = GroupLayout(grid, self.group, text, self.family.text_side)
        dense = self.family.times(given) >= 1 - self.dense_steps if self.dense_steps else None
        call = Call(self.region, layouts, dense)
        if module.gradient_checkpointing:
            call.checkpoint = module._gradient_checkpointing_func
            module._gradient_checkpointing_func = partial(self.checkpointed, call)
        _calls.set({**_calls.get(), self: call})

    def after(self, module: Any, *_: Any) -> None:
        """Forget the call, also where it failed."""
        calls = dict(_calls.get())
        call = calls.pop(self, None)
        _calls.set(calls)
        if call is not None and call.checkpoint is not None:
            module._gradient_checkpointing_func = call.checkpoint

    def checkpointed(self, call: Call, block: Any, *args: Any) -> Any:
        """Run a block under diffusers' checkpointing so that its recomputation knows the call."""

        def within_call(*inner: Any) -> Any:
            token = _calls.set({**_calls.get(), self: call})
            try:
                return block(*inner)
            finally:
                _calls.reset(token)

        return call.checkpoint(within_call, *args)

    def call(self) -> Call:
        """The call that runs now. ValueError outside of one."""
        found = _calls.get().get(self)
        if found is None:
            raise ValueError(
                "a block with grouped attention was called outside of its transformer, whose "
                "arguments tell the grid; call the transformer, or remove_grouped_attention() first"
            )
        return found


# ---- One attention ----------------------------------------------------------------------------


class Routed(TorchFunctionMode):
    """Inside, torch's attention over the tokens of a call's grid is the call's."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call, self.taken = call, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        given = _sdpa(*args, **kwargs)
        q, k = given["query"], given["key"]
        if q.shape[2] not in self.call.layouts or k.shape[2] != q.shape[2]:
            return func(*args, **kwargs)  # an adapter's attention to its own tokens
        self.taken += 1
        assert not (given["dropout_p"] or given["is_causal"] or given["enable_gqa"])
        return self.call.attend(q, k, given["value"], given["attn_mask"], given["scale"])


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> dict[str, Any]:
    """The arguments of F.scaled_dot_product_attention by name."""
    return locals()


class GroupedProcessor:
    """diffusers' processor `stock`, its attention made sparse; `original` is what stood there."""

    def __init__(self, stock: Any, original: Any, plan: Plan) -> None:
        self.stock, self.original, self.plan = stock, original, plan

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        """As diffusers calls its own; attn's forward reads these names."""
        rotation = () if image_rotary_emb is None else (image_rotary_emb,)
        with Routed(self.plan.call()) as routed:
            found = self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, *rotation
            )
        if routed.taken != 1:
            layouts = list(routed.call.layouts.values())
            raise ValueError(
                f"{type(self.stock).__name__} did not call torch's attention once over the tokens "
                f"of {layouts[-1]} (hidden_states {tuple(hidden_states.shape)}): leave out other "
                "attention backends (reset_attention_backend()), parallelism and added tokens"
            )
        return found
