"""Measure a pipeline against data and its teacher: genkit evaluate PIPELINE [options].

Students run at their trained number of steps or at --student-steps, the teacher at every number in
--steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from genkit.commands.flags import parse


@dataclass
class Evaluate:
    pipeline: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PIPELINE")]
    """A shipped name (genkit list pipelines), a folder, or a hub id."""
    against: str | None = None
    """Its teacher; by default the one its record names, if that is here."""
    steps: tuple[int, ...] = (1, 2, 4, 50)
    """Numbers of steps the teacher takes."""
    student_steps: tuple[int, ...] = ()
    """Numbers of steps the student takes, where its method trains one for any; by default its
    own."""
    beside: tuple[str, ...] = ()
    """Further pipelines in the same table, such as a regression on the same pairs."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 2000
    """Samples per seed."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the noise."""
    data: str | None = None
    """The data set measured against; by default the one it was trained on."""
    json: str | None = None
    """A file for the figures."""
    bootstraps: int = 50
    """Rounds of the paired bootstrap."""
    orders: tuple[int, ...] = (1,)
    """Orders of the teacher's solver: 1 is its own, 2 and 3 are Adams-Bashforth."""
    guidance: tuple[float, ...] = ()
    """Guidance scales of the teacher, or of a pipeline that has none; by default its own."""
    split: str = "test"
    """The data's split: test for figures, validation (where there is one) to choose by."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """bf16 runs all networks in bfloat16 where that is safe: a quick look at a transformer."""


def run(argv: list[str]) -> int:
    """Evaluate and print the table."""
    asked = parse(Evaluate, argv, "evaluate")
    from genkit.evaluation import evaluate
    from genkit.hub import hide_loading_bars

    hide_loading_bars()
    evaluate(**vars(asked))
    return 0
