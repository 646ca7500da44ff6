"""Tests of genkit/benchmarks/latency.py."""

import json
import time
from pathlib import Path

import pytest

from genkit.benchmarks.latency import Settings, main, measure, timed


def test_medians_are_of_calls_made_in_turns():
    made = []

    def call(name: str, seconds: float):
        return lambda: (made.append(name), time.sleep(seconds))

    found = timed({"a": call("a", 0.002), "b": call("b", 0.02)}, 3)
    assert made == ["a", "b"] * 4
    assert 0.002 <= found["a"] < found["b"] and found["b"] >= 0.02


def test_a_student_is_timed_beside_the_teacher_its_record_names():
    rows = measure(Settings("digits-onestep", steps=(2, 50), batches=(1, 2), rounds=2))
    assert [(row["batch"], row["teacher_steps"]) for row in rows] == [
        (1, 2), (1, 50), (2, 2), (2, 50),
    ]  # fmt: skip
    assert all(row["teacher"] == "digits-teacher" for row in rows)
    # 2 steps of so small a network are within the noise of 1.
    assert rows[1]["times_faster"] > max(5, rows[0]["times_faster"])


def test_the_figures_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(Settings("digits-onestep", steps=(2,), batches=(1,), rounds=1, out=str(tmp_path / "x")))
    held = json.loads((tmp_path / "x").read_text())
    assert held["rows"][0]["teacher_steps"] == 2 and "times faster" in capsys.readouterr().out


def test_what_cannot_be_is_refused(tiny_teacher: Path):
    with pytest.raises(ValueError, match="names no teacher; give --teacher"):
        measure(Settings(str(tiny_teacher)))
    with pytest.raises(ValueError, match="rounds is 0"):
        Settings(rounds=0)
    with pytest.raises(ValueError, match="numbers from 1 on"):
        Settings(batches=(0,))
