"""Drawing while somebody watches: frames, times without previews, stopping, and enlargement."""

import threading
import time
import warnings

import numpy as np
import pytest
import tiny_families as tiny
import torch
from PIL import Image

from genkit_apps import racing
from genkit_apps.lanes import Asked, Lane, Pair
from genkit_apps.racing import (
    Clock,
    Frame,
    Pace,
    Race,
    Worker,
    decoded,
    draw,
    enlarged,
    pictures,
    race,
)


class Now:
    """A clock that is set by hand."""

    at = 0.0

    def __call__(self):
        return self.at


@pytest.fixture(autouse=True)
def _every_step(monkeypatch):
    """Every step is previewed, and no time is given to a page."""
    monkeypatch.setattr(racing, "APART", 0.0)
    monkeypatch.setattr(racing, "SHARE", float("inf"))
    monkeypatch.setattr(racing, "SETTLE", 0.0)


# ---- Times ----


def test_a_pause_does_not_count():
    now = Now()
    clock = Clock(now)
    now.at = 2.0
    with clock.paused():
        now.at = 7.0
    now.at = 8.0
    assert clock.seconds == 3.0
    with pytest.raises(KeyError), clock.paused():
        now.at = 9.0
        raise KeyError
    assert clock.seconds == 3.0


def test_previews_keep_apart_and_cost_their_share_at_most(monkeypatch):
    monkeypatch.setattr(racing, "APART", 0.1)
    monkeypatch.setattr(racing, "SHARE", 0.25)
    now = Now()
    pace = Pace(now)
    assert not pace.due
    now.at = 0.1
    assert pace.due
    with pace.preview():
        now.at = 1.1  # it cost a second, so four more must pass
    now.at = 5.0
    assert not pace.due
    now.at = 5.2
    assert pace.due


def test_slow_previews_are_not_in_the_time(labels_lane, worker, monkeypatch):
    def slow(pipeline, x):
        time.sleep(0.05)
        return pictures(x)

    monkeypatch.setattr(racing, "decoded", slow)
    begin = time.perf_counter()
    *previews, last = draw(labels_lane, Asked("3"), worker)
    whole = time.perf_counter() - begin
    assert len(previews) == 4  # the empty one and three steps; the fourth is the picture
    assert last.seconds <= whole - 3 * 0.05


# ---- Frames ----


def test_the_last_frame_is_what_the_pipeline_makes(labels_lane, worker):
    asked = Asked("3,5", seed=4, n=2)
    first, *between, last = draw(labels_lane, asked, worker)
    assert (first.step, first.images, first.done) == (0, (), False)
    assert [frame.step for frame in between] == [1, 2, 3]
    assert all(len(frame.images) == 4 and not frame.done for frame in between)
    seconds = [frame.seconds for frame in (*between, last)]
    assert seconds == sorted(seconds) and seconds[0] > 0
    direct = labels_lane.pipeline(**labels_lane.arguments(asked)).images
    assert last.done and (last.step, last.steps) == (4, 4)
    for ours, theirs in zip(last.images, direct, strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_previews_are_x_t(text_teacher, worker):
    """The frame of a step holds the latents that the pipeline itself gives at that step."""
    asked, seen = Asked("a red ball", seed=2), []

    def keep(pipeline, step, timestep, given):
        seen.append(given["latents"].clone())
        return given

    text_teacher.pipeline(**text_teacher.arguments(asked), callback_on_step_end=keep)
    frames = [f for f in draw(text_teacher, asked, worker) if f.images and not f.done]
    assert len(frames) == 4
    for frame, x in zip(frames, seen, strict=False):
        shown = np.asarray(frame.images[0]).astype(float) / 127.5 - 1
        assert np.abs(shown - x[0].clamp(-1, 1).permute(1, 2, 0).numpy()).max() < 1 / 127


def test_unknown_words_are_noted_once(text_teacher, text_student, worker):
    last = list(race(Pair(text_student, text_teacher), Asked("a blue ball", n=2), worker))[-1]
    assert last.notes == ("words this model does not know, all read alike: blue",)


def test_a_negative_prompt_without_guidance_is_noted(text_teacher, worker):
    asked = Asked("a ball", guidance=1.0, negative="red")
    assert "does nothing" in list(draw(text_teacher, asked, worker))[-1].notes[0]


def test_other_warnings_stay_as_they_were(text_teacher, worker):
    before = list(warnings.filters)
    list(draw(text_teacher, Asked("a ball"), worker))
    assert warnings.filters == before


def test_an_error_is_raised_where_it_is_watched(text_teacher, worker):
    with pytest.raises(ValueError, match="num_inference_steps is -1"):
        list(draw(text_teacher, Asked("a ball", steps=-1), worker))
    assert list(draw(text_teacher, Asked("a ball"), worker))[-1].done


def test_a_watcher_who_leaves_ends_the_call(labels_lane, worker):
    frames = draw(labels_lane, Asked("3", steps=100_000), worker)
    while not next(frames).step:
        pass
    frames.close()
    ended = threading.Event()
    worker.submit(ended.set)
    assert ended.wait(2)


def test_a_race_left_before_it_began_draws_nothing(labels_lane, worker):
    calls = []
    worker.submit(lambda: racing._call(labels_lane, {}, calls.append, lambda: True))
    ended = threading.Event()
    worker.submit(ended.set)
    assert ended.wait(5) and calls == []


def test_closing_ends_the_call(labels_lane):
    own = Worker()
    frames = draw(labels_lane, Asked("3", steps=100_000), own)
    while not next(frames).step:
        pass
    begin = time.perf_counter()
    own.close()
    assert time.perf_counter() - begin < 2 and not own._thread.is_alive()


# ---- The race ----


def test_the_student_draws_first_and_only_the_teacher_is_led(text_teacher, text_student, worker):
    asked = Asked("a ball", steps=3, guidance=2.0, negative="red")
    seen = list(race(Pair(text_student, text_teacher), asked, worker))
    assert seen[0].teacher is None and seen[0].student == Frame(0, 1)
    last = seen[-1]
    assert last.student.steps == 1 and last.teacher.steps == 3
    assert last.ratio == last.teacher.seconds / last.student.seconds
    assert all(each.ratio is None for each in seen[:-1])
    wanted = text_teacher.arguments(asked)
    direct = text_teacher.pipeline(**wanted).images[0]
    assert np.array_equal(np.asarray(last.teacher.images[0]), np.asarray(direct))


def test_a_student_alone_is_led(text_student, worker):
    last = list(race(Pair(text_student), Asked("a ball", steps=3), worker))[-1]
    assert last.student.steps == 3 and last.teacher is None and last.ratio is None


def test_nothing_is_drawn_where_one_cannot(labels_lane, text_student, worker):
    pair = Pair(text_student, labels_lane)
    with pytest.raises(ValueError, match="is no list of classes"):
        next(race(pair, Asked("a ball"), worker))


# ---- Stock pipelines ----


def stock(name):
    torch.manual_seed(0)
    pipeline = getattr(tiny, name)()
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return Lane.of(name, "teacher", pipeline)


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_3"])
def test_stock_pipelines_draw_and_are_previewed(name, worker):
    lane = stock(name)
    *between, last = draw(lane, Asked("abc", steps=3, n=2, negative="d"), worker)
    assert [frame.step for frame in between] == [0, 1, 2]
    assert {image.size for image in between[-1].images} == {(16, 16)} == {last.images[0].size}
    assert len(last.images) == len(between[-1].images) == 2


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_3"])
def test_latents_are_decoded_as_the_pipeline_does(name):
    lane = stock(name)
    if name == "stable_diffusion":  # which reads no shift, and whose autoencoders have none
        lane.pipeline.vae.register_to_config(shift_factor=None)
    call = lane.arguments(Asked("abc", steps=2))
    latents = lane.pipeline(**call, output_type="latent").images
    ours = np.asarray(decoded(lane.pipeline, latents)[0]).astype(int)
    theirs = np.asarray(lane.pipeline(**lane.arguments(Asked("abc", steps=2))).images[0])
    assert np.abs(ours - theirs).max() <= 1


def test_packed_latents_are_not_shown():
    pipeline = tiny.stable_diffusion()
    assert decoded(pipeline, torch.zeros(1, 16, 64)) == ()
    assert decoded(pipeline, torch.zeros(1, 5, 8, 8)) == ()


class Older:
    """A pipeline with the callback that diffusers' older ones have."""

    components: dict = {}
    config: dict = {}

    def __init__(self, found="images"):
        self.found = found

    def __call__(
        self, prompt, num_inference_steps=3, generator=None, callback=None, callback_steps=1
    ):
        for i in range(num_inference_steps):
            callback(i, torch.tensor(i), torch.full((1, 3, 4, 4), i / 2 - 1))
        return {self.found: [Image.new("RGB", (4, 4), "white")]}


def test_an_older_callback_is_watched_too(worker):
    *between, last = draw(Lane.of("older", "teacher", Older()), Asked("a"), worker)
    assert [frame.step for frame in between] == [0, 1, 2] and last.done
    assert between[2].images[0].getpixel((0, 0)) == (64, 64, 64)
    with pytest.raises(ValueError, match="older makes one picture at a time"):
        Lane.of("older", "teacher", Older()).arguments(Asked("a", n=2))


def test_a_pipeline_that_makes_no_pictures_is_said(worker):
    with pytest.raises(ValueError, match="older makes neither pictures nor sounds"):
        list(draw(Lane.of("older", "teacher", Older("frames")), Asked("a"), worker))


# ---- Pictures ----


def test_pixels_become_pictures():
    gray = pictures(torch.tensor([[[[-1.0, 0.0], [1.0, 9.0]]]]))[0]
    assert gray.mode == "L" and np.asarray(gray).tolist() == [[0, 128], [255, 255]]
    assert pictures(torch.zeros(2, 3, 4, 5))[1].size == (5, 4)


def test_enlarged_without_smoothing():
    rng = np.random.RandomState(0)
    small = rng.randint(256, size=(6, 5, 3), dtype=np.uint8)
    large = np.asarray(enlarged(Image.fromarray(small), 12))
    assert np.array_equal(large, small.repeat(3, 0).repeat(3, 1))
    fits = Image.new("RGB", (12, 20))
    assert enlarged(fits, 12) is fits


def test_the_ratio_of_a_race():
    done = {"step": 1, "steps": 1, "done": True}
    assert Race(Frame(seconds=6.0, **done), Frame(seconds=1.5, **done)).ratio == 4.0
    assert Race(Frame(1, 2, 6.0), Frame(seconds=1.5, **done)).ratio is None
