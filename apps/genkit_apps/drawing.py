"""The tab of pictures: a prompt, the teacher at its steps beside the student at one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from genkit_apps import panels
from genkit_apps.lanes import Asked, Lane, Pair
from genkit_apps.racing import Race, Worker, race

PICTURES = 8  # per prompt, at most
Shown = tuple[str, ...]


def tab(gr: Any, page: Any, pair: Pair, worker: Worker) -> None:
    """Build the tab where gradio is building, and connect it."""
    prompts = panels.examples(pair.student)
    pressed = asking(gr, pair, "Draw", "Draw another")
    settings = _settings(gr, pair)
    *lanes, summary = shown_of(pair, Race(), Asked(prompts[0]))
    told = gr.HTML(summary)
    with gr.Row(equal_height=True):
        shown = [gr.HTML(each) for each in lanes]
    gr.HTML(panels.models(pair))
    run = answer(pair, worker)
    connect(gr, run, pressed, settings, [*shown, told], "race", page if pair.light else None)


def asking(gr: Any, pair: Pair, verb: str, other: str) -> tuple[Any, Any, Any, Any, list[Any]]:
    """The field of the prompt, the buttons that start and stop, and the examples."""
    prompts = panels.examples(pair.student)
    with gr.Row(equal_height=True):
        prompt = gr.Textbox(
            prompts[0],
            show_label=False,
            container=False,
            autofocus=True,
            scale=6,
            placeholder=panels.hint(pair.student),
        )
        go = gr.Button(verb, variant="primary", scale=1, min_width=110)
        again = gr.Button(other, scale=1, min_width=130)
        stop = gr.Button("Stop", scale=1, min_width=90, visible=not pair.light)
    with gr.Row(elem_classes="genkit-chips"):
        chips = [gr.Button(each, size="sm") for each in prompts]
    return prompt, go, again, stop, chips


def answer(pair: Pair, worker: Worker) -> Callable[..., Iterator[Shown]]:
    """What the page runs: the fields' values in, the panels of the lanes and the summary out."""

    def run(
        prompt: str | None,
        seed: float | None,
        n: float | None,
        steps: float | None,
        guidance: float | None,
        negative: str | None,
    ) -> Iterator[Shown]:
        def read() -> Asked:
            return _read(pair, prompt, seed, n, steps, guidance, negative)

        yield from raced(pair, worker, prompt, read)

    return run


def raced(
    pair: Pair, worker: Worker, prompt: str | None, read: Callable[[], Asked]
) -> Iterator[Shown]:
    """What is shown of a race for what `read` asks for; a ValueError of either, in one line."""
    seen, asked = Race(), Asked(prompt or "")
    try:
        asked = read()
        yield shown_of(pair, seen, asked)
        for seen in race(pair, asked, worker):
            yield shown_of(pair, seen, asked)
    except ValueError as error:
        yield shown_of(pair, seen, asked, " ".join(str(error).split()))


def _read(
    pair: Pair,
    prompt: str | None,
    seed: float | None,
    n: float | None,
    steps: float | None,
    guidance: float | None,
    negative: str | None,
) -> Asked:
    """The fields' values as what they ask for; an empty field, None, is what it was trained with.

    ValueError for a seed that is none, or a number of pictures.
    """
    if n is None or not 1 <= n <= PICTURES:
        raise ValueError(f"give a number of pictures from 1 to {PICTURES}")
    led = pair.led
    return Asked(
        prompt or "",
        whole_seed(seed),
        int(n),
        None if led.steps is None or steps is None else int(steps),
        None if led.guidance is None or guidance is None else float(guidance),
        negative or "",
    )


def whole_seed(seed: float | None) -> int:
    """The seed that a field holds; ValueError for none."""
    if seed is None or seed != int(seed) or seed < 0:
        raise ValueError("give a whole number, 0 or more, as the seed")
    return int(seed)


def shown_of(pair: Pair, seen: Race, asked: Asked, error: str = "") -> Shown:
    """The panels of the lanes, and the summary under them."""
    frames = {"teacher": seen.teacher, "student": seen.student}
    named = (asked.prompt, _many(pair, asked))
    lanes = [panels.panel(lane, frames[lane.role], named) for lane in pair.lanes]
    return (*lanes, panels.summary(seen, error))


def _many(pair: Pair, asked: Asked) -> int:
    """How many pictures there will be; one where that cannot be drawn at all."""
    try:
        return len(pair.student.arguments(asked)["generator"])
    except ValueError:
        return 1


def led_sliders(gr: Any, led: Lane) -> tuple[Any, Any]:
    """The steps and the guidance of the lane that is led."""
    who = led.role.title()
    steps = gr.Slider(
        1,
        max(100, led.steps or 0),
        led.steps or 1,
        step=1,
        label=f"{who}'s steps",
        visible=led.steps is not None,
    )
    guidance = gr.Slider(
        1,
        max(15, led.guidance or 0),
        1 if led.guidance is None else led.guidance,
        step=0.1,
        label=f"{who}'s guidance",
        visible=led.guidance is not None and led.takes("guidance_scale"),
    )
    return steps, guidance


def _settings(gr: Any, pair: Pair) -> list[Any]:
    """The fields that are folded away: seed, pictures, and those of the lane that is led."""
    led = pair.led
    with gr.Accordion("Seed, pictures, steps, guidance", open=False):
        with gr.Row():
            seed = gr.Number(0, label="Seed of the noise", precision=0, minimum=0)
            n = gr.Slider(
                1,
                PICTURES,
                1,
                step=1,
                label="Pictures per prompt",
                visible=led.takes("num_images_per_prompt"),
            )
            steps, guidance = led_sliders(gr, led)
        negative = gr.Textbox(
            label=f"{led.role.title()}'s negative prompt: what to avoid; it needs guidance above 1",
            visible=led.takes("negative_prompt"),
        )
    return [seed, n, steps, guidance, negative]


def connect(
    gr: Any,
    run: Callable[..., Iterator[Shown]],
    pressed: tuple[Any, Any, Any, Any, list[Any]],
    settings: list[Any],
    shown: list[Any],
    name: str,
    page: Any = None,
) -> None:
    """What starts a race: a button, Enter, an example, and opening `page` where one is given.
    settings: the seed first. One race runs at a time, whichever tab it is of."""
    prompt, go, again, stop, chips = pressed
    racing: dict[str, Any] = {
        "fn": run,
        "inputs": [prompt, *settings],
        "outputs": shown,
        "show_progress": "hidden",
        "concurrency_id": "race",
        "concurrency_limit": 1,
    }
    private = {"api_visibility": "private"}
    started = [gr.on([go.click, prompt.submit], api_name=name, **racing)]
    seed = settings[0]
    other = again.click(lambda: random.randrange(10**6), None, seed, queue=False, **private)
    started.append(other.then(**racing, **private))
    for chip in chips:
        chosen = chip.click(lambda text: text, chip, prompt, queue=False, **private)
        started.append(chosen.then(**racing, **private))
    if page is not None:
        page.load(**racing, **private)
    stop.click(None, None, None, cancels=started, queue=False, **private)
