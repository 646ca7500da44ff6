"""The page of `genkit demo`: a prompt, the teacher at its steps beside the student at one.

It works offline: no analytics, no fonts or scripts from elsewhere.
"""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from genkit_apps import panels
from genkit_apps.lanes import Asked, Pair
from genkit_apps.racing import Race, Worker, race, warm

HOST, FIRST_PORT, PORTS = "127.0.0.1", 7860, 100
PICTURES = 8  # per prompt, at most
Shown = tuple[str, ...]


def free_port(asked: int | None) -> int:
    """The port asked for, or the first free one. ValueError where it is in use or not a port."""
    tried = range(FIRST_PORT, FIRST_PORT + PORTS) if asked is None else [asked]
    for port in tried:
        if not 1 <= port <= 65535:
            raise ValueError(f"port is {port}; give one from 1 to 65535")
        with socket.socket() as there:
            # As the server does: a port whose last connections are still closing is free.
            there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                there.bind((HOST, port))
            except PermissionError:
                raise ValueError(
                    f"port {port} needs rights you lack; give one above 1023"
                ) from None
            except OSError:
                continue
        return port
    if asked is None:
        last = FIRST_PORT + PORTS - 1
        raise ValueError(f"ports {FIRST_PORT} to {last} are all in use; choose one with --port")
    raise ValueError(f"port {asked} is in use; choose another, or leave --port out")


def serve(student: str, teacher: str | None, port: int | None, share: bool, browser: bool) -> None:
    """Open the pipelines, show the page, and return when interrupted.

    ValueError for pipelines that cannot be opened and a port in use.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    port = free_port(port)
    pair = Pair.open(student, teacher)
    worker = Worker()
    if pair.light:
        warm(pair, worker, panels.examples(pair.student)[0])
    page, looks = build(pair, worker)
    page.queue(api_open=False).launch(
        server_name=HOST,
        server_port=port,
        share=share,
        inbrowser=browser,
        quiet=True,
        show_error=True,
        ssr_mode=False,
        footer_links=[],
        prevent_thread_lock=True,
        **looks,
    )
    print(f"genkit demo is at {page.local_url} (Ctrl-C ends it)", flush=True)
    if page.share_url:
        print(f"for others, for a week at most: {page.share_url}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    finally:
        page.close(verbose=False)
        worker.close()


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
        seen, asked = Race(), Asked(prompt or "")
        try:
            asked = _read(pair, prompt, seed, n, steps, guidance, negative)
            yield _shown(pair, seen, asked)
            for seen in race(pair, asked, worker):
                yield _shown(pair, seen, asked)
        except ValueError as error:
            yield _shown(pair, seen, asked, " ".join(str(error).split()))

    return run


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
    if seed is None or seed != int(seed) or seed < 0:
        raise ValueError("give a whole number, 0 or more, as the seed")
    if n is None or not 1 <= n <= PICTURES:
        raise ValueError(f"give a number of pictures from 1 to {PICTURES}")
    led = pair.led
    return Asked(
        prompt or "",
        int(seed),
        int(n),
        None if led.steps is None or steps is None else int(steps),
        None if led.guidance is None or guidance is None else float(guidance),
        negative or "",
    )


def _shown(pair: Pair, seen: Race, asked: Asked, error: str = "") -> Shown:
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


def build(pair: Pair, worker: Worker) -> tuple[Any, dict[str, Any]]:
    """The page, and the theme and style to launch it with."""
    import gradio as gr  # pyright: ignore[reportMissingImports]
    from gradio import themes  # pyright: ignore[reportMissingImports]

    fonts = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
    theme = themes.Base(primary_hue="indigo", neutral_hue="slate", radius_size="lg", font=fonts)
    prompts = panels.examples(pair.student)
    *lanes, summary = _shown(pair, Race(), Asked(prompts[0]))
    with gr.Blocks(title="genkit demo", analytics_enabled=False) as page:
        gr.HTML(panels.head(pair))
        with gr.Row(equal_height=True):
            prompt = gr.Textbox(
                prompts[0],
                show_label=False,
                container=False,
                autofocus=True,
                scale=6,
                placeholder=panels.hint(pair.student),
            )
            go = gr.Button("Draw", variant="primary", scale=1, min_width=110)
            again = gr.Button("Draw another", scale=1, min_width=130)
            stop = gr.Button("Stop", scale=1, min_width=90, visible=not pair.light)
        with gr.Row(elem_classes="genkit-chips"):
            chips = [gr.Button(each, size="sm") for each in prompts]
        settings = _settings(gr, pair)
        told = gr.HTML(summary)
        with gr.Row(equal_height=True):
            shown = [gr.HTML(each) for each in lanes]
        gr.HTML(panels.models(pair))
        run = answer(pair, worker)
        _connect(gr, page, run, (prompt, go, again, stop, chips), settings, [*shown, told], pair)
    return page, {"theme": theme, "css": panels.STYLE}


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
            steps = gr.Slider(
                1,
                max(100, led.steps or 0),
                led.steps or 1,
                step=1,
                label=f"{led.role.title()}'s steps",
                visible=led.steps is not None,
            )
            guidance = gr.Slider(
                1,
                max(15, led.guidance or 0),
                1 if led.guidance is None else led.guidance,
                step=0.1,
                label=f"{led.role.title()}'s guidance",
                visible=led.guidance is not None,
            )
        negative = gr.Textbox(
            label=f"{led.role.title()}'s negative prompt: what to avoid; it needs guidance above 1",
            visible=led.takes("negative_prompt"),
        )
    return [seed, n, steps, guidance, negative]


def _connect(
    gr: Any,
    page: Any,
    run: Callable[..., Iterator[Shown]],
    pressed: tuple[Any, Any, Any, Any, list[Any]],
    settings: list[Any],
    shown: list[Any],
    pair: Pair,
) -> None:
    """What starts a race: a button, Enter, an example, and where that is cheap opening the page.
    One runs at a time."""
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
    started = [gr.on([go.click, prompt.submit], api_name="race", **racing)]
    seed = settings[0]
    other = again.click(lambda: random.randrange(10**6), None, seed, queue=False, **private)
    started.append(other.then(**racing, **private))
    for chip in chips:
        chosen = chip.click(lambda text: text, chip, prompt, queue=False, **private)
        started.append(chosen.then(**racing, **private))
    if pair.light:
        page.load(**racing, **private)
    stop.click(None, None, None, cancels=started, queue=False, **private)
