"""The tab of worlds: frames follow what is pressed, one game at a time, and leave as a file."""

from pathlib import Path

import pytest

from genkit_apps import playing
from genkit_apps.playing import Game, action_names, answer, shown
from genkit_apps.racing import Stopped, Worker


@pytest.fixture
def game(world_pair, worker):
    return Game(world_pair, worker, fps=1000)


def test_frames_are_those_of_what_was_pressed(game, world_pair):
    pipeline, frames = world_pair.student.pipeline, []
    for seen in game.play(world_pair.student, 3, most=4):
        frames.append(seen)
        game.press(seen.number % 3)
    assert [seen.number for seen in frames] == [1, 2, 3, 4]
    pipeline.reset(3)
    want = pipeline.rollout([0, 1, 2, 0]).frames[0]
    assert [seen.image.tobytes() for seen in frames] == [image.tobytes() for image in want]


def test_another_game_ends_the_first(game, world_pair):
    first = game.play(world_pair.student, 0)
    next(first)
    assert len(list(game.play(world_pair.teacher, 0, most=2))) == 2
    assert list(first) == []
    playing_on = game.play(world_pair.student, 0)
    next(playing_on)
    game.stop()
    assert list(playing_on) == []


def test_the_page_sees_frames_and_times(game):
    student = list(answer(game, "student", 0, most=3))
    assert len(student) == 3 and all("<img" in each for each in student)
    assert "tiny-student, frame 3" in student[-1] and "frames per second" in student[-1]
    assert "tiny-teacher" in list(answer(game, "teacher", 0, most=1))[0]
    (told,) = answer(game, "student", -1)
    assert "as the seed" in told and "<img" not in told


def test_a_clip_is_saved_once_there_is_one(game, world_pair):
    with pytest.raises(ValueError, match="play first"):
        game.save()
    list(game.play(world_pair.student, 0, most=3))
    files = {game.save(), game.save()}
    assert len(files) == 2 and all(Path(file).stat().st_size for file in files)


def test_buttons_are_the_actions(world_pair):
    assert action_names(world_pair.student) == ["stay", "left", "right", "up", "down"]
    assert set(playing.KEYS.values()) < set(action_names(world_pair.student))
    assert "Press Play" in shown(world_pair.student, None)


def test_a_closed_page_ends_what_waits_for_it():
    worker = Worker()
    assert worker.ask(lambda: 3) == 3
    with pytest.raises(KeyError):
        worker.ask(lambda: {}["a"])
    worker.close()
    with pytest.raises(Stopped):
        worker.ask(lambda: 3)
