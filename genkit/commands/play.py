"""Play a world in the terminal: genkit play PIPELINE [options]; arrow keys or wasd act, q quits.

Frames are drawn in half blocks of 24-bit colour. While no key comes the sampler runs ahead on the
action it expects. With --actions nothing is read from the keyboard, so it runs anywhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from genkit.commands.flags import parse

KEYS = {
    "a": "l", "d": "r", "w": "u", "s": "d", " ": ".",
    "\x1b[D": "l", "\x1b[C": "r", "\x1b[A": "u", "\x1b[B": "d",
}  # fmt: skip
HOME, CLEAR, HIDE, SHOW, PLAIN = "\x1b[H", "\x1b[2J", "\x1b[?25l", "\x1b[?25h", "\x1b[0m"


@dataclass
class Play:
    pipeline: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PIPELINE")]
    """A shipped name (genkit list pipelines), a folder, or a hub id."""
    actions: str | None = None
    """Actions instead of keys, a letter a frame: . stay, l left, r right, u up, d down."""
    steps: int | None = None
    """Evaluations of the network a frame; by default the trained number."""
    seed: int = 0
    """Seed of the noise."""
    fps: float = 10.0
    """Frames per second at most."""
    out: str | None = None
    """A folder in which the clip that was played is written."""

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise ValueError(f"fps is {self.fps:g}; give more than 0")


def run(argv: list[str]) -> int:
    """Open the pipeline and play until q, or until the actions end."""
    asked = parse(Play, argv, "play")
    from genkit.data.world import read_actions
    from genkit.hub import Pipeline, hide_loading_bars
    from genkit.modalities import takes_actions

    given = None if asked.actions is None else read_actions(asked.actions)
    hide_loading_bars()
    pipeline = Pipeline.from_pretrained(asked.pipeline)
    if not takes_actions(pipeline):
        raise ValueError(f"{asked.pipeline} follows no actions; play one that was trained on them")
    pipeline.reset(asked.seed)
    frames = headless(pipeline, given, asked) if given else played(pipeline, asked)
    if asked.out is not None and frames:
        print(save(frames, Path(asked.out), asked.seed))
    return 0


def half_blocks(frame: Any) -> str:
    """A PIL image as lines of half blocks, two pixels high and one wide each."""
    width, height = frame.size
    pixels, lines = frame.convert("RGB").load(), []
    for top in range(0, height, 2):
        cells, last = [], None
        for x in range(width):
            above, below = pixels[x, top], pixels[x, min(top + 1, height - 1)]
            if (above, below) != last:
                colours = ";".join(map(str, (38, 2, *above, 48, 2, *below)))
                cells.append(f"\x1b[{colours}m")
                last = (above, below)
            cells.append("▀")
        lines.append("".join(cells) + PLAIN)
    return "\n".join(lines)


def headless(pipeline: Any, actions: list[int], asked: Play) -> list[Any]:
    """The frames of `actions`: each shown at a terminal, elsewhere the last, with the time."""
    live, frames, began = sys.stdout.isatty(), [], time.perf_counter()
    for action in actions:
        tick = time.perf_counter()
        frames.append(pipeline.step(action, asked.steps))
        if live:
            print((CLEAR if len(frames) == 1 else "") + HOME + half_blocks(frames[-1]), flush=True)
            time.sleep(max(0.0, 1 / asked.fps - (time.perf_counter() - tick)))
    seconds = time.perf_counter() - began
    if not live:
        print(half_blocks(frames[-1]))
    print(f"{len(frames)} frames in {seconds:.2f} s")
    return frames


def played(pipeline: Any, asked: Play) -> list[Any]:
    """The frames of what is typed; a key that is held or was last pressed acts until another."""
    from genkit.data.world import read_actions

    if not sys.stdin.isatty():
        raise ValueError("playing needs a terminal for its keys; give --actions, such as rruu..")
    frames: list[Any] = []
    with keyboard() as pressed:
        sys.stdout.write(HIDE + CLEAR)
        try:
            while (key := pressed()) != "q":
                tick = time.perf_counter()
                action = read_actions(KEYS.get(key, "."))[0]
                frames.append(pipeline.step(action, asked.steps))
                took = time.perf_counter() - tick
                line = f"{1000 * took:4.0f} ms  arrows or wasd act, q quits"
                sys.stdout.write(f"{HOME}{half_blocks(frames[-1])}\n{line}\x1b[K")
                sys.stdout.flush()
                if time.perf_counter() - tick < 0.5 / asked.fps:
                    pipeline.run_ahead(1, asked.steps)
                time.sleep(max(0.0, 1 / asked.fps - (time.perf_counter() - tick)))
        finally:
            sys.stdout.write(f"{PLAIN}{SHOW}\n")
    return frames


@contextmanager
def keyboard() -> Iterator[Any]:
    """A function that gives the last key pressed since it was asked, "" for none; the terminal is
    as it was afterwards."""
    try:
        import termios
        import tty
    except ImportError:
        raise ValueError("keys are read on Unix only; give --actions, such as rruu..") from None
    import os
    import select

    place = sys.stdin.fileno()
    before = termios.tcgetattr(place)

    def pressed() -> str:
        typed = ""
        while select.select([place], [], [], 0)[0]:
            typed += os.read(place, 64).decode(errors="ignore")
        found = [key for key in (*KEYS, "q") if key in typed]
        return max(found, key=typed.rfind, default="")

    try:
        tty.setcbreak(place)
        yield pressed
    finally:
        termios.tcsetattr(place, termios.TCSADRAIN, before)


def save(frames: list[Any], out: Path, seed: int) -> Path:
    """Write the clip into the folder `out`, beside what is there."""
    from genkit.modalities.film import NEEDED, has_encoder, write_clip

    out.mkdir(parents=True, exist_ok=True)
    if not has_encoder():
        print(f"genkit: a strip of frames is written; {NEEDED}", file=sys.stderr)
    number, suffix = 0, ".mp4" if has_encoder() else ".png"
    while (stem := out / f"play{seed}-{number:04d}").with_suffix(suffix).exists():
        number += 1
    return write_clip(frames, stem)
