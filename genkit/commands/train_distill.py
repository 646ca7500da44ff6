"""Distil a teacher into a few-step student: genkit train-distill [METHOD] [options].

Without arguments it runs the embedded default: dmd2 of emoji-teacher into runs/quickstart.
Every setting of METHOD, of the trainer and of the run is a flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from genkit.commands import running


@dataclass
class Distill:
    method: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="METHOD")] = "dmd2"
    """The method's name; genkit list methods shows them. Its settings are flags below."""
    teacher: str = "emoji-teacher"
    """A shipped name (genkit list pipelines), a folder, or a hub id."""
    data: str | None = None
    """A data set (genkit list data); by default what the teacher was trained on."""
    student: str | None = None
    """An earlier student of this teacher to go on with: a shipped name, a folder, or a hub id."""
    teachers: tuple[str, ...] = ()
    """Further teachers, between commas, for a method that merges several, such as dmm."""
    out: str | None = None
    """The run's folder, which must be new or empty; by default runs/METHOD."""
    config: str | None = None
    """A run's config.json to run again; flags given beside it win."""
    resume: bool = False
    """Go on with the unfinished run in the folder."""


def run(argv: list[str]) -> int:
    """Parse, distil, and say where everything is."""
    return running.go(Distill, argv, "train-distill", quickstart="runs/quickstart")
