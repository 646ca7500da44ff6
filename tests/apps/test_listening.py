"""The tab of sounds: players, times, and the arguments that a call takes."""

import re
from typing import ClassVar

import pytest
import torch

from genkit_apps import demo, listening, panels
from genkit_apps.lanes import Asked, Lane, Pair
from genkit_apps.racing import Sound


def heard(pair, worker, *given):
    *_, shown = listening.answer(pair, worker)(*given)
    return shown


def test_a_race_ends_in_two_players(sound_pair, worker):
    teacher, student, summary = heard(sound_pair, worker, "Go.", 0, 2, None, "bob", 1.0, None)
    assert "teacher, 2 steps" in teacher and "student, 1 step<" in student
    for panel in (teacher, student):
        assert panel.count("<audio") == panel.count("<img") == 1
        assert re.search(r"s of sound, made [\d.,]+ times as fast", panel)
    assert "times faster" in summary


def test_fields_reach_both_calls(sound_pair, worker):
    of = [each.name for each in listening.fields_of(sound_pair.student)]
    assert of == ["speaker", "speed", "audio_end_in_s"]
    plain = heard(sound_pair, worker, "Go.", 0, None, None, "ann", 1.0, 0)
    exact = heard(sound_pair, worker, "Go.", 0, None, None, "ann", 1.0, 0.75)
    other = heard(sound_pair, worker, "Go.", 0, None, None, "bob", 1.0, None)
    assert all("0.75 s of sound" in panel for panel in exact[:2])
    assert plain[:2] != other[:2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", 0, None, None, "ann", 1.0, None), "Type what is to be heard."),
        (("!?", 0, None, None, "ann", 1.0, None), "only punctuation"),
        (("Go.", 0.5, None, None, "ann", 1.0, None), "whole number, 0 or more, as the seed"),
        (("Go.", 0, None, None, "eve", 1.0, None), "There is no speaker"),
        (("Go.", 0, None, None, "ann", 1.0, 7200), "audio_end_in_s is 7200"),
    ],
)
def test_what_cannot_be_said_is_told_on_the_page(sound_pair, worker, given, message):
    *panels_, summary = heard(sound_pair, worker, *given)
    assert message in summary and not any("<audio" in each for each in panels_)


def test_stereo_of_any_rate_is_shown():
    sound = Sound(torch.sin(torch.arange(44_100 * 3)[:, None] * torch.tensor([0.05, 0.1])), 44_100)
    assert sound.seconds == 3
    picture = panels.spectrogram(sound)
    assert picture.height == 80 and 100 < picture.width <= panels.WIDEST
    assert "<audio" in panels._player(sound, 1.5) and "2.0 times" in panels._player(sound, 1.5)


def test_a_voice_alone_is_asked_for_by_its_examples(sound_pair):
    alone = Pair(sound_pair.student)
    assert panels.examples(alone.student) == panels.SPEECH
    assert "heard" in panels.hint(alone.student)
    call = alone.student.arguments(Asked("Go.", more={"speaker": "bob", "bpm": 90}))
    assert call["speaker"] == "bob" and "bpm" not in call and call["text"] == ["Go."]


def test_music_is_asked_for_by_its_own_fields():
    """A call's arguments alone say what can be asked: no pipeline of music is opened here."""

    class Music:
        instruments = ("flute",)
        components: ClassVar[dict] = {}
        config: ClassVar[dict] = {}

        def __call__(self, prompt="", bpm=110.0, key="A minor", instrument=None, audio_end_in_s=9):
            raise NotImplementedError

    lane = Lane("tunes", "student", Music(), 4, 2.0, {})
    of = [each.name for each in listening.fields_of(lane)]
    assert of == ["instrument", "bpm", "key", "audio_end_in_s"]
    assert panels.examples(lane) == panels.MUSIC and demo.title(Pair(lane)) == "Music"
