"""What the runs of a comparison have shown: one row for each, read from their folders.

A row has the run's fate, the sentence that goes with it, what its training cost, and its figures.
Nothing is measured here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genkit.folders import read_index
from genkit.training.log import measured, read_log

Row = dict[str, Any]

FINISHED, COLLAPSED, FAILED, WAITING = "finished", "collapsed", "failed", "not run yet"

# Figures by which students are ranked, the first that the rows have; less is better.
QUALITIES = ("fd", "sw", "distance")
# Columns of the tables, where there are such figures.
SHOWN = (
    "fd",
    "sw",
    "distance",
    "mse_same_noise",
    "recall",
    "precision",
    "diversity",
    "follows",
    "class_accuracy",
    "nearest",
)
COSTS = ("train_steps", "pairs", "training_evaluations", "training_seconds")


def read_row(folder: Path, method: str, seed: int, ended: Mapping[str, str]) -> Row:
    """The row of a method's run with a training seed; ended: its fate, and the sentence of it."""
    row: Row = {"method": method, "seed": seed, "folder": folder.name, **ended}
    cost, config = folder / "cost.json", folder / "config.json"
    if cost.exists() and config.exists():
        spent, settings = json.loads(cost.read_text()), json.loads(config.read_text())["settings"]
        row |= {
            "train_steps": spent["steps"],
            "pairs": settings["pairs"] if spent["made"] else 0,
            "training_evaluations": spent["evaluations"],
            "training_seconds": spent["seconds"],
        }
    if ended["fate"] == FINISHED:
        row |= _figures(folder, method)
    return row


def _figures(folder: Path, method: str) -> Row:
    """The student's figures, means over the noise seeds; without any against real data, how far it
    is from its teacher."""
    steps = read_index(folder / "pipeline")["_genkit"]["steps"]
    found: Row = {"steps": steps, "sampling_evaluations": steps}
    file = folder / "metrics.json"
    if not file.exists():
        lines = measured(read_log(folder))
        return found | {k: v for k, v in (lines[-1] if lines else {}).items() if k in SHOWN}
    metrics = json.loads(file.read_text())
    mine = [row for row in metrics["rows"] if row["pipeline"] == f"{method} (student)"]
    found |= means(mine, [key for key in mine[0] if key not in ("pipeline", "steps", "seed")])
    shares: dict[str, list[float]] = {}
    for pair in metrics["comparisons"]:
        shares.setdefault(str(pair["against_steps"]), []).append(pair["fd_share"])
    return found | {"nearer_than_teacher": {k: sum(v) / len(v) for k, v in shares.items()}}


def means(rows: Sequence[Row], keys: Sequence[str]) -> Row:
    """The mean of every numeric figure that all rows have."""
    return {
        key: sum(row[key] for row in rows) / len(rows)
        for key in keys
        if rows and all(isinstance(row.get(key), (int, float)) for row in rows)
    }


def teacher_rows(folders: Sequence[Path], method_of: dict[str, str]) -> list[Row]:
    """One row for every number of steps (and guidance) at which the teacher was measured.

    folders: finished runs; method_of: {folder's name: its method}.
    """
    found: dict[tuple[str, int, float], list[Row]] = {}
    for folder in folders:
        file = folder / "metrics.json"
        if not file.exists():
            continue
        student, once = f"{method_of[folder.name]} (student)", set()
        for row in json.loads(file.read_text())["rows"]:
            key = row["pipeline"], row["steps"], row["guidance"]
            if row["pipeline"] != student and (key not in found or key in once):
                once.add(key)
                found.setdefault(key, []).append(row)
    rows = []
    for (label, steps, w), same in sorted(found.items(), key=lambda each: each[0][1:]):
        row = {"method": label, "steps": steps, "guidance": w}
        row["sampling_evaluations"] = steps if w == 1 else 2 * steps
        keys = [key for key in same[0] if key not in ("pipeline", "steps", "seed", "guidance")]
        rows.append(row | means(same, keys))
    return rows


def floor_row(folders: Sequence[Path]) -> Row | None:
    """Real data against real data, as the first run has it; None where no data is known."""
    for folder in folders:
        if (folder / "metrics.json").exists():
            return {"method": "floor: real data"} | json.loads(
                (folder / "metrics.json").read_text()
            )["floor"]
    return None


def summary(rows: Sequence[Row]) -> list[Row]:
    """A row for each method: means over its finished seeds, the spread (largest difference between
    two) of what it is ranked by, and what became of the others. The best first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["method"], []).append(row)
    told = []
    for method, group in groups.items():
        done = [row for row in group if row["fate"] == FINISHED]
        row: Row = {"method": method, "seeds": len(done)}
        ends = sorted({each["fate"] for each in group} - {FINISHED})
        row["fate"] = "; ".join([FINISHED] * bool(done) + ends)
        sentences = dict.fromkeys(each["sentence"] for each in group if each["sentence"])
        row["sentence"] = "; ".join(sentences)
        row |= means(done, list(done[0]) if done else [])
        row["seeds"] = len(done)
        row.pop("seed", None)
        by = quality(done)
        if len(done) > 1 and by:
            row["spread"] = max(each[by] for each in done) - min(each[by] for each in done)
        told.append(row)
    by = quality([row for row in told if row["seeds"]])
    return sorted(told, key=lambda row: row.get(by, float("inf")) if by else 0.0)


def quality(rows: Sequence[Row]) -> str | None:
    """The figure students are ranked by: the first of QUALITIES that every row has."""
    return next((key for key in QUALITIES if rows and all(key in row for row in rows)), None)


# Columns of a table of methods, where any of its rows has them.
COLUMNS = (
    "fate",
    "seeds",
    "sampling_evaluations",
    *SHOWN[:1],
    "spread",
    *SHOWN[1:],
    "latency",
    "seconds_per_sample",
    *COSTS,
)


def cell(value: Any) -> str:
    """A figure to four digits, a whole number whole; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"


def cells(told: Mapping[str, Any]) -> list[list[str]]:
    """A comparison as a table: its head, then methods, teacher and floor."""
    rows = [*told["summary"], *told["teacher_rows"], *([told["floor"]] if told["floor"] else [])]
    shown = [name for name in COLUMNS if any(name in row for row in rows)]
    lines = [[str(row["method"]), *(cell(row.get(name, "")) for name in shown)] for row in rows]
    return [["", *shown], *lines]


def section(told: Mapping[str, Any], file: str) -> str:
    """A comparison (`comparison.json`, which lies at `file`) as a section of a results page."""
    from genkit.benchmarks.page import markdown

    head, *lines = cells(told)
    failed = [[row["method"], row["sentence"]] for row in told["summary"] if row["sentence"]]
    text = (
        f"\n## {told['data']}, the teacher `{told['teacher']}`\n\nOne evaluation or as many as the "
        f"method is for; {told['budget']} of training for each, n = {told['n']}, "
        f"{told['seeds']} training seed(s), means; spread is the largest difference of two in what "
        f"is ranked by. Rows: {file}.\n\n"
    )
    text += markdown([name.replace("_", " ") for name in head], lines)
    return text + ("\n" + markdown(["not there", "why"], failed) if failed else "")
