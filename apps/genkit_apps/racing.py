"""Pipelines that draw while a page watches: frames of the picture on its way, and honest times.

Calls run one after another on one thread, so that they do not share the cores and none pays for the
first use of a thread. A call's time has everything in it, text encoding and PIL included, but the
previews, whose time is taken off. A preview is the noisy x_t itself, decoded where there is a VAE.
"""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from genkit_apps.lanes import Asked, Lane, Pair

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SHOWN = 320  # pixels that a shown picture has at least, on its shorter side
APART = 0.1  # seconds between previews, at least
SETTLE = 0.05  # seconds a page is given for what it was sent, which would else count as drawing
SHARE = 0.25  # of the time since the last preview, what the next may cost at most


@dataclass(frozen=True)
class Sound:
    """samples (n,), or (n, channels), in [-1, 1]; sample_rate in Hz."""

    samples: Tensor
    sample_rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class Frame:
    """What a lane has drawn so far. seconds: of drawing, previews not counted. notes: what the
    pipeline warned of, known when it is done. images: none where a step cannot be shown. sounds: of
    a pipeline that makes such."""

    step: int
    steps: int | None
    seconds: float = 0.0
    images: tuple[Image.Image, ...] = ()
    done: bool = False
    notes: tuple[str, ...] = ()
    sounds: tuple[Sound, ...] = ()


class Clock:
    """Seconds since it was made, less those that it was paused for."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._start, self._paused = now, now(), 0.0

    @property
    def seconds(self) -> float:
        return self._now() - self._start - self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What runs inside does not count."""
        begin = self._now()
        try:
            yield
        finally:
            self._paused += self._now() - begin


class Pace:
    """When the next preview is due: not sooner than people see, nor than its cost allows."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._last, self._cost = now, now(), 0.0

    @property
    def due(self) -> bool:
        return self._now() - self._last >= max(APART, self._cost / SHARE)

    @contextmanager
    def preview(self) -> Iterator[None]:
        """Around the making of a preview."""
        begin = self._now()
        yield
        self._last = self._now()
        self._cost = self._last - begin


class Worker:
    """One thread that runs what it is given, in order, until it is closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="genkit-demo", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self.closed.is_set():
            self._jobs.get()()

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` after all that came before; it must not raise."""
        self._jobs.put(job)

    def ask(self, job: Callable[[], Any]) -> Any:
        """What `job` returns, or raises, run after all that came before. Stopped where the page
        closes first."""
        mail: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                mail.put((job(), None))
            except BaseException as error:  # the asker's to handle, whatever it is
                mail.put((None, error))

        self.submit(run)
        while True:
            try:
                made, error = mail.get(timeout=0.5)
            except queue.Empty:
                if self.closed.is_set():
                    raise Stopped from None
                continue
            if error is not None:
                raise error
            return made

    def close(self, seconds: float = 5.0) -> None:
        """End the call in progress after its step, and wait for that: torch aborts a process that
        ends while it computes on another thread."""
        self.closed.set()
        self.submit(lambda: None)
        self._thread.join(seconds)


class Stopped(Exception):
    """Nobody watches any longer, or the page closes; raised inside a pipeline's call to end it."""


def draw(lane: Lane, asked: Asked, worker: Worker) -> Iterator[Frame]:
    """Frames of a lane that draws: an empty one when it begins, previews, and the pictures.

    An error of the pipeline is raised here. A watcher who closes the iterator ends the call after
    the step it is at.
    """
    arguments = lane.arguments(asked)
    mail: queue.SimpleQueue[Frame | BaseException] = queue.SimpleQueue()
    left = threading.Event()

    def over() -> bool:
        return left.is_set() or worker.closed.is_set()

    worker.submit(lambda: _call(lane, arguments, mail.put, over))
    try:
        while True:
            got = mail.get()
            if isinstance(got, BaseException):
                raise got
            yield got
            if got.done:
                return
    finally:
        left.set()


def _call(
    lane: Lane,
    arguments: dict[str, Any],
    send: Callable[[Frame | BaseException], None],
    over: Callable[[], bool],
) -> None:
    """Run a pipeline on this thread; frames, or what it raised, go to `send`."""
    if over():
        return
    steps = arguments.get("num_inference_steps")
    send(Frame(0, steps))
    time.sleep(SETTLE)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            clock = Clock()
            watched = _callbacks(lane, _watch(clock, steps, send, over))
            made = lane.pipeline(**arguments, **watched)
            seconds = clock.seconds
        if "images" not in made and "audios" not in made:
            raise ValueError(f"{lane.name} makes neither pictures nor sounds, which the page shows")
    except Stopped:
        return
    except BaseException as error:  # the watcher's to handle, whatever it is
        send(error)
        return
    told = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
    notes = tuple(dict.fromkeys(told))
    images = tuple(made["images"]) if "images" in made else ()
    send(Frame(steps or 0, steps, seconds, images, True, notes, sounds_of(made)))


def sounds_of(made: Any) -> tuple[Sound, ...]:
    """The sounds of what a pipeline returned, each of its own length."""
    if "audios" not in made:
        return ()
    pairs = zip(made["audios"], made["lengths"], strict=True)
    cut = [audio[:, : int(n)].cpu().T for audio, n in pairs]
    return tuple(Sound(x[:, 0] if x.shape[1] == 1 else x, made["sample_rate"]) for x in cut)


def _callbacks(lane: Lane, after: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """`after` as the argument this pipeline takes: diffusers' older ones, such as PixArt's, have
    their own, and some have none."""
    if lane.takes("callback_on_step_end"):
        return {"callback_on_step_end": after}
    if not (lane.takes("callback") and lane.takes("callback_steps")):
        return {}

    def older(i: int, timestep: Any, latents: Tensor) -> None:
        after(lane.pipeline, i, timestep, {"latents": latents})

    return {"callback": older, "callback_steps": 1}


def _watch(
    clock: Clock,
    steps: int | None,
    send: Callable[[Frame], None],
    over: Callable[[], bool],
) -> Callable[..., dict[str, Any]]:
    """The callback after each step: sends a frame when one is due, and stops the call."""
    pace = Pace()

    def after(pipeline: Any, i: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        if over():
            raise Stopped
        if pace.due and i + 1 != steps:  # the last is the picture itself, a moment later
            _settle(given["latents"])
            seconds = clock.seconds
            with clock.paused(), pace.preview():
                images = decoded(pipeline, given["latents"])
                send(Frame(i + 1, steps, seconds, images))
        return given

    return after


def _settle(x: Tensor) -> None:
    """Wait until a GPU has computed x, so that its time is the step's and not the preview's."""
    if x.is_cuda:
        import torch

        torch.cuda.synchronize(x.device)


def decoded(pipeline: Any, x: Tensor) -> tuple[Image.Image, ...]:
    """Latents x (n, c, h, w) on their way as pictures; none where their layout is not known here,
    such as Flux's, which are packed."""
    from genkit import latents

    vae = pipeline.components.get("vae")
    channels = (1, 3) if vae is None else (vae.config.get("latent_channels"),)
    if x.ndim != 4 or x.shape[1] not in channels:
        return ()
    return pictures(latents.decoded(vae, x if vae is None else x.to(vae.dtype)))


def pictures(x: Tensor) -> tuple[Image.Image, ...]:
    """Pixels (n, 1 or 3, h, w) in [-1, 1], clipped to that, as PIL images."""
    from PIL import Image

    from genkit.modalities.sheet import bytes_of

    rows = bytes_of(x).permute(0, 2, 3, 1).numpy()
    return tuple(Image.fromarray(row[..., 0] if row.shape[2] == 1 else row) for row in rows)


def enlarged(image: Image.Image, least: int = SHOWN) -> Image.Image:
    """The picture with every pixel a square, by the least whole factor that makes its shorter side
    `least` pixels; itself where it has them."""
    from PIL import Image

    factor = -(-least // min(image.size))
    if factor <= 1:
        return image
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Race:
    """Where the two stand. teacher, student: their last frames, None before they begin."""

    teacher: Frame | None = None
    student: Frame | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What either pipeline warned of, each once."""
        told = [note for frame in (self.student, self.teacher) if frame for note in frame.notes]
        return tuple(dict.fromkeys(told))

    @property
    def ratio(self) -> float | None:
        """How many times longer the teacher took; None until both are done."""
        if not (self.teacher and self.student and self.teacher.done and self.student.done):
            return None
        return self.teacher.seconds / max(self.student.seconds, 1e-9)


def race(pair: Pair, asked: Asked, worker: Worker) -> Iterator[Race]:
    """The student draws, then the teacher: the same prompt and noise. Steps, guidance and what is
    to be avoided are for `pair.led`; the other draws as trained. ValueError for what neither can
    draw, before anything is drawn."""
    trained = replace(asked, steps=None, guidance=None, negative="")
    requests = {lane.role: asked if lane is pair.led else trained for lane in pair.lanes}
    for lane in pair.lanes:
        lane.arguments(requests[lane.role])
    seen = Race()
    for lane in reversed(pair.lanes):
        for frame in draw(lane, requests[lane.role], worker):
            seen = replace(seen, **{lane.role: frame})
            yield seen


def warm(pair: Pair, worker: Worker, prompt: str) -> None:
    """Let the student draw once unseen, so that the first race does not pay for loading code."""
    for _ in draw(pair.student, Asked(prompt), worker):
        pass
