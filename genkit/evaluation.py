"""Evaluation: a pipeline against real data, and against its teacher on the same noise.

What a table always shows: n, seeds, the floor (real against real at the same n), and, for every
teacher row, the share of paired bootstraps in which the student is nearer to the data.
"""

from __future__ import annotations

import json as json_format
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genkit.contenders import Contender, contenders, opponents, samples, takes_any_steps
from genkit.hub import trained
from genkit.modalities import Modality
from genkit.training.config import check_precision

if TYPE_CHECKING:
    from genkit.metrics import Reference

# Columns of the table and figures compared between seeds, where the data set's rows hold them.
OWN = ("follows", "obeys", "edges", "kurtosis", "word_error", "mcd", "gv_ratio", "length_error")
OWN += ("key", "tempo", "chords")
# Of samples that go on from a true beginning, and of one long one: at its end and its beginning.
FURTHER = ("continued_obeys", "lasting_obeys_last", "lasting_drift_first", "lasting_drift_last")
SHOWN = (*OWN, *FURTHER, "fd", "sw", "mmd", "recall", "precision", "seconds_per_sample")
SPREAD = (*OWN, "fd", "sw", "mmd", "kid", "recall")


def evaluate(
    pipeline: Any,
    against: Any = None,
    steps: Sequence[int] = (1, 2, 4, 50),
    n: int = 2000,
    seeds: Sequence[int] = (0, 1),
    json: str | Path | None = None,
    data: str | None = None,
    bootstraps: int = 50,
    orders: Sequence[int] = (1,),
    guidance: Sequence[float] = (),
    split: str = "test",
    mixed_precision: str = "no",
    quiet: bool = False,
    student_steps: Sequence[int] = (),
    beside: Sequence[Any] = (),
) -> dict[str, Any]:
    """Figures of a pipeline, of its teacher at `steps`, and of the two compared.

    pipeline, against: a pipeline, a folder, a shipped name or a hub id; against=None is the teacher
    that the pipeline's own record names, if it is shipped or its folder is there. n: samples per
    seed. data: the data set measured against, by default the one in the record. json: write the
    result there too. orders: of the teacher's solver; 1 is its own, 2 and 3 are Adams-Bashforth on
    the velocity, which at equal steps is the harder opponent. guidance: scales of whatever is no
    student, by default its own. split: of the data set, whose samples (and prompts, where it has
    such) are measured against; settings are chosen on "validation". mixed_precision: "bf16" runs
    all networks in bfloat16. student_steps: of the student, where its method trains one for any
    number; by default its own. beside: further pipelines of the same data, such as a regression on
    the same pairs, which are measured likewise, a student of one number of steps at that.

    Returns {"floor": {...}, "rows": [{"pipeline", "steps", "seed", "n", "fd", "sw", "mmd",
    "recall", "precision", "seconds_per_sample", ...}], "comparisons": [...], "spread": [...]}; what
    else a row holds is the data set's own: "class_accuracy" of classes, "follows" of captions.
    ValueError for steps, n or seeds that cannot be, and for what cannot be opened.
    """
    _check(steps, n, seeds, bootstraps, orders)
    if min(student_steps, default=1) < 1:
        raise ValueError(f"student_steps are {list(student_steps)}; give numbers of at least 1")
    check_precision("mixed_precision", mixed_precision)
    label, student = _open(pipeline)
    modality, reference = _measured(student, data, label, split)
    ours = contenders(label, student, steps, guidance, student_steps)
    for further, opened in map(_open, beside):
        numbers = student_steps if takes_any_steps(opened) else ()
        ours += contenders(further, opened, steps, guidance, numbers)
    against = _recorded_teacher(student) if against is None else against
    theirs = []
    if against is not None:
        name, teacher = _open(against)
        theirs = opponents(name, teacher, steps, orders, guidance)
    ours, theirs = (
        [replace(who, precision=mixed_precision) for who in side] for side in (ours, theirs)
    )
    result = figures(ours, theirs, modality, reference, n, seeds, bootstraps, quiet)
    if json is not None:
        Path(json).parent.mkdir(parents=True, exist_ok=True)
        Path(json).write_text(json_format.dumps(result, indent=1) + "\n", encoding="utf-8")
    if not quiet:
        print(table(result))
    return result


def figures(
    ours: Sequence[Contender],
    theirs: Sequence[Contender],
    modality: Modality,
    reference: Reference,
    n: int,
    seeds: Sequence[int],
    bootstraps: int = 50,
    quiet: bool = True,
) -> dict[str, Any]:
    """`evaluate` for pipelines that are open already."""
    from genkit.metrics import Seen, floor, measure

    rows, drawn = [], {}
    asked = modality.asked(n)
    for who, seed in progress(
        [(w, s) for w in (*theirs, *ours) for s in seeds], "evaluating", quiet
    ):
        x, seconds = samples(who, modality, seed, n)
        x = modality.decode(x)
        seen = Seen.of(x, reference.net)
        drawn[who.label, who.steps, seed] = x, seen
        rows.append(
            {"pipeline": who.label, "steps": who.steps, "seed": seed}
            | measure(x, asked, reference, features=seen.features)
            | {"seconds_per_sample": seconds, "guidance": who.guidance}
            | (modality.further(who.pipeline, who.steps, seed) if seed == seeds[0] else {})
        )
    comparisons = [
        _compared(mine, other, seed, drawn, reference, bootstraps)
        for mine, other, seed in progress(
            [
                (m, o, s)
                for m in ours
                for o in theirs
                for s in seeds
                if m.pipeline is not o.pipeline
            ],
            "evaluating",
            quiet,
        )
    ]
    return {
        "data": modality.name,
        "n": n,
        "seeds": list(seeds),
        "floor": floor(reference, n),
        "rows": rows,
        "spread": _spread(rows) if len(seeds) > 1 else [],
        "comparisons": comparisons,
    }


def _compared(
    mine: Contender, other: Contender, seed: int, drawn: dict, reference: Reference, rounds: int
) -> dict[str, Any]:
    """Student against teacher: shares of bootstraps in which the student is nearer to the data,
    and their distance on the same noise."""
    from genkit.metrics import compare
    from genkit.metrics.paired import mse_same_noise

    (a, a_seen), (b, b_seen) = (drawn[who.label, who.steps, seed] for who in (mine, other))
    pairs = compare(a_seen, b_seen, reference, rounds, seed)
    where = {"pipeline": mine.label, "steps": mine.steps, "seed": seed, "n": len(a)}
    there = {"against": other.label, "against_steps": other.steps, "bootstraps": rounds}
    told = {
        f"{metric}_{part}": value
        for metric, paired in pairs.items()
        for part, value in paired._asdict().items()
    }
    return where | there | told | {"mse_same_noise": float(mse_same_noise(a, b).mean())}


def _spread(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per pipeline and steps: mean over seeds and largest difference between two seeds."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["pipeline"], row["steps"]), []).append(row)
    found = []
    for (label, steps), group in groups.items():
        told: dict[str, Any] = {"pipeline": label, "steps": steps, "seeds": len(group)}
        for metric in (each for each in SPREAD if each in group[0]):
            values = [row[metric] for row in group]
            told[f"{metric}_mean"] = sum(values) / len(values)
            told[f"{metric}_spread"] = max(values) - min(values)
        found.append(told)
    return found


def table(result: dict[str, Any]) -> str:
    """The result for a person: floor and rows, then the comparisons."""
    seeds = ", ".join(str(seed) for seed in result["seeds"])
    shown = [name for name in SHOWN if any(name in row for row in result["rows"])]
    head = ["", "steps", "seed", *shown]
    lines = [head, ["floor: real data", "", "", *_cells(result["floor"], shown)]]
    lines += [
        [row["pipeline"], str(row["steps"]), str(row["seed"]), *_cells(row, shown)]
        for row in result["rows"]
    ]
    parts = [f"{result['data']}, n = {result['n']} per seed, seeds {seeds}", aligned(lines)]
    if result["comparisons"]:
        head = ["student nearer to the data than", "steps", "seed", "fd", "sw", "mse, same noise"]
        lines = [head] + [
            [
                row["against"],
                str(row["against_steps"]),
                str(row["seed"]),
                f"{row['fd_share']:.0%}",
                f"{row['sw_share']:.0%}",
                f"{row['mse_same_noise']:.4f}",
            ]
            for row in result["comparisons"]
        ]
        rounds = result["comparisons"][0]["bootstraps"]
        parts += [f"share of {rounds} paired bootstraps", aligned(lines)]
    return "\n\n".join(parts)


def _cells(row: dict[str, Any], shown: Sequence[str]) -> list[str]:
    return [f"{row[name]:.4g}" if name in row else "" for name in shown]


def aligned(lines: list[list[str]]) -> str:
    """Rows of cells as columns of text, the first one to the left."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _open(pipeline: Any) -> tuple[str, Any]:
    """(what a table calls it, the pipeline)."""
    from genkit.hub import Pipeline

    if isinstance(pipeline, str | os.PathLike):
        return short_name(pipeline), Pipeline.from_pretrained(pipeline)
    facts = trained(pipeline)
    return facts.get("method") or type(pipeline).__name__, pipeline


def short_name(pipeline: str | os.PathLike[str]) -> str:
    """What a table calls a pipeline by its name or folder; a run's bears the name of the run."""
    path = Path(pipeline)
    return path.parent.name if path.name == "pipeline" else path.name


def _recorded_teacher(pipeline: Any) -> str | None:
    from genkit.hub import shipped

    teacher = trained(pipeline).get("teacher", "")
    return teacher if teacher in shipped() or (teacher and Path(teacher).is_dir()) else None


def _measured(
    pipeline: Any, data: str | None, label: str, split: str
) -> tuple[Modality, Reference]:
    """What is asked of the samples, and what they are measured against."""
    from genkit.data import load
    from genkit.denoisers.diffusers import as_denoiser
    from genkit.modalities import modality

    name = data or trained(pipeline).get("data")
    if name is None:
        raise ValueError(f"{label} does not say which data it was trained on; name it with --data")
    # As the pipeline reads prompts, and decodes latents where it has such.
    kind = modality(load(name, split), as_denoiser(pipeline))
    return kind, kind.reference(split)


def _check(
    steps: Sequence[int], n: int, seeds: Sequence[int], bootstraps: int, orders: Sequence[int]
) -> None:
    if not steps or min(steps) < 1:
        raise ValueError(f"steps are {list(steps)}; give numbers of at least 1, such as 1,2,4,50")
    if n < 6:
        raise ValueError(f"n is {n}; give at least 6 samples, 2000 for figures to be quoted")
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds are {list(seeds)}; give different ones, such as 0,1")
    if bootstraps < 1:
        raise ValueError(f"bootstraps is {bootstraps}; give at least 1")
    if not orders or not set(orders) <= {1, 2, 3}:
        raise ValueError(f"orders are {list(orders)}; choose of 1, 2 and 3")


def progress(items: Sequence[Any], what: str, quiet: bool = False) -> Any:
    """A bar on anything that lasts more than two seconds."""
    from tqdm import tqdm

    return tqdm(items, desc=what, delay=2, leave=False, disable=quiet)
