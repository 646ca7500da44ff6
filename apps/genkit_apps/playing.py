"""The tab of worlds: frames as they come, led by buttons or keys, and the clip as a file.

There is one world on a page: whoever looks at it sees, and steers, the same.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genkit_apps import panels
from genkit_apps.lanes import Lane, Pair
from genkit_apps.racing import Worker

FPS = 12.0  # frames per second at most
MOST = 3000  # frames of a game
KEPT = 600  # of which the last ones can be saved
STEADY = 20  # frames that the rate shown is of
# Keys of the page and the buttons they press; letting go is to stay.
KEYS = {"ArrowLeft": "left", "ArrowRight": "right", "ArrowUp": "up", "ArrowDown": "down"}
LISTEN = """() => {
  const keys = %s;
  const press = (name) => document.querySelector(`#genkit-${name} button, button#genkit-${name}`);
  const typing = (event) => /INPUT|TEXTAREA/.test(event.target.tagName);
  let down = null;
  document.addEventListener("keydown", (event) => {
    const button = keys[event.key] && press(keys[event.key]);
    if (!button || !button.offsetParent || typing(event)) return;
    event.preventDefault();
    if (down !== event.key) { down = event.key; button.click(); }
  });
  document.addEventListener("keyup", (event) => {
    if (down !== event.key) return;
    down = null;
    press("stay")?.click();
  });
}"""


@dataclass(frozen=True)
class Seen:
    """A frame as it is shown. seconds: that it took; rate: frames per second of the last ones."""

    image: Any
    number: int
    seconds: float
    rate: float


class Game:
    """A world that is played on the worker's thread, by whichever lane is asked."""

    def __init__(self, pair: Pair, worker: Worker, fps: float = FPS) -> None:
        self.pair, self.worker, self.fps = pair, worker, fps
        self.action = 0
        self.kept: deque[Any] = deque(maxlen=KEPT)
        self._turn = 0
        self._lock = threading.Lock()

    def press(self, action: int) -> None:
        """What leads to the next frames, until another is pressed."""
        self.action = action

    def stop(self) -> None:
        """End the game that is played; its clip can still be saved."""
        with self._lock:
            self._turn += 1

    def play(self, lane: Lane, seed: int, most: int = MOST) -> Iterator[Seen]:
        """A new game by `lane`, frame by frame, not faster than `fps`; one before it ends. While
        there is time, frames are drawn ahead."""
        pipeline = lane.pipeline
        with self._lock:
            self._turn += 1
            turn = self._turn
        self.action = 0
        self.kept.clear()
        self.worker.ask(lambda: pipeline.reset(seed))
        ticks: deque[float] = deque(maxlen=STEADY)
        for number in range(most):
            begin = time.perf_counter()
            action = self.action
            image = self.worker.ask(lambda action=action: pipeline.step(action))
            spent = time.perf_counter() - begin
            if turn != self._turn:
                return
            self.kept.append(image)
            ticks.append(begin)
            lasted = begin - ticks[0]
            yield Seen(image, number + 1, spent, (len(ticks) - 1) / lasted if lasted else 0.0)
            if time.perf_counter() - begin < 0.5 / self.fps:
                self.worker.ask(lambda: pipeline.run_ahead(1))
            time.sleep(max(0.0, 1 / self.fps - (time.perf_counter() - begin)))

    def save(self) -> str:
        """The last frames as a new file, mp4 where an encoder is installed, else a strip; its path.
        ValueError where nothing was played."""
        from genkit.modalities.film import write_clip

        if not self.kept:
            raise ValueError("play first; there is no clip yet")
        folder = Path(tempfile.mkdtemp(prefix="genkit-"))
        return str(write_clip(list(self.kept), folder / "clip"))


def action_names(lane: Lane) -> list[str]:
    """What the actions are called: as in the river world, else by number."""
    from genkit.data.river import ACTIONS

    known = int(lane.pipeline.network.config["num_actions"])
    return list(ACTIONS) if known == len(ACTIONS) else [str(i) for i in range(known)]


def shown(lane: Lane, seen: Seen | None, error: str = "") -> str:
    """A frame and its times as HTML."""
    if error:
        return f'<div class="genkit-note">{panels.escape(panels.sentence(error))}</div>'
    if seen is None:
        return '<div class="genkit-world"><p>Press Play, then steer with the arrow keys.</p></div>'
    source = panels.data_uri(seen.image, True)
    could = f"could be {1 / seen.seconds:.0f}" if seen.seconds > 0 else "at once"
    said = (
        f"{panels.escape(lane.name)}, frame {seen.number}: {panels.clock(seen.seconds)} for it, "
        f"{seen.rate:.1f} frames per second shown ({could})"
    )
    return f'<div class="genkit-world"><img alt="the world" src="{source}"><p>{said}</p></div>'


def answer(game: Game, who: str | None, seed: float | None, most: int = MOST) -> Iterator[str]:
    """What the page runs: who plays and the seed in, the frames as HTML out."""
    from genkit_apps.drawing import whole_seed

    lane = next((each for each in game.pair.lanes if each.role == who), game.pair.student)
    try:
        for seen in game.play(lane, whole_seed(seed), most):
            yield shown(lane, seen)
    except ValueError as error:
        yield shown(lane, None, " ".join(str(error).split()))


def tab(gr: Any, page: Any, pair: Pair, worker: Worker) -> None:
    """Build the tab where gradio is building, and connect it."""
    game = Game(pair, worker)
    private = {"api_visibility": "private"}
    with gr.Row():
        go = gr.Button("Play", variant="primary", min_width=110)
        halt = gr.Button("Stop", min_width=110)
        roles = [lane.role for lane in reversed(pair.lanes)]
        who = gr.Radio(roles, value="student", label="Drawn by", visible=len(roles) > 1)
        seed = gr.Number(0, label="Seed of the noise", precision=0, minimum=0)
    screen = gr.HTML(shown(pair.student, None))
    with gr.Row():
        for number, name in enumerate(action_names(pair.student)):
            button = gr.Button(name.title(), elem_id=f"genkit-{name}")
            press = lambda number=number: game.press(number)  # noqa: E731
            button.click(press, None, None, queue=False, **private)
    with gr.Row():
        keep = gr.Button("Save the clip")
        file = gr.File(label="Clip", interactive=False, height=100)
    note = gr.HTML()
    gr.HTML(panels.models(pair))

    def save() -> tuple[Any, str]:
        try:
            return game.save(), ""
        except ValueError as error:
            return None, shown(pair.student, None, str(error))

    def run(*given: Any) -> Iterator[str]:
        yield from answer(game, *given)

    go.click(
        run,
        [who, seed],
        screen,
        show_progress="hidden",
        concurrency_limit=2,
        **private,
    )
    halt.click(game.stop, None, None, queue=False, **private)
    keep.click(save, None, [file, note], queue=False, **private)
    page.load(None, None, None, js=LISTEN % json.dumps(KEYS), **private)
