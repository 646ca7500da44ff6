"""The tab of sounds, speech and music alike: what is to be heard, and a player for each lane."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from genkit_apps import panels
from genkit_apps.drawing import Shown, asking, connect, led_sliders, raced, shown_of, whole_seed
from genkit_apps.lanes import Asked, Lane, Pair
from genkit_apps.racing import Race, Worker


@dataclass(frozen=True)
class Field:
    """An argument of a pipeline's call that a person may give; it is there where the call takes it.

    make(gr, lane, default of the call): its component, whose value None, "" or 0 leaves it out.
    """

    name: str
    make: Callable[[Any, Lane, Any], Any]


FIELDS = (
    Field(
        "speaker",
        lambda gr, lane, _: gr.Dropdown(
            lane.pipeline.speakers, value=lane.pipeline.speakers[0], label="Speaker"
        ),
    ),
    Field("speed", lambda gr, lane, own: gr.Slider(0.5, 2, own, step=0.05, label="Speed")),
    Field(
        "instrument",
        lambda gr, lane, _: gr.Dropdown(
            ["", *lane.pipeline.instruments], value="", label="Lead, else what the prompt names"
        ),
    ),
    Field("bpm", lambda gr, lane, own: gr.Number(own, label="Beats per minute")),
    Field("key", lambda gr, lane, own: gr.Textbox(own, label="Key, such as A minor")),
    Field(
        "audio_end_in_s",
        lambda gr, lane, own: gr.Number(own, label="Seconds; 0 is its own length"),
    ),
)


def fields_of(lane: Lane) -> list[Field]:
    """The fields that a lane's call takes."""
    return [each for each in FIELDS if lane.takes(each.name)]


def tab(gr: Any, page: Any, pair: Pair, worker: Worker) -> None:
    """Build the tab where gradio is building, and connect it."""
    prompts = panels.examples(pair.student)
    verb = "Say it" if pair.student.takes("text") else "Play it"
    pressed = asking(gr, pair, verb, "With other noise")
    settings = _settings(gr, pair)
    *lanes, summary = shown_of(pair, Race(), Asked(prompts[0]))
    told = gr.HTML(summary)
    with gr.Row(equal_height=True):
        shown = [gr.HTML(each) for each in lanes]
    gr.HTML(panels.models(pair))
    name = "say" if pair.student.takes("text") else "play"
    connect(gr, answer(pair, worker), pressed, settings, [*shown, told], name)


def _settings(gr: Any, pair: Pair) -> list[Any]:
    """Seed, the steps and guidance of the lane that is led, then FIELDS."""
    taken = inspect.signature(type(pair.student.pipeline).__call__).parameters
    with gr.Row():
        more = [
            each.make(gr, pair.student, taken[each.name].default)
            for each in fields_of(pair.student)
        ]
    with gr.Accordion("Seed, steps, guidance", open=False), gr.Row():
        seed = gr.Number(0, label="Seed of the noise", precision=0, minimum=0)
        steps, guidance = led_sliders(gr, pair.led)
    return [seed, steps, guidance, *more]


def answer(pair: Pair, worker: Worker) -> Callable[..., Iterator[Shown]]:
    """What the page runs: the fields' values in, the panels of the lanes and the summary out."""
    names = [each.name for each in fields_of(pair.student)]

    def run(
        prompt: str | None,
        seed: float | None,
        steps: float | None,
        guidance: float | None,
        *values: Any,
    ) -> Iterator[Shown]:
        def read() -> Asked:
            return Asked(
                prompt or "",
                whole_seed(seed),
                steps=None if steps is None else int(steps),
                guidance=None if guidance is None else float(guidance),
                more={name: value for name, value in zip(names, values, strict=True) if value},
            )

        yield from raced(pair, worker, prompt, read)

    return run
