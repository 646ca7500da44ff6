"""Grouped attention beside PyTorch's dense attention: time, FLOP bound, memory, error. One run.

speedup: seconds of F.scaled_dot_product_attention by ours, forward against forward, backward
against backward, a derivative against PyTorch's forward (which has none). bound: the same ratio in
matrix products, so that fraction = speedup / bound is 1 where leaving out keys saves all it can.
by full: the same against our own full(), for on some processors PyTorch's attention is slow and to
beat the bound against it shows little. forwards: a backward in its own forwards, a derivative in
PyTorch's. error: the largest on sampled query rows against float64 (of o; of dq; of o's tangent),
beside PyTorch's own under the same mask. Medians of calls in turns; queries are permuted by nobody.
On a GPU compiled FlexAttention runs on the same blocks, its tokens permuted beforehand; by flex:
its seconds by ours.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from genkit.benchmarks import attention_cases as cases
from genkit.benchmarks.attention_cases import PRODUCTS, Call, Problem
from genkit.benchmarks.latency import timed
from genkit.benchmarks.record import write_record
from genkit_kernels import criss_cross, full, resolve, sliding_tile, surround
from genkit_kernels.region import Full, Region

Row = dict[str, Any]
Columns = dict[str, tuple[str, str]]
REGIONS = ("surround", "criss_cross", "sliding_tile", "full")
NAIVE_TOKENS = 4096  # beyond, a derivative by plain products takes too long and too much


@dataclass
class Settings:
    regions: tuple[str, ...] = ("surround", "criss_cross", "full")
    """surround, criss_cross, sliding_tile (of the same window) or full."""
    grids: tuple[str, ...] = ("64x64", "128x128")
    """Tokens along each axis: 128x128, or 8x32x48 with frames."""
    group: str = "16x16"
    """Tokens of a group along each axis."""
    radius: int = 1
    """Groups that are seen on each side of a query's own."""
    dtypes: tuple[str, ...] = ("bfloat16",)
    """bfloat16, float16 or float32."""
    head_dims: tuple[int, ...] = (64, 128)
    heads: int = 1
    backends: tuple[str, ...] = ("cpp", "triton", "torch")
    """Of cpp, triton, torch and reference; one that cannot run is left out, and the run says so."""
    train: bool = False
    """Time backward passes too."""
    jvp: bool = False
    """Time derivatives too: fused, and through torch.func.jvp."""
    rounds: int = 5
    """Calls of each, of which the median counts."""
    dense_rows: int = 16384
    """Queries that dense attention is timed for, and scaled, where it is too long as a whole."""
    whole: int = 65536
    """Tokens up to which dense attention is timed as a whole."""
    error_rows: int = 64
    """Query rows that errors are measured on."""
    memory: bool = True
    """Measure peak memory, each in a process of its own."""
    device: str = "cpu"
    """cpu or cuda."""
    flex: bool = True
    """Time compiled FlexAttention too, on a GPU."""
    json: str | None = None
    """A file to write the rows to."""
    plot: str | None = None
    """A picture to draw: speed-ups and their bounds by the number of tokens."""

    def __post_init__(self) -> None:
        for name, values, known in (
            ("regions", self.regions, REGIONS),
            ("dtypes", self.dtypes, tuple(cases.DTYPES)),
            ("backends", self.backends, resolve.NAMES),
        ):
            wrong = [value for value in values if value not in known]
            if wrong or not values:
                raise ValueError(f"{name} has {wrong or 'none'}; there are {', '.join(known)}")
        numbers = (self.rounds, self.heads, self.dense_rows, self.error_rows, *self.head_dims)
        if min(numbers) < 1:
            raise ValueError("rounds, heads, head_dims, dense_rows and error_rows are at least 1")
        if self.plot is not None:
            pyplot()

    def region(self, name: str) -> Region:
        """The region of a name."""
        if name == "sliding_tile":
            return sliding_tile(2 * self.radius + 1)
        return {"surround": surround(self.radius), "criss_cross": criss_cross(), "full": full()}[
            name
        ]

    @property
    def passes(self) -> tuple[str, ...]:
        """What is timed."""
        asked = {"backward": self.train, "jvp": self.jvp, "func.jvp": self.jvp}
        return tuple(kind for kind in cases.PASSES if asked.get(kind, True))

    def problems(self) -> Iterator[Problem]:
        """Every shape, from the smallest. ValueError where a group does not fit its grid."""
        group = _sizes(self.group)
        for grid in sorted(map(_sizes, self.grids), key=prod):
            for dtype in self.dtypes:
                for dim in self.head_dims:
                    shape = (grid, group, dtype, dim, self.heads)
                    problem = Problem(*shape, self.device, self.dense_rows, self.whole)
                    assert problem.layout
                    yield problem


def _sizes(text: str) -> tuple[int, ...]:
    """Numbers of 16x16."""
    try:
        return tuple(int(part) for part in text.split("x"))
    except ValueError:
        raise ValueError(f"{text!r} is no grid; write it as 128x128, or 8x32x48") from None


@dataclass(frozen=True)
class Entry:
    """One line of the table. run: the region that is run for `region`; scale: of its seconds."""

    name: str
    region: Region
    run: Region
    backend: str
    kind: str
    call: Call
    scale: float


def runnable(problem: Problem, settings: Settings) -> list[str]:
    """The implementations that can run; of the others it is said why not."""
    left_out = {
        name: resolve.refusal(
            name, torch.device(problem.device).type, cases.DTYPES[problem.dtype], problem.head_dim
        )
        for name in settings.backends
    }
    if settings.flex and problem.device.startswith("cuda"):
        left_out["flex"] = cases.flex_refusal(problem)
    for name, why in left_out.items():
        if why:
            print(f"{name} is left out: {why}", file=sys.stderr)
    return [name for name, why in left_out.items() if not why]


def entries(problem: Problem, settings: Settings) -> Iterator[Entry]:
    """Everything that is timed in turns on one problem."""
    backends = runnable(problem, settings)
    for kind in settings.passes:
        if kind in ("forward", "backward"):
            call, share = cases.dense(problem, kind), float(problem.share)
            yield Entry("full", full(), full(), "sdpa", kind, call, share)
        if kind == "func.jvp" and problem.tokens <= NAIVE_TOKENS:
            call = cases.dense(problem, kind, fused=False)
            yield Entry("full", full(), full(), "naive", kind, call, 1.0)
        for backend in backends:
            if backend == "flex" and kind not in ("forward", "backward"):
                continue  # it has no forward-mode derivative
            for name in settings.regions:
                region = settings.region(name)
                run = problem.region(region)
                scale = problem.pairs(region) / problem.pairs(run)
                if backend == "flex":
                    call = cases.flex(problem, run, kind)
                else:
                    call = cases.grouped(problem, run, backend, kind)
                yield Entry(name, region, run, backend, kind, call, scale)


def measure(settings: Settings) -> Iterator[Row]:
    """The rows, problem by problem."""
    for problem in settings.problems():
        found = list(entries(problem, settings))
        calls = {
            str(i): cases.synchronized(entry.call, problem.device) for i, entry in enumerate(found)
        }
        taken = timed(calls, settings.rounds)
        seconds = {
            (entry.name, entry.backend, entry.kind): taken[str(i)] * entry.scale
            for i, entry in enumerate(found)
        }
        for entry in found:
            yield row(problem, entry, seconds, settings)


def row(
    problem: Problem, entry: Entry, seconds: dict[tuple[str, str, str], float], settings: Settings
) -> Row:
    """One row: ratios, error and memory of an entry."""
    kind, mine = entry.kind, seconds[entry.name, entry.backend, entry.kind]
    beside = kind if kind == "backward" else "forward"
    dense = seconds["full", "sdpa", beside]
    own_full = seconds.get(("full", entry.backend, kind))
    own_forward = seconds.get((entry.name, entry.backend, "forward"))
    flex = seconds.get((entry.name, "flex", beside))
    pairs = problem.tokens**2 / problem.pairs(entry.region)
    bound = pairs / PRODUCTS[kind]
    forward = {"forward": None, "backward": own_forward}.get(kind, dense)
    sampled = problem.share > 1 and isinstance(entry.region, Full)
    found = entry.call()
    if entry.backend == "flex":
        found = problem.layout.uncluster(found)
    error = cases.errors(problem, entry.run, kind, found, settings.error_rows)
    memory = None
    if settings.memory and not sampled and entry.backend != "flex":
        memory = cases.peak_memory(problem, entry.region, entry.backend, kind)
    return {
        "region": entry.name,
        "grid": "x".join(map(str, problem.grid)),
        "dtype": problem.dtype,
        "head_dim": problem.head_dim,
        "backend": entry.backend,
        "pass": kind,
        "seconds": mine,
        "dense_seconds": dense,
        "speedup": dense / mine,
        "bound": bound,
        "fraction": dense / mine / bound,
        "speedup_by_full": own_full and own_full / mine,
        "fraction_by_full": own_full and own_full / mine / pairs,
        "speedup_by_flex": flex and flex / mine,
        "forwards": forward and mine / forward,
        "error": error[0],
        "sdpa_error": error[1],
        "memory": memory,
        "sampled": sampled,
    }


COLUMNS: Columns = {
    "grid": ("grid", "{:>10s}"), "head_dim": ("dim", "{:>4d}"), "dtype": ("dtype", "{:>9s}"),
    "pass": ("pass", "{:>9s}"), "region": ("region", "{:>12s}"), "backend": ("by", "{:>10s}"),
    "seconds": ("seconds", "{:9.4f}"), "speedup": ("speedup", "{:8.2f}"),
    "bound": ("bound", "{:7.2f}"), "fraction": ("fraction", "{:9.2f}"),
    "speedup_by_full": ("by full", "{:8.2f}"), "fraction_by_full": ("fraction", "{:9.2f}"),
    "speedup_by_flex": ("by flex", "{:8.2f}"),
    "forwards": ("forwards", "{:9.2f}"), "error": ("error", "{:9.1e}"),
    "sdpa_error": ("sdpa's", "{:9.1e}"), "memory": ("MiB", "{:8.1f}"),
}  # fmt: skip


def columns(settings: Settings) -> Columns:
    """The columns of a run: FlexAttention is timed on GPUs only."""
    flex = settings.flex and settings.device.startswith("cuda")
    return {name: each for name, each in COLUMNS.items() if flex or name != "speedup_by_flex"}


def line(row: Row, columns: Columns) -> str:
    """One row of the table; a * marks seconds that are scaled from sampled queries."""
    cells = []
    for name, (_, form) in columns.items():
        value = row[name] / 2**20 if name == "memory" and row[name] is not None else row[name]
        width = len(head(form))
        cells.append(f"{'-':>{width}s}" if value is None else form.format(value))
    return " ".join(cells) + (" *" if row["sampled"] else "")


def head(form: str) -> str:
    """Blanks as wide as a column."""
    return " " * int("".join(c for c in form.partition(":")[2].partition(".")[0] if c.isdigit()))


def machine(settings: Settings) -> dict[str, Any]:
    """Where the figures come from."""
    name = platform.processor() or platform.machine()
    if settings.device.startswith("cuda"):
        name = torch.cuda.get_device_name(settings.device)
    elif sys.platform.startswith("linux"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            (x.partition(":")[2].strip() for x in lines if x.startswith("model name")), name
        )
    return {
        "processor": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }


def main(settings: Settings) -> list[Row]:
    """Measure; print the table as it grows, and write rows and picture where asked."""
    where = machine(settings)
    print(
        f"{where['processor']}, {where['threads']} threads, torch {where['torch']}, load "
        f"{where['load']:.1f} before; groups {settings.group}, {settings.heads} heads, medians of "
        f"{settings.rounds} calls in turns"
    )
    shown = columns(settings)
    print(" ".join(f"{title:>{len(head(form))}s}" for title, form in shown.values()))
    rows = []
    for each in measure(settings):
        rows.append(each)
        print(line(each, shown), flush=True)
    if any(each["sampled"] for each in rows):
        print(f"* scaled from some {settings.dense_rows} of the queries")
    if settings.json is not None:
        write_record(settings.json, settings, machine=where, rows=rows)
    if settings.plot is not None:
        draw(rows, Path(settings.plot))
    return rows


def pyplot() -> Any:
    """matplotlib's plotting. ValueError where it is not installed."""
    try:
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise ValueError('--plot needs matplotlib: pip install "genkit[plot]"') from None


def draw(rows: list[Row], file: Path) -> None:
    """Speed-ups of the forward pass by tokens, a panel for each dtype and head dim."""
    plt = pyplot()
    rows = [each for each in rows if each["pass"] == "forward" and each["region"] != "full"]
    panels = sorted({(each["dtype"], each["head_dim"]) for each in rows})
    figure, axes = plt.subplots(1, max(1, len(panels)), squeeze=False, sharey=True, layout="tight")
    for axis, panel in zip(axes[0], panels, strict=False):
        here = [each for each in rows if (each["dtype"], each["head_dim"]) == panel]
        for i, region in enumerate(sorted({each["region"] for each in here})):
            of = [each for each in here if each["region"] == region]
            for backend in sorted({each["backend"] for each in of}):
                some = [each for each in of if each["backend"] == backend]
                tokens = [prod(_sizes(each["grid"])) for each in some]
                style = "-" if backend == "cpp" else "--"
                label = f"{region}, {backend}"
                speedups = [each["speedup"] for each in some]
                axis.loglog(tokens, speedups, style, marker="o", color=f"C{i}", label=label)
                axis.loglog(tokens, [each["bound"] for each in some], ":", color=f"C{i}")
        grids = {prod(_sizes(each["grid"])): each["grid"] for each in here}
        axis.set_xticks(list(grids), list(grids.values()))
        axis.set_xticks([], minor=True)
        axis.set(title=f"{panel[0]}, head dim {panel[1]}", xlabel="grid of tokens")
    axes[0][0].set_ylabel("times PyTorch's attention (dotted: FLOP bound)")
    axes[0][0].legend()
    figure.set_size_inches(5 * len(axes[0]), 4)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    plt.close(figure)
