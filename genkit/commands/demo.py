"""Open a page where a teacher and its student do the same: genkit demo [options].

Pictures, speech and music of one prompt, teacher beside student, and worlds that are played: a tab
for each student. The page is served on this machine and needs no network. It needs Gradio: pip
install "genkit[app]".
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from genkit.commands.flags import parse

# The students that are shown when none is named, those of them that are shipped.
STUDENTS = ("emoji-onestep", "speech-onestep", "world-onestep", "music-fewstep")
GRADIO = 6  # the oldest major version that the page is written for


@dataclass
class Demo:
    student: tuple[str, ...] = ()
    """Shipped names (genkit list pipelines), folders, or hub ids, with commas between them; by
    default the shipped ones."""
    teacher: str | None = None
    """Likewise, of one student (the first shipped one, if none is named); by default the teacher
    that it was distilled from."""
    port: int | None = None
    """Port of the page; by default the first free one from 7860."""
    share: bool = False
    """Also make a public address for a week, through Gradio's servers (needs the network)."""
    browser: bool = True
    """Open the page in the browser."""


def run(argv: list[str]) -> int:
    """Serve the page until interrupted."""
    asked = parse(Demo, argv, "demo")
    check_gradio()
    from genkit.hub import hide_loading_bars, shipped
    from genkit_apps.demo import serve

    hide_loading_bars()
    there = tuple(name for name in STUDENTS if name in shipped())
    serve(
        asked.student or (there[:1] if asked.teacher else there),
        asked.teacher,
        asked.port,
        asked.share,
        asked.browser,
    )
    return 0


def check_gradio() -> None:
    """ValueError where Gradio is missing or too old, with what to type."""
    try:
        version = importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError('the page needs Gradio: pip install "genkit[app]"') from None
    if int(version.partition(".")[0]) < GRADIO:
        raise ValueError(
            f"the page needs Gradio {GRADIO} or later, this is {version}: pip install -U "
            '"genkit[app]"'
        )
