"""What the attention bench runs: calls of every implementation, exact rows, and peak memory.

Queries, keys and values are normal noise. Dense attention of very many tokens is run for some of
the queries only, by `Problem.share`; what is timed there is scaled by the pairs left out.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from genkit_kernels import GroupLayout, attention_jvp, grouped_attention, use
from genkit_kernels.region import BlockLists, Full, Region, compile_region

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
PASSES = ("forward", "backward", "jvp", "func.jvp")
# Matrix products of a pass by those of the dense pass it is compared with: a derivative has six in
# one go, or five after a forward's two, where dense attention's forward has two.
PRODUCTS = {"forward": 1.0, "backward": 1.0, "jvp": 3.0, "func.jvp": 3.5}
Call = Callable[[], Any]


@dataclass(frozen=True)
class Thinned(Full):
    """`full()` for every `step`-th group; the others see themselves."""

    step: int = 1

    def pairs(self, counts: tuple[int, ...]) -> Tensor:
        every = torch.arange(prod(counts))
        whole = torch.cartesian_prod(every[:: self.step], every)
        return torch.cat([whole[:, 0] * len(every) + whole[:, 1], every * (len(every) + 1)])


@dataclass(frozen=True)
class Problem:
    """Tensors of one shape, one batch row, and how many of the queries dense attention is run for.

    dense_rows: so many, where there are more tokens than `whole`.
    """

    grid: tuple[int, ...]
    group: tuple[int, ...]
    dtype: str
    head_dim: int
    heads: int
    device: str = "cpu"
    dense_rows: int = 16384
    whole: int = 65536

    @cached_property
    def layout(self) -> GroupLayout:
        """How the tokens fall into groups; there is no text."""
        return GroupLayout(self.grid, self.group)

    @property
    def tokens(self) -> int:
        """Tokens of the grid."""
        return prod(self.grid)

    @property
    def share(self) -> int:
        """Dense attention is run for one query in so many."""
        return 1 if self.tokens <= self.whole else max(1, self.tokens // self.dense_rows)

    @cached_property
    def tensors(self) -> list[Tensor]:
        """q, k, v, and three more: the tangents, the first of them the gradient of o too."""
        rng = torch.Generator(self.device).manual_seed(0)
        shape, like = (1, self.tokens, self.heads, self.head_dim), DTYPES[self.dtype]
        empty = (torch.empty(shape, dtype=like, device=self.device) for _ in range(6))
        return [x.normal_(generator=rng) for x in empty]

    def region(self, region: Region) -> Region:
        """The region that is run in place of `region`: full() thinned where dense attention is."""
        return Thinned(self.share) if isinstance(region, Full) and self.share > 1 else region

    def lists(self, region: Region) -> BlockLists:
        """Which blocks see which."""
        return compile_region(region, self.layout)

    def pairs(self, region: Region) -> float:
        """Queries times the keys they see."""
        lists, sizes = self.lists(region), self.layout.sizes().double()
        rows = torch.arange(self.layout.blocks).repeat_interleave(lists.offsets.diff())
        return float((sizes[rows] * sizes[lists.blocks]).sum())

    def seen(self, region: Region, rows: Tensor) -> Tensor:
        """Who is seen by the queries `rows` (n, tokens)."""
        slots = torch.arange(self.layout.slots).view(1, -1)
        block = self.layout.uncluster(slots)[0] // self.layout.block_size
        return self.lists(region).dense()[block[rows]][:, block]


# ---- Calls ------------------------------------------------------------------------------------


def grouped(problem: Problem, region: Region, backend: str, kind: str) -> Call:
    """One pass of ours: gives (1, tokens, heads, head dim), of o, of dq, or of o's tangent."""
    q, k, v, *tangents = problem.tensors
    tq, tk, tv = tangents
    layout = problem.layout

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with use(backend):
            o = grouped_attention(q, k, v, layout, region)
        assert isinstance(o, Tensor)
        return o

    def fused() -> Tensor:
        with use(backend):
            return attention_jvp(q, k, v, tq, tk, tv, layout, region)[1]

    if kind == "jvp":
        return fused
    return _pass(attend, (q, k, v), tangents, kind)


def dense(problem: Problem, kind: str, fused: bool = True) -> Call:
    """The same of torch's attention, for a share of the queries; fused False: by plain products."""
    q, k, v, *tangents = (x.transpose(1, 2) for x in problem.tensors)
    few = slice(None, None, problem.share)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if fused:
            return F.scaled_dot_product_attention(q, k, v)
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v)

    tangents[0] = tangents[0][:, :, few]
    found = _pass(attend, (q[:, :, few].contiguous(), k, v), tangents, kind)
    return lambda: found().transpose(1, 2)


def flex_refusal(problem: Problem) -> str:
    """Why FlexAttention cannot run on the problem's blocks as they are, or nothing."""
    layout = problem.layout
    if layout.slots != layout.tokens or layout.block_size % 128:
        return f"group {layout.group} does not divide {layout.grid} into blocks of 128 tokens"
    return ""


def flex(problem: Problem, region: Region, kind: str) -> Call:
    """The same of FlexAttention on the same blocks, compiled on a GPU; tokens in clustered order.

    Every block that is seen is seen whole, so that it does no masking.
    """
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    size, n = problem.layout.block_size, problem.layout.blocks
    seen = problem.lists(region).dense().to(problem.device)
    counts = seen.sum(-1, dtype=torch.int32)[None, None]
    ids = seen.int().argsort(dim=-1, descending=True, stable=True).int()[None, None]
    mask = BlockMask.from_kv_blocks(
        torch.zeros_like(counts),
        torch.zeros_like(ids),
        counts,
        ids,
        BLOCK_SIZE=size,
        mask_mod=lambda b, h, query, key: seen[query // size, key // size],
        seq_lengths=(n * size, n * size),
    )
    run = flex_attention
    if problem.device.startswith("cuda"):
        run = torch.compile(flex_attention, dynamic=False)
    given = [problem.layout.cluster(x).transpose(1, 2).contiguous() for x in problem.tensors]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        o = run(q, k, v, block_mask=mask)
        assert isinstance(o, Tensor)
        return o

    found = _pass(attend, (given[0], given[1], given[2]), given[3:], kind)
    return lambda: found().transpose(1, 2)


def _pass(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    primals: tuple[Tensor, Tensor, Tensor],
    tangents: list[Tensor],
    kind: str,
) -> Call:
    """A pass of attention; the forward of "backward" is run once, here."""
    if kind == "forward":
        return lambda: _without_gradients(attend, primals)
    if kind == "func.jvp":
        return lambda: torch.func.jvp(attend, primals, tuple(tangents))[1]
    assert kind == "backward"
    inputs = [x.detach().requires_grad_(True) for x in primals]
    o = attend(*inputs)
    return lambda: torch.autograd.grad(o, inputs, tangents[0], retain_graph=True)[0]


@torch.no_grad()
def _without_gradients(attend: Callable[..., Tensor], primals: tuple[Tensor, ...]) -> Tensor:
    return attend(*primals)


def synchronized(call: Call, device: str) -> Call:
    """The call, waited for."""
    if not device.startswith("cuda"):
        return call
    return lambda: (call(), torch.cuda.synchronize())[0]


# ---- Errors -----------------------------------------------------------------------------------


def errors(
    problem: Problem, region: Region, kind: str, found: Tensor, n: int
) -> tuple[float, float]:
    """Largest errors on n sampled query rows against float64: of `found` (1, tokens, heads, d), and
    of torch's own attention under the same mask in the same dtype.

    Of o, of dq for "backward", of o's tangent else; NaN where there is one.
    """
    every = torch.arange(problem.tokens)
    if found.shape[1] < problem.tokens:  # dense attention for a share of the queries
        every = every[:: problem.share]
    picks = torch.randperm(len(every), generator=torch.Generator().manual_seed(1))[:n]
    exact = [x.transpose(1, 2).double() for x in problem.tensors]
    rough = [x.transpose(1, 2) for x in problem.tensors]
    differences = []
    for part in picks.split(16):
        rows = every[part]
        seen = problem.seen(region, rows).to(found.device)
        truth, theirs = (_rows(given, kind, rows, seen) for given in (exact, rough))
        mine = found[0, part.to(found.device)].transpose(0, 1)
        differences.append(torch.stack([(x - truth).abs().max() for x in (mine, theirs)]))
    mine, theirs = torch.stack(differences).amax(0).tolist()
    return mine, theirs


def _rows(given: list[Tensor], kind: str, rows: Tensor, seen: Tensor) -> Tensor:
    """The rows (heads, rows, d) of a pass by torch's attention under a mask (rows, tokens)."""
    q, k, v, *tangents = given
    rows = rows.to(q.device)
    q, tangents[0] = q[:, :, rows], tangents[0][:, :, rows]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    if kind in ("forward", "backward"):
        return _pass(attend, (q, k, v), tangents, kind)()[0]
    with sdpa_kernel(SDPBackend.MATH):  # the only one that has a derivative
        return _pass(attend, (q, k, v), tangents, "func.jvp")()[0]


# ---- Memory -----------------------------------------------------------------------------------


def peak_memory(problem: Problem, region: Region, backend: str, kind: str) -> int | None:
    """Bytes that one pass takes on top of its inputs, in a process of its own.

    "backward" counts the forward before it. None where the system does not tell.
    """
    if problem.device == "cpu" and not sys.platform.startswith("linux"):
        return None
    asked = {"problem": asdict(problem), "backend": backend, "kind": kind}
    asked["region"] = [type(region).__name__, asdict(region)]  # type: ignore[call-overload]
    code = "import sys; from genkit.benchmarks.attention_cases import child; child(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(asked)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the process that measures memory failed:\n{done.stderr}")
    return int(done.stdout)


def child(asked: str) -> None:
    """Print the peak of what `peak_memory` asks for."""
    import genkit_kernels.region as regions

    given = json.loads(asked)
    facts: dict[str, Any] = given["problem"]
    grid, group = tuple(facts.pop("grid")), tuple(facts.pop("group"))
    problem = Problem(grid, group, **facts)
    name, fields = given["region"]
    region = getattr(regions, name)(**fields)
    backend, kind = given["backend"], given["kind"]

    def run(problem: Problem) -> None:
        if backend in ("sdpa", "naive"):
            dense(problem, kind, backend == "sdpa")()
        else:
            grouped(problem, region, backend, kind)()

    # Libraries are loaded and threads started before anything is measured.
    run(Problem(problem.group, problem.group, problem.dtype, problem.head_dim, 1, problem.device))
    assert problem.tensors and problem.lists(region)
    if problem.device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run(problem)
        print(torch.cuda.max_memory_allocated() - before)
        return
    ctypes.CDLL(None).malloc_trim(0)  # what is free already would hide what is taken
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run(problem)
    print(_status("VmHWM") - before)


def _status(name: str) -> int:
    """A figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
