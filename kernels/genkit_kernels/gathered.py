"""The implementation in plain PyTorch: queries that see the same keys share one call.

Query blocks are sorted once per pattern into batches with equally many keys; each batch gathers its
keys and values a cache-sized piece at a time. Neighbouring query blocks with the same list (dense
attention, text, the clamped corners of a window) are one query of that length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from genkit_kernels import dense
from genkit_kernels.problem import Problem, empty_like, empty_lse, wide

PIECE = 1 << 21  # elements of gathered keys and values that are held at once


@dataclass(frozen=True, eq=False)
class Batch:
    """n runs of `width` query blocks, from block `queries` (n,); all see as many keys.

    keys: (n, key blocks), those with fewer valid slots last. tails: how many these have.
    """

    queries: Tensor
    width: int
    keys: Tensor
    tails: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One call of dense attention: heads `rows`, query block ids (n, width), key ids, tails."""

    rows: slice
    queries: Tensor
    keys: Tensor
    tails: tuple[int, ...]


def forward(problem: Problem, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(o, lse), both in token order; padding gives 0 and -inf."""
    o, lse = empty_like(q), empty_lse(q)
    for rows, lens in same_lens(problem, q):
        places = Places(problem, lens)
        qs, ks, vs = (places.take(x[rows]) for x in (q, k, v))
        os, ls = torch.zeros_like(qs), lse.new_full(qs.shape[:3], -torch.inf)
        for call in calls(problem, lens, qs):
            queries = take_blocks(qs[call.rows], call.queries)
            keys, values = (take_blocks(x[call.rows], call.keys, call.tails) for x in (ks, vs))
            part, part_lse = dense.forward(queries, keys, values, problem.scale)
            put_blocks(os[call.rows], call.queries, part)
            put_blocks(ls[call.rows], call.queries, part_lse)
        o[rows] = places.give(os, q.shape[1], 0)
        lse[rows] = places.give(ls, q.shape[1], -torch.inf)
    return o, lse


def backward(
    problem: Problem, do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) in token order."""
    dq, dk, dv = (empty_like(x) for x in (q, k, v))
    for rows, lens in same_lens(problem, q):
        places = Places(problem, lens)
        given = [places.take(x[rows]) for x in (do, q, o)]
        ks, vs = (places.take(x[rows]) for x in (k, v))
        ls = places.take(lse[rows], torch.inf)
        dqs = torch.zeros_like(given[1])
        dks, dvs = (torch.zeros_like(x, dtype=wide(x)) for x in (ks, vs))
        for call in calls(problem, lens, ks):
            dos, qs, os = (take_blocks(x[call.rows], call.queries) for x in given)
            keys, values = (take_blocks(x[call.rows], call.keys, call.tails) for x in (ks, vs))
            part_lse = take_blocks(ls[call.rows], call.queries)
            got = dense.backward(dos, qs, keys, values, os, part_lse, problem.scale)
            put_blocks(dqs[call.rows], call.queries, got[0])
            add_blocks(dks[call.rows], call.keys, got[1], call.tails)
            add_blocks(dvs[call.rows], call.keys, got[2], call.tails)
        for whole, part in ((dq, dqs), (dk, dks), (dv, dvs)):
            whole[rows] = places.give(part, q.shape[1], 0).to(whole.dtype)
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
    """The tangent of o in token order, from `forward`'s results."""
    t_o = empty_like(q)
    for rows, lens in same_lens(problem, q):
        places = Places(problem, lens)
        of_queries = [places.take(x[rows]) for x in (q, o, tq)]
        of_keys = [places.take(x[rows]) for x in (k, v, tk, tv)]
        ls = places.take(lse[rows], torch.inf)
        t_os = torch.zeros_like(of_queries[0])
        for call in calls(problem, lens, of_keys[0]):
            qs, os, tqs = (take_blocks(x[call.rows], call.queries) for x in of_queries)
            ks, vs, tks, tvs = (take_blocks(x[call.rows], call.keys, call.tails) for x in of_keys)
            part_lse = take_blocks(ls[call.rows], call.queries)
            part = dense.tangent(qs, ks, vs, os, part_lse, (tqs, tks, tvs), problem.scale)
            put_blocks(t_os[call.rows], call.queries, part)
        t_o[rows] = places.give(t_os, q.shape[1], 0)
    return t_o


def forward_tangent(
    problem: Problem, q: Tensor, k: Tensor, v: Tensor, tq: Tensor, tk: Tensor, tv: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(o, its tangent, lse): one after the other, for torch has no kernel of both."""
    o, lse = forward(problem, q, k, v)
    return o, tangent(problem, q, k, v, o, lse, tq, tk, tv), lse


# ---- Order ------------------------------------------------------------------------------------


def same_lens(problem: Problem, q: Tensor) -> Iterator[tuple[slice | Tensor, Tensor]]:
    """Rows of the batch whose blocks are equally long, with these lengths (blocks,)."""
    lens, row = problem.lens.unique(dim=0, return_inverse=True)
    if len(lens) == 1:
        yield slice(None), lens[0]
        return
    for i, each in enumerate(lens):
        yield (row == i).nonzero().squeeze(1).to(q.device), each


class Places:
    """Tokens to blocks and back for rows of equal `lens`."""

    def __init__(self, problem: Problem, lens: Tensor) -> None:
        size, order = problem.block_size, problem.order
        valid = (torch.arange(size) < lens[:, None]).flatten()
        self.blocks, self.size = len(lens), size
        self.whole = bool(valid.all()) and torch.equal(order, torch.arange(len(order)))
        self.order, self.valid = order.clamp(min=0), valid
        self.slots = valid.nonzero().squeeze(1)
        self.tokens = order[self.slots]

    def take(self, x: Tensor, padding: float = 0.0) -> Tensor:
        """x (batch, heads, tokens, ...) as blocks (batch * heads, blocks, size, ...)."""
        if not self.whole:
            padded = (~self.valid).to(x.device).view(-1, *[1] * (x.ndim - 3))
            x = x.index_select(2, self.order.to(x.device))
            x = x.masked_fill_(padded, padding) if not self.valid.all() else x
        return x.flatten(0, 1).unflatten(1, (self.blocks, self.size)).contiguous()

    def give(self, x: Tensor, heads: int, padding: float) -> Tensor:
        """The inverse of `take`; tokens in no valid slot are `padding`."""
        x = x.flatten(1, 2).unflatten(0, (-1, heads))
        if self.whole:
            return x
        tokens = int(self.order.max()) + 1
        out = x.new_full((*x.shape[:2], tokens, *x.shape[3:]), padding)
        slots = x.index_select(2, self.slots.to(x.device))
        return out.index_copy_(2, self.tokens.to(x.device), slots)


def take_blocks(x: Tensor, ids: Tensor, tails: tuple[int, ...] = ()) -> Tensor:
    """Blocks `ids` (n, count) of x (m, blocks, size, ...) in a row: (m, n, slots, ...).

    Of the last len(tails) blocks only that many slots. A view where the blocks stand in a row.
    """
    n, count = ids.shape
    if not tails and bool((ids.flatten().diff() == 1).all()):
        first = int(ids[0, 0])
        return x[:, first : first + n * count].unflatten(1, (n, count)).flatten(2, 3)
    full = count - len(tails)
    parts = [x[:, ids[:, full + i], :length] for i, length in enumerate(tails)]
    if full:
        head = x.index_select(1, ids[:, :full].flatten().to(x.device))
        parts.insert(0, head.unflatten(1, (n, full)).flatten(2, 3))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def put_blocks(x: Tensor, ids: Tensor, part: Tensor) -> None:
    """Write `part` (m, n, slots, ...) to blocks `ids` (n, count) of x (m, blocks, size, ...)."""
    part = part.unflatten(2, (ids.shape[1], x.shape[2])).flatten(1, 2)
    x.index_copy_(1, ids.flatten().to(x.device), part.contiguous())


def add_blocks(x: Tensor, ids: Tensor, part: Tensor, tails: tuple[int, ...]) -> None:
    """Add `part` (m, n, slots, ...) to blocks `ids` of x, the inverse of `take_blocks`."""
    n, count = ids.shape
    full, size = count - len(tails), x.shape[2]
    head = part[:, :, : full * size].unflatten(2, (full, size)) if full else part[:, :, :0]
    for i in range(n):  # within a row no block comes twice
        if full:
            x.index_add_(1, ids[i, :full].to(x.device), head[:, i].to(x.dtype))
        begin = full * size
        for j, length in enumerate(tails):
            x[:, ids[i, full + j], :length] += part[:, i, begin : begin + length]
            begin += length


# ---- Batches ----------------------------------------------------------------------------------


def calls(problem: Problem, lens: Tensor, x: Tensor) -> Iterator[Call]:
    """The calls that cover every valid query of x (m, blocks, size, head dim) once."""
    heads, (size, dim) = len(x), x.shape[2:]
    for batch in batches(_bytes(problem.offsets), _bytes(problem.blocks), _bytes(lens), size):
        n, count = batch.keys.shape
        room = max(1, PIECE // (2 * count * size * dim))
        several, step = max(1, room // n), min(room, n)
        queries = batch.queries[:, None] + torch.arange(batch.width)
        for row in range(0, heads, several):
            for i in range(0, n, step):
                piece = slice(i, i + step)
                yield Call(
                    slice(row, row + several), queries[piece], batch.keys[piece], batch.tails
                )


@lru_cache(maxsize=32)
def batches(offsets: bytes, blocks: bytes, lens: bytes, size: int) -> tuple[Batch, ...]:
    """The batches of a pattern; the arguments are int64 tensors' bytes."""
    ends, ids, valid = (_ints(x) for x in (offsets, blocks, lens))
    found: dict[tuple[int, int, tuple[int, ...]], list[tuple[int, list[int]]]] = {}
    for begin, width in runs(ends, blocks, valid):
        seen = ids[ends[begin] : ends[begin + 1]]
        keys = [j for j in seen if valid[j] == size]
        short = sorted((valid[j], j) for j in seen if 0 < valid[j] < size)
        tails = tuple(length for length, _ in short)
        keys += [j for _, j in short]
        found.setdefault((width, len(keys), tails), []).append((begin, keys))
    return tuple(
        Batch(torch.tensor([b for b, _ in rows]), width, torch.tensor([k for _, k in rows]), tails)
        for (width, _, tails), rows in found.items()
    )


def runs(ends: list[int], blocks: bytes, valid: list[int]) -> Iterator[tuple[int, int]]:
    """(first block, blocks) of query blocks in a row with one list; those without queries not."""
    begin, last = 0, b""
    for i in range(len(valid) + 1):
        here = blocks[8 * ends[i] : 8 * ends[i + 1]] if i < len(valid) and valid[i] else b""
        if here != last:
            if last:
                yield begin, i - begin
            begin, last = i, here


def _bytes(x: Tensor) -> bytes:
    return x.contiguous().numpy().tobytes()


def _ints(x: bytes) -> list[int]:
    return torch.frombuffer(bytearray(x), dtype=torch.int64).tolist() if x else []
