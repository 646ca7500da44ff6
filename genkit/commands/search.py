"""Search without gradients: genkit search lcsc RUN.

lcsc combines the checkpoints that a finished run kept (--keep-weights 8) into a better student, in
RUN/lcsc/pipeline, with the coefficients in RUN/lcsc/lcsc.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from genkit.commands.flags import parse


@dataclass
class Lcsc:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a finished run."""
    evaluations: int = 200
    """Combinations that are tried."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """Samples of each, on whose distance to the teacher's (or to data) it is judged."""
    seed: int = 0
    """Seed of the search's own draws."""


SEARCHES = {"lcsc": Lcsc}


def run(argv: list[str]) -> int:
    """Search, and print what was found."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: genkit search {'|'.join(SEARCHES)} RUN [options]\n\n{__doc__}")
        return 0
    if argv[0] not in SEARCHES:
        from genkit.catalogue import unknown

        raise unknown("search", argv[0], SEARCHES)
    asked = parse(SEARCHES[argv[0]], argv[1:], f"search {argv[0]}")
    from genkit.combination import lcsc
    from genkit.hub import hide_loading_bars

    hide_loading_bars()
    lcsc(**vars(asked))
    return 0
