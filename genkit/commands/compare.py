"""Compare methods on one teacher under one budget: genkit compare --methods a,b,c [options].

Each method and seed gets the same time, or the same network evaluations, for training and teacher
pairs together, then the same evaluation; comparison.html in the folder shows them side by side.
The same command goes on where it was stopped; methods and seeds can be added to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from genkit.commands.flags import parse


@dataclass
class Compare:
    methods: tuple[str, ...] = ("dmd2", "reflow", "consistency")
    """Names of methods, between commas (genkit list methods shows them); all: all that distil."""
    teacher: str = "digits-teacher"
    """A shipped name (genkit list pipelines), a folder, or a hub id."""
    budget: str = "10m"
    """Of each method and seed: a time (30s, 10m, 2h) on a machine that does nothing else, or
    network evaluations (200k-nfe, 5M-nfe)."""
    seeds: int = 1
    """Training seeds of each method, 0 and on."""
    data: str | None = None
    """A data set (genkit list data); by default what the teacher was trained on."""
    out: str = "runs/compare"
    """The comparison's folder, new, empty, or this very comparison's."""
    steps: tuple[int, ...] = ()
    """Numbers of steps at which the teacher stands beside; by default 1, 4 and its own."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """Samples of the evaluation."""
    jobs: int = 1
    """Runs at a time, of one thread each where they are several; for budgets of evaluations."""
    set: tuple[str, ...] = ()
    """Settings over the methods' own, for all that have them or for one: batch_size=64,dmd2.lr=1e-4
    """


def run(argv: list[str]) -> int:
    """Compare, and print the table."""
    asked = vars(parse(Compare, argv, "compare"))
    settings = read_settings(asked.pop("set"))
    from genkit.comparison.compare import compare
    from genkit.hub import hide_loading_bars

    hide_loading_bars()
    compare(**asked, settings=settings)
    return 0


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """{"name": value} of words name=value, values as in JSON, else as they are written."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise ValueError(f"--set takes name=value, not {word!r}, such as batch_size=64")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
