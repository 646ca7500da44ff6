"""What the Triton kernels share: tiles of tokens where they stand, their rows, and tile sizes.

A tile is a piece of one block of slots. A tensor is a tuple (memory, strides of batch, head and
token); its rows are read and written through the token of each slot, so nothing is permuted.
Importing this imports Triton, which decides then whether its interpreter runs (TRITON_INTERPRET).
Checked through the interpreter, and compiled for GPUs; never run or timed on one.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
NONE = tl.constexpr(-1)  # the token of a slot that is padding
Row = tuple[int, int, int, int, int, int]  # head dims up to, bytes, BLOCK_M, BLOCK_N, warps, stages


# ---- On the device ----------------------------------------------------------------------------


@triton.jit
def own_tile(lists, heads, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Of this program: batch row, head, block, and the tokens of its tile (BLOCK,)."""
    n = lists[4]
    parts: tl.constexpr = (SIZE + BLOCK - 1) // BLOCK
    tile = n * parts - 1 - tl.program_id(0) % (n * parts)  # text comes last and sees most: first
    row = (tl.program_id(0) // (n * parts)).to(tl.int64)
    b = row // heads
    token = tokens_at(lists, b, tile // parts, tile % parts, SIZE, BLOCK)
    return b, row % heads, tile // parts, token


@triton.jit
def tokens_at(lists, b, block, part, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """The tokens of one part of a block (BLOCK,), NONE where there is none."""
    inside = part * BLOCK + tl.arange(0, BLOCK)
    places = lists[0] + b * lists[1] + block.to(tl.int64) * SIZE
    return tl.load(places + inside, mask=inside < SIZE, other=NONE)


@triton.jit
def take(x, b, h, token, DIM: tl.constexpr, D: tl.constexpr):
    """The rows of x (n, D), 0 where there is no token and behind the head dim."""
    d = tl.arange(0, D)[None, :]
    at = x[0] + b * x[1] + h * x[2] + token.to(tl.int64)[:, None] * x[3] + d
    mask = token[:, None] >= 0
    if DIM != D:
        mask = mask & (d < DIM)
    return tl.load(at, mask=mask, other=0.0)


@triton.jit
def give(x, b, h, token, value, DIM: tl.constexpr, D: tl.constexpr):
    """Write the rows of x (n, D) that are a token's."""
    d = tl.arange(0, D)[None, :]
    at = x[0] + b * x[1] + h * x[2] + token.to(tl.int64)[:, None] * x[3] + d
    tl.store(at, value.to(x[0].dtype.element_ty), mask=(token[:, None] >= 0) & (d < DIM))


@triton.jit
def numbers_at(x, b, h, heads, tokens, token):
    """Pointers to one number for each token of x (batch, heads, tokens)."""
    return x + (b * heads + h) * tokens + token


# ---- On the host ------------------------------------------------------------------------------


def tuned(table: tuple[Row, ...]) -> Any:
    """Autotuning over the few rows of a table that suit head dim, dtype and size of the blocks."""
    if triton.knobs.runtime.interpret:  # type: ignore[attr-defined]
        table = ((256, 4, 32, 16, 4, 1),)

    def fitting(configs: list[Any], _: Any, **given: Any) -> list[Any]:
        rows = suited(table, given["D"], given["BYTES"])
        return list(dict.fromkeys(config(row, given["SIZE"]) for row in rows))

    every = [config(row) for row in table]
    return triton.autotune(every, ["D", "BYTES", "SIZE"], {"early_config_prune": fitting})


def suited(table: tuple[Row, ...], dim: int, size: int) -> list[Row]:
    """The rows of the smallest head dim that holds `dim`, for numbers of `size` bytes."""
    widest = min(row[0] for row in table if row[1] == size and row[0] >= dim)
    return [row for row in table if row[:2] == (widest, size)]


def config(row: Row, size: int = 1 << 30) -> Any:
    """A row as Triton has it, no tile larger than a block of `size` slots needs."""
    *_, block_m, block_n, warps, stages = row
    most = max(16, triton.next_power_of_2(size))
    tiles = {"BLOCK_M": min(block_m, most), "BLOCK_N": min(block_n, most)}
    return triton.Config(tiles, num_warps=warps, num_stages=stages)
