"""comparison.html: one file without outside resources, in the manner of a run's report.

The table of methods, what failed and why, quality against the cost of sampling and of training,
samples on equal noise, every run, and the plans by which the budget was spent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from genkit.comparison.results import COLUMNS, FINISHED, Row
from genkit.training.checkpoints import write_text
from genkit.training.report import STYLE, embed, table

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 640, 320, 64, 150, 40, 12
LOGARITHMIC = 20.0  # the span from which an axis is
GAP, REACH = 17, 130  # between two names: downwards, across
NAMES = {
    "fd": "Frechet distance",
    "sw": "sliced Wasserstein distance",
    "distance": "distance to the teacher",
    "sampling_evaluations": "network evaluations for one sample",
    "latency": "seconds for one sample, alone",
    "training_evaluations": "network evaluations of training, pairs included",
    "training_seconds": "seconds of training, pairs included",
}
MORE_STYLE = """
.dot{fill:var(--paper);stroke:var(--line);stroke-width:2}.dot.best{fill:var(--line)}
.teacher{stroke:var(--soft)}.teacher.best{fill:var(--soft)}
.plots{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
"""


@dataclass(frozen=True)
class Point:
    """A named place in a plot, at the left and low the better; teacher: drawn apart."""

    name: str
    x: float
    y: float
    teacher: bool = False


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one is at least as good as in both, and better in one."""
    return [
        each
        for each in points
        if not any(
            other.x <= each.x and other.y <= each.y and (other.x < each.x or other.y < each.y)
            for other in points
        )
    ]


@dataclass(frozen=True)
class Axis:
    """Values on a line from `start` to `end` in pixels; logarithmic where they span 20-fold."""

    values: tuple[float, ...]
    start: float
    end: float

    @property
    def log(self) -> bool:
        """Whether it is logarithmic."""
        return min(self.values) > 0 and max(self.values) / min(self.values) > LOGARITHMIC

    def place(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = min(self.values), max(self.values), value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + (0.05 + 0.9 * share) * (self.end - self.start)


def apart(places: Sequence[tuple[float, float]]) -> list[float]:
    """Heights of the names at places (left, top), in the same order: pushed down until none lies
    on another."""
    placed: dict[int, float] = {}
    for i in sorted(range(len(places)), key=lambda i: places[i][1]):
        left, height = places[i]
        for j, other in sorted(placed.items(), key=lambda each: each[1]):
            if abs(places[j][0] - left) < REACH and abs(other - height) < GAP:
                height = other + GAP
        placed[i] = height
    return [placed[i] for i in range(len(places))]


def scatter(points: Sequence[Point], across: str, up: str, floor: float | None) -> str:
    """An inline SVG of named points, those of the front filled; floor: a line at that height."""
    x = Axis(tuple(p.x for p in points), LEFT, WIDTH - RIGHT)
    ys = tuple(p.y for p in points) + (() if floor is None else (floor,))
    y, best = Axis(ys, HEIGHT - BOTTOM, TOP), front(points)
    ground, parts = HEIGHT - BOTTOM, []
    places = [(x.place(p.x), y.place(p.y)) for p in points]
    for point, (left, top), name_at in zip(points, places, apart(places), strict=True):
        kind = "dot" + " teacher" * point.teacher + " best" * (point in best)
        parts.append(
            f'<circle class="{kind}" cx="{left:.1f}" cy="{top:.1f}" r="5"><title>'
            f"{escape(point.name)}: {point.x:.4g}, {point.y:.4g}</title></circle>"
            f'<text x="{left + 9:.1f}" y="{name_at + 5:.1f}">{escape(point.name)}</text>'
        )
    if floor is not None:
        top = y.place(floor)
        parts.append(
            f'<path d="M{LEFT} {top:.1f}H{WIDTH}" stroke="var(--soft)" stroke-dasharray="4 4"/>'
            f'<text x="{WIDTH}" y="{top - 4:.1f}" text-anchor="end">floor</text>'
        )
    for value in sorted({min(x.values), max(x.values)}):
        parts.append(
            f'<text x="{x.place(value):.1f}" y="{ground + 18}" text-anchor="middle">{value:.4g}'
            "</text>"
        )
    for value in sorted({min(y.values), max(y.values)}):
        top = y.place(value) + 5
        parts.append(f'<text x="{LEFT - 6}" y="{top:.1f}" text-anchor="end">{value:.3g}</text>')
    scale = " and ".join(name for name, axis in (("x", x), ("y", y)) if axis.log)
    told = f"{NAMES.get(up, up)} against {NAMES.get(across, across)}"
    told += f", {scale} logarithmic" if scale else ""
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}">'
        f'<path d="M{LEFT} {TOP}V{ground}H{WIDTH}" fill="none" stroke="var(--grid)"/>'
        f"{''.join(parts)}</svg><figcaption>{escape(told)}</figcaption></figure>"
    )


def plots(result: Mapping[str, Any]) -> str:
    """Quality against the cost of a sample, and against that of training."""
    by = result["ranked_by"]
    if by is None:
        return ""
    students = [row for row in result["summary"] if row["seeds"]]
    teachers = [
        {**row, "method": f"teacher, {row['steps']}", "teacher": True}
        for row in result["teacher_rows"]
    ]
    floor = (result["floor"] or {}).get(by)
    # One of the two costs of training is the same for all.
    spent = "training_seconds" if result["budget"].endswith("nfe") else "training_evaluations"
    drawn = []
    for across, rows in (
        ("sampling_evaluations", [*students, *teachers]),
        ("latency", [*students, *teachers]),
        (spent, students),
    ):
        points = [
            Point(row["method"], row[across], row[by], "teacher" in row)
            for row in rows
            if across in row and by in row
        ]
        if points:
            drawn.append(scatter(points, across, by, floor))
    return (
        "<h2>Quality and cost</h2><p class=soft>Filled: no other is at once no dearer and no worse."
        f"</p><div class=plots>{''.join(drawn)}</div>"
    )


def _columns(rows: Sequence[Row]) -> list[Row]:
    """The rows with the columns of a table alone, in their order."""
    shown = [name for name in ("method", *COLUMNS) if any(name in row for row in rows)]
    return [{name.replace("_", " "): row.get(name, "") for name in shown} for row in rows]


def _failures(rows: Sequence[Row]) -> str:
    told = "".join(
        f"<li><b>{escape(row['method'])}, seed {row['seed']}</b>: {escape(row['fate'])}"
        f"{': ' * bool(row['sentence'])}{escape(row['sentence'])}</li>"
        for row in rows
        if row["fate"] != FINISHED
    )
    return f"<h2>What did not finish</h2><ul>{told}</ul>" if told else ""


def _runs(rows: Sequence[Row]) -> str:
    links = " · ".join(
        f'<a href="{escape(row["folder"])}/report.html">{escape(row["folder"])}</a>'
        for row in rows
        if row["fate"] == FINISHED
    )
    each = [{**row, "method": f"{row['method']}, seed {row['seed']}"} for row in rows]
    return f"<h2>Every run</h2>{table(_columns(each))}<p>Reports: {links or 'none yet'}</p>"


def page(result: Mapping[str, Any], grid: Path | None) -> str:
    """The page of a comparison (`comparison.json`) and its sheet of samples."""
    title = f"{', '.join(result['methods'])} of {Path(str(result['teacher'])).name}"
    told = (
        f"{result['data']}; {result['budget']} of training for each method and seed, teacher pairs "
        f"included; {result['seeds']} training seed(s); n = {result['n']}; every method delivers "
        f"its last student; {result['threads']} threads, torch {result['torch']}."
    )
    floor = [result["floor"]] if result["floor"] else []
    rows = [*result["summary"], *result["teacher_rows"], *floor]
    pictures = "" if grid is None else "<h2>Samples on equal noise</h2>" + embed(grid)
    held = {name: result[name] for name in ("settings", "steps", "teacher_weights")}
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{MORE_STYLE}</style><h1>{escape(title)}</h1>"
        f"<p>{escape(told)}</p>{table(_columns(rows))}{_failures(result['rows'])}{plots(result)}"
        f"{pictures}{_runs(result['rows'])}<h2>Configuration</h2><details><summary>settings"
        f"</summary><pre>{escape(json.dumps(held, indent=2))}</pre></details></html>\n"
    )


def write_page(result: Mapping[str, Any], out: Path, grid: Path | None) -> Path:
    """Write comparison.html in `out`; returns its path."""
    file = out / "comparison.html"
    write_text(file, page(result, grid))
    return file
