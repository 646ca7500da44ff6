"""The page and its command; what needs Gradio is skipped where the extra `app` is not installed."""

import importlib.metadata
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from genkit.cli import main
from genkit.commands import demo as command
from genkit.hub import shipped
from genkit_apps import demo, drawing
from genkit_apps.lanes import Pair

ROOT = Path(__file__).resolve().parents[2]
NO_GRADIO = 'the page needs Gradio: pip install "genkit[app]"'


@pytest.fixture
def gradio():
    return pytest.importorskip("gradio", reason=NO_GRADIO)


@pytest.fixture
def taken():
    """A port somebody listens on."""
    with socket.socket() as there:
        there.bind((demo.HOST, 0))
        there.listen()
        yield there.getsockname()[1]


@pytest.fixture
def pair(text_teacher, text_student):
    return Pair(text_student, text_teacher)


# ---- The command ----


def told(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


def version(found):
    """In place of importlib.metadata.version."""

    def look(name):
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    return look


def test_a_default_student_is_shipped():
    assert command.STUDENTS[0] in shipped()


def test_a_teacher_is_of_one_student(monkeypatch, capsys):
    monkeypatch.setattr(command, "check_gradio", lambda: None)
    assert main(["demo", "--student", "a,b", "--teacher", "c"]) == 2
    assert "give one student with a teacher, or several that name theirs" in told(capsys)


def test_without_gradio_it_says_what_to_type(monkeypatch, capsys):
    monkeypatch.setattr(command.importlib.metadata, "version", version(None))
    assert main(["demo"]) == 2
    assert told(capsys) == f"genkit: {NO_GRADIO}"


def test_an_old_gradio_is_said(monkeypatch, capsys):
    monkeypatch.setattr(command.importlib.metadata, "version", version("5.9.1"))
    assert main(["demo"]) == 2
    assert "needs Gradio 6 or later, this is 5.9.1" in told(capsys)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--port", "{taken}"], "port {taken} is in use; choose another, or leave --port out"),
        (["--port", "70000"], "port is 70000; give one from 1 to 65535"),
        (["--student", "digits-onestp"], "did you mean 'digits-onestep'?"),
        (["--teacher", "digits-teachr"], "did you mean 'digits-teacher'?"),
        (["--studnt", "x"], "did you mean '--student'?"),
    ],
)
def test_a_mistake_is_one_sentence(words, message, taken, monkeypatch, capsys):
    monkeypatch.setattr(command, "check_gradio", lambda: None)
    assert main(["demo", *(word.format(taken=taken) for word in words)]) == 2
    assert message.format(taken=taken) in told(capsys)


def test_the_first_free_port_is_taken(monkeypatch, taken):
    monkeypatch.setattr(demo, "FIRST_PORT", taken)
    assert demo.free_port(None) != taken
    monkeypatch.setattr(demo, "PORTS", 1)
    with pytest.raises(ValueError, match="all in use; choose one with --port"):
        demo.free_port(None)


# ---- What the page runs ----


def test_a_race_as_the_page_sees_it(pair, worker):
    run = drawing.answer(pair, worker)
    first, *_, (teacher, student, summary) = run("a blue ball", 3, 2, 4, 2.0, "red")
    assert all("<img" not in each for each in first) and first[0].count("blank") == 2
    assert "teacher, 4 steps" in teacher and "student, 1 step<" in student
    assert teacher.count("<img") == student.count("<img") == 2
    assert "times faster" in summary and "does not know, all read alike: blue" in summary


def test_seeds_make_the_picture(pair, worker):
    def last(seed):
        *_, shown = drawing.answer(pair, worker)("a ball", seed, 1, None, None, "")
        return re.findall(r'src="([^"]+)"', shown[0] + shown[1])

    assert last(1) == last(1) != last(2)


@pytest.mark.parametrize(
    "given, message",
    [
        (("", 0, 1, 5, 3.0, ""), "Type what is to be drawn."),
        (("a ball", None, 1, 5, 3.0, ""), "whole number, 0 or more, as the seed"),
        (("a ball", -1, 1, 5, 3.0, ""), "whole number, 0 or more, as the seed"),
        (("a ball", 0, None, 5, 3.0, ""), "a number of pictures from 1 to 8"),
        (("a ball", 0, 9, 5, 3.0, ""), "a number of pictures from 1 to 8"),
        (("a ball", 0, 1, 0, 3.0, ""), "num_inference_steps is 0"),
    ],
)
def test_what_cannot_be_drawn_is_said_on_the_page(pair, worker, given, message):
    *_, (_, _, summary) = drawing.answer(pair, worker)(*given)
    assert message in summary and "times faster" not in summary


def test_empty_fields_are_as_trained(pair, worker):
    *_, (teacher, student, _) = drawing.answer(pair, worker)("a ball", 0, 1, None, None, None)
    assert "teacher, 5 steps" in teacher and "<img" in student
    *_, (_, _, summary) = drawing.answer(pair, worker)(None, 0, 1, None, None, None)
    assert "Type what is to be drawn." in summary


def test_a_student_alone_has_one_panel(text_student, worker):
    *_, shown = drawing.answer(Pair(text_student), worker)("a ball", 0, 1, None, None, "")
    assert len(shown) == 2 and "<img" in shown[0]


# ---- The page itself ----


def test_the_page_is_built_for_offline_use(gradio, pair, worker):
    page, looks = demo.build([pair], worker)
    config = json.dumps(page.get_config_file())
    assert not page.analytics_enabled and "LocalFont" not in str(looks["theme"].font)
    assert "fonts.g" not in config
    labels = [block.label for block in page.blocks.values() if "label" in vars(block)]
    for field in ("Seed of the noise", "Teacher's steps", "Teacher's guidance"):
        assert field in labels


@pytest.mark.parametrize("lane, negative", [("labels_lane", False), ("text_student", True)])
def test_only_fields_a_pipeline_takes_are_shown(gradio, request, worker, lane, negative):
    page, _ = demo.build([Pair(request.getfixturevalue(lane))], worker)
    box = [b for b in page.blocks.values() if "negative" in str(vars(b).get("label"))]
    assert box[0].visible is negative


def test_a_tab_for_each_student(gradio, pair, sound_pair, world_pair, labels_lane, worker):
    pairs = [pair, sound_pair, world_pair, Pair(labels_lane)]
    page, _ = demo.build(pairs, worker)
    tabs = [block.label for block in page.blocks.values() if type(block).__name__ == "Tab"]
    of = ("Pictures: tiny-student", "Speech", "Worlds", "Pictures: tiny-teacher")
    assert tabs == list(of) == demo.titles(pairs)
    labels = {vars(block).get("label") for block in page.blocks.values()}
    assert {"Speaker", "Speed", "Drawn by", "Clip"} <= labels


@pytest.mark.slow
def test_the_command_serves_until_interrupted(gradio):
    command = [sys.executable, "-m", "genkit.cli", "demo", "--no-browser"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    served = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, **quiet)
    try:
        line = served.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line + served.stderr.read()
        page = urllib.request.urlopen(found[0], timeout=20).read().decode()
        assert "emoji-onestep" in page and "emoji-teacher" in page
        assert "fonts.googleapis" not in page
    finally:
        served.send_signal(signal.SIGINT)
        _, complaint = served.communicate(timeout=30)
    assert (served.returncode, complaint) == (0, "")
