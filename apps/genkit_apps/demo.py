"""The page of `genkit demo`: a tab for each student that is shown, of pictures, sounds or worlds.

It works offline: no analytics, no fonts or scripts from elsewhere.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

from genkit_apps import drawing, listening, panels, playing
from genkit_apps.lanes import Pair
from genkit_apps.racing import Worker, warm

HOST, FIRST_PORT, PORTS = "127.0.0.1", 7860, 100
# {what pipelines make: how their tab is built}.
TABS = {"pictures": drawing.tab, "sounds": listening.tab, "clips": playing.tab}


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


def serve(
    students: Sequence[str], teacher: str | None, port: int | None, share: bool, browser: bool
) -> None:
    """Open the pipelines, show the page, and return when interrupted.

    teacher: of the only student. ValueError for pipelines that cannot be opened and a port in use.
    """
    if not students or teacher is not None and len(students) > 1:
        raise ValueError("give one student with a teacher, or several that name theirs")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    port = free_port(port)
    pairs = [Pair.open(student, teacher) for student in students]
    worker = Worker()
    for pair in pairs:
        if pair.light and pair.student.makes != "clips":
            warm(pair, worker, panels.examples(pair.student)[0])
    page, looks = build(pairs, worker)
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


def title(pair: Pair) -> str:
    """What a tab is called, by what its pipelines make."""
    if pair.student.makes == "sounds":
        return "Speech" if pair.student.takes("text") else "Music"
    return {"pictures": "Pictures", "clips": "Worlds"}[pair.student.makes]


def titles(pairs: Sequence[Pair]) -> list[str]:
    """The tabs' titles; those that are alike have their student's name too."""
    found = [title(pair) for pair in pairs]
    return [
        f"{each}: {pair.student.name}" if found.count(each) > 1 else each
        for each, pair in zip(found, pairs, strict=True)
    ]


def build(pairs: Sequence[Pair], worker: Worker) -> tuple[Any, dict[str, Any]]:
    """The page, a tab for each pair where there are several, and the theme and style to launch it
    with."""
    import gradio as gr  # pyright: ignore[reportMissingImports]
    from gradio import themes  # pyright: ignore[reportMissingImports]

    fonts = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
    theme = themes.Base(primary_hue="indigo", neutral_hue="slate", radius_size="lg", font=fonts)
    with gr.Blocks(title="genkit demo", analytics_enabled=False) as page:
        gr.HTML(panels.head(pairs))
        if len(pairs) == 1:
            TABS[pairs[0].student.makes](gr, page, pairs[0], worker)
        else:
            with gr.Tabs():
                for name, pair in zip(titles(pairs), pairs, strict=True):
                    with gr.Tab(name):
                        TABS[pair.student.makes](gr, page, pair, worker)
    return page, {"theme": theme, "css": panels.STYLE}
