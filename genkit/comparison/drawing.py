"""The pictures and the times of a comparison: samples on equal noise, and how long one takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genkit import hub
from genkit.benchmarks.latency import timed
from genkit.comparison.results import Row
from genkit.contenders import Contender, samples
from genkit.rng import sample_generators

if TYPE_CHECKING:
    from genkit.comparison.compare import Comparison

SEED, ROUNDS = 0, 5


def told(who: str, steps: int) -> str:
    """What a row of samples is called."""
    return f"{who}, {steps} step" + "s" * (steps > 1)


def contenders(asked: Comparison, folders: Mapping[str, str]) -> dict[str, Contender]:
    """The teacher at every number of steps, then every method's student: {label: contender}.

    folders: {method: the name of its run's folder}.
    """
    found: dict[str, Contender] = {}
    how = asked.guidance, asked.precision
    for steps in sorted(asked.steps, reverse=True):
        label = told("teacher", steps)
        found[label] = Contender(label, asked.loaded.pipeline, steps, *how)
    for method in (name for name in asked.methods if name in folders):
        pipeline = hub.Pipeline.from_pretrained(asked.out / folders[method] / "pipeline")
        facts = hub.trained(pipeline)
        found[method] = Contender(
            method, pipeline, facts["steps"], facts.get("guidance", 1.0), asked.precision
        )
    return found


def drawn(asked: Comparison, folders: Mapping[str, str]) -> Path:
    """A sheet with a row of samples for each of them, column by column from one noise."""
    kind, rows = asked.modality, {}
    # The evaluation's own samples, which are on the disk; where there was none, a few.
    n = asked.n if kind.has_reference() else kind.preview_n
    for label, who in contenders(asked, folders).items():
        x, _ = samples(who, kind, SEED, n)
        rows[told(label, who.steps) if label in folders else label] = x[: kind.preview_n]
    return kind.render(rows, asked.out / "grid")


def latencies(
    asked: Comparison,
    folders: Mapping[str, str],
    students: Sequence[Row],
    teachers: Sequence[Row],
) -> None:
    """Put into the rows the seconds that one sample takes, at batch 1: medians of calls in turns,
    so that a busy machine slows all alike."""
    kind, calls = asked.modality, {}
    for label, who in contenders(asked, folders).items() if folders else ():
        who.pipeline.set_progress_bar_config(disable=True)

        def call(who: Contender = who) -> None:
            kind.generate(
                who.pipeline, kind.asked(1), sample_generators(SEED, 1), who.steps, who.guidance
            )

        calls[label] = call
    seconds = timed(calls, ROUNDS) if calls else {}
    for row in students:
        if row["method"] in seconds:
            row["latency"] = seconds[row["method"]]
    for row in teachers:
        label = told("teacher", row["steps"])
        if label in seconds and row["guidance"] == asked.guidance:
            row["latency"] = seconds[label]
