"""A finished run's checkpoints, combined into a pipeline of its own: genkit search lcsc RUN.

Coefficients are searched by `genkit.search.lcsc` on the distance measured during training, on one
fixed noise; what is reported is measured on noise that the search has not seen, beside the run's
own delivered student and its last checkpoint on the same. The run itself is left as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from genkit import api, hub
from genkit.denoisers.base import Denoiser
from genkit.denoisers.diffusers import find_network
from genkit.evaluation import aligned, progress, table
from genkit.guidance import Cond
from genkit.methods.base import Method
from genkit.runs import MEASURE_SEED, REFERENCE_SEED, Run, say
from genkit.sampling import Generators
from genkit.search.lcsc import Found, combine, search
from genkit.training.checkpoints import Checkpoints, write_text
from genkit.training.roles import Networks, load_flat
from genkit.training.watching import Measure, Sample

FRESH = 5_000_000  # seeds of noise and reference that neither training nor search has seen
FRESH_SEEDS = (0, 1)
FOLDER, RECORD = "lcsc", "lcsc.json"


def lcsc(
    run: str | os.PathLike[str], evaluations: int = 200, n: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Combine the checkpoints a finished run kept, and write RUN/lcsc/pipeline and lcsc.json.

    evaluations: combinations tried, each sampled `n` times by as many steps as the student takes.
    seed: of the search's own draws. Returns what lcsc.json holds. ValueError for a folder without
    a finished run, or a run that kept no checkpoints.
    """
    home = Path(run)
    if (home / FOLDER).exists():
        raise ValueError(f"{home / FOLDER} is there already; move it away to search anew")
    kept = Checkpoints(home / "checkpoints").kept_weights()
    if not kept:
        raise ValueError(f"{home} kept no checkpoints to combine; train with --keep-weights 8")
    opened = api.reopen(home, measure_n=n)
    student = Student(opened)
    states, steps = list(kept.values()), list(kept)
    measured = opened.measure_on(MEASURE_SEED, REFERENCE_SEED)
    found = _searched(student, states, measured, evaluations, seed)
    combined = combine(states, found.weights.tolist())
    told = {
        "method": opened.method.name,
        "steps": steps,
        "weights": found.weights.tolist(),
        "search": {"n": n, "seed": seed, "evaluations": evaluations, "distance": found.score},
        "began": dict(found.began),
        "fresh": _fresh(opened, student, home, states, combined),
    }
    parts = student.delivered(combined)
    opened.export(parts, home / FOLDER)
    _conclude(opened, home / FOLDER, told)
    return told


class Student:
    """A run's student, into which weights can be put."""

    def __init__(self, run: Run) -> None:
        self.method: Method = run.method
        teacher = None if run.teacher is None else run.teacher.denoiser
        seed = run.settings.trainer.seed
        self.networks = Networks(
            run.method,
            lambda: api.begun(run),
            teacher,
            seed,
            teachers=run.others,
        )
        self.networks.replay(run.method.stages())

    def holding(self, weights: Mapping[str, Tensor]) -> Sample:
        """What samples the student with these weights."""
        student = self.networks.exported("student")
        assert isinstance(student, Denoiser)
        load_flat(student, weights, "student")

        def sample(
            noise: Tensor, cond: Cond, generator: Generators = None, steps: int | None = None
        ) -> Tensor:
            return self.method.sample(student, noise, cond, steps, generator)

        return sample

    def delivered(self, weights: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        """The parts of the pipeline with these weights."""
        return self.method.deliver(self.networks.export_modules(weights))


def _searched(
    student: Student,
    states: Sequence[Mapping[str, Tensor]],
    measure: Measure,
    evaluations: int,
    seed: int,
) -> Found:
    bar = progress(range(evaluations), "combining")

    def told(best: float) -> None:
        bar.update()
        bar.set_postfix(distance=f"{best:.4g}")

    def score(weights: Tensor) -> float:
        return measure(student.holding(combine(states, weights.tolist())))["distance"]

    with bar:
        return search(score, len(states), evaluations, seed, told)


def _fresh(
    run: Run,
    student: Student,
    home: Path,
    states: Sequence[Mapping[str, Tensor]],
    combined: Mapping[str, Tensor],
) -> dict[str, list[float]]:
    """{who: distance on each fresh seed} of the combination and of what the run had without it."""
    checkpoints = Checkpoints(home / "checkpoints")
    whole = checkpoints.load()
    assert whole is not None, "a finished run has its last checkpoint"
    best = whole[1]["best"]
    delivered = None if best is None else checkpoints.load_best(best["step"])
    if delivered is None:
        prefix = "student.export/"
        averages = whole[0]["averages"]
        delivered = {
            f"student/{name.removeprefix(prefix)}": value
            for name, value in averages.items()
            if name.startswith(prefix)
        }
    who = {"combined": combined, "delivered": delivered, "last checkpoint": states[-1]}
    found: dict[str, list[float]] = {name: [] for name in who}
    for each in FRESH_SEEDS:
        measure = run.measure_on(FRESH + 2 * each, FRESH + 2 * each + 1)
        for name, weights in who.items():
            found[name].append(float(measure(student.holding(weights))["distance"]))
    return found


def _conclude(run: Run, out: Path, told: dict[str, Any]) -> None:
    """Evaluate the pipeline, put what was found on its card, write and print it."""
    pipeline = hub.Pipeline.from_pretrained(out / "pipeline")
    figures = run.evaluate(pipeline)
    rows = [["checkpoint of step", "coefficient"]]
    rows += [
        [str(step), f"{weight:.4f}"]
        for step, weight in zip(told["steps"], told["weights"], strict=True)
    ]
    fresh = [["distance on fresh noise", *(f"seed {seed}" for seed in FRESH_SEEDS)]]
    fresh += [[who, *(f"{value:.4g}" for value in row)] for who, row in told["fresh"].items()]
    card = "\n".join(
        [
            "## Combined",
            "Its weights are a linear combination of the run's checkpoints (arXiv 2404.02241):",
            *("```", aligned(rows), "", aligned(fresh), "```"),
            run.card(figures),
        ]
    )
    run.save(find_network(pipeline), out, card)
    write_text(out / RECORD, json.dumps(told | {"figures": figures}, indent=1) + "\n")
    print(aligned(rows), aligned(fresh), *([table(figures)] if figures else []), sep="\n\n")
    say(f"pipeline: {out / 'pipeline'}; coefficients: {out / RECORD}")
