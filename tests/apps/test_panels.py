"""The HTML of the page: what it says, that nothing of a stranger's runs in it, and its pictures."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from genkit.data.emoji_scenes import names
from genkit.data.scenes import read, split_of
from genkit_apps import panels
from genkit_apps.lanes import Asked, Pair
from genkit_apps.racing import SHOWN, Frame, Race

SMALL = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


def shown(text):
    """The pictures inside a text of HTML."""
    sources = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', text)
    return [(kind, Image.open(io.BytesIO(base64.b64decode(data)))) for kind, data in sources]


def done(*images, seconds=0.5, **more):
    return Frame(1, 1, seconds, images, True, **more)


@pytest.mark.parametrize("prompt", panels.EXAMPLES["emoji-scenes"])
def test_examples_are_captions_that_training_never_shows(prompt):
    assert split_of(read(prompt, names())) == "test"


def test_examples_of_what_is_shown(labels_lane, text_teacher):
    for prompt in panels.examples(labels_lane):
        labels_lane.arguments(Asked(prompt))
    assert panels.examples(text_teacher) == panels.WORDS


@pytest.mark.parametrize(
    "seconds, said",
    [(0.0004, "0.4 ms"), (0.0123, "12 ms"), (1.2345, "1.23 s"), (12.34, "12.3 s"), (75.4, "75 s")],
)
def test_durations(seconds, said):
    assert panels.clock(seconds) == said


@pytest.mark.parametrize(
    "ratio, said", [(1.44, "1.4"), (12.4, "12"), (134, "130"), (1234, "1,200")]
)
def test_ratios(ratio, said):
    assert panels.times(ratio) == said


def test_a_finished_picture_is_exact_and_enlarged(text_student):
    ((kind, image),) = shown(panels.panel(text_student, done(SMALL), ("a ball", 1)))
    factor = SHOWN // 8
    assert kind == "png" and image.size == (SHOWN, SHOWN)
    large = np.asarray(SMALL).repeat(factor, 0).repeat(factor, 1)
    assert np.array_equal(np.asarray(image), large)


def test_a_preview_is_small_and_large_ones_are_compressed(text_teacher):
    text = panels.panel(text_teacher, Frame(2, 5, 0.2, (SMALL,)), ("a ball", 1))
    ((kind, image),) = shown(text)
    assert (kind, image.size) == ("png", (8, 8)) and 'class="pixels"' in text
    large = Image.new("L", (512, 512))
    assert shown(panels.grid(Frame(2, 5, 0.2, (large,)), "a", 1))[0][0] == "jpeg"
    assert shown(panels.grid(done(large), "a", 1))[0][0] == "png"


def test_a_panel_says_how_far_it_is(text_teacher):
    def said(frame):
        return panels.panel(text_teacher, frame, ("a ball", 3))

    assert "teacher, 5 steps" in said(None) and said(None).count("blank") == 3
    on = said(Frame(2, 5, 0.25, (SMALL,) * 3))
    assert "teacher, step 2 of 5" in on and "width:40.0%" in on and "250 ms" in on
    assert "teacher, 1 step<" in said(done(SMALL)) and "width:100.0%" in said(done(SMALL))
    assert "width:0.0%" in said(Frame(3, None, 0.25)) and ">teacher<" in said(Frame(3, None))


def test_who_was_faster():
    text = panels.summary(Race(teacher=done(seconds=2.0), student=done(seconds=0.02)))
    assert "The student was <b>100 times faster</b>: student 20 ms, teacher 2.00 s." in text
    text = panels.summary(Race(teacher=done(seconds=1.0), student=done(seconds=3.0)))
    assert "The teacher was <b>3.0 times faster</b>" in text
    assert "faster" not in panels.summary(Race(student=done()))


def test_notes_and_errors_are_shown():
    seen = Race(student=done(notes=("words this model does not know: blue",)))
    text = panels.summary(seen, "give a seed")
    assert text.count("genkit-note") == 2
    assert "Words this model does not know: blue." in text and "Give a seed." in text


def test_nothing_of_a_stranger_runs(text_teacher, text_student):
    bad = '"><script>alert(1)</script>'
    told = Race(student=done(SMALL, notes=(bad,)))
    named = panels.panel(text_student, told.student, (bad, 1))
    for text in (named, panels.summary(told, bad), panels.head([Pair(text_student, missing=bad)])):
        assert "<script" not in text and "&lt;script" in text
    record = {"data": bad, "method": bad}
    odd = type(text_teacher)(bad, "teacher", text_teacher.pipeline, 5, 1.0, record)
    assert "<script" not in panels.models(Pair(odd)) + panels.panel(odd, None, ("a", 1))


def test_the_page_needs_nothing_from_elsewhere(text_teacher, text_student):
    pair = Pair(text_student, text_teacher)
    text = panels.STYLE + panels.head([pair]) + panels.models(pair)
    assert not re.search(r"https?:|//|@import|url\(", text)


def test_the_models_are_told_of(text_teacher, text_student):
    rows = re.findall(r"<tr>(.*?)</tr>", panels.models(Pair(text_student, text_teacher)))
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in rows[1:]]
    weights = f"{text_teacher.weights / 1e6:.1f} M"
    assert cells[0] == ["teacher", "tiny-teacher", "5", "3", weights, "balls", "none", "cpu"]
    assert cells[1][:4] == ["student", "tiny-student", "1", "off"]


def test_a_student_alone_is_said(text_student):
    assert "Nobody taught it." in panels.head([Pair(text_student, missing="nobody taught it")])
