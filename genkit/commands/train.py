"""Train a teacher on a data set: genkit train [METHOD] [options].

Every setting of METHOD, of the trainer and of the run is a flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from genkit.commands import running


@dataclass
class Train:
    method: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="METHOD")] = ""
    """The method's name; genkit list methods shows them. By default the data's own, edm for speech
    and flow_matching for the rest. Its settings are flags below."""
    data: str = "digits"
    """A data set; genkit list data shows them."""
    out: str | None = None
    """The run's folder, which must be new or empty; by default runs/METHOD."""
    start: str | None = None
    """An earlier teacher of such data, whose weights this one begins with: a shipped name, a
    folder, or a hub id."""
    config: str | None = None
    """A run's config.json to run again; flags given beside it win."""
    resume: bool = False
    """Go on with the unfinished run in the folder."""


def run(argv: list[str]) -> int:
    """Parse, train, and say where everything is."""
    return running.go(Train, argv, "train", quickstart=None)
