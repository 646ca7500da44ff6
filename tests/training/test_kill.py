"""Killed with -9 at random moments, a run resumes each time and ends with the same bits."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

TOYS = Path(__file__).parent / "training_toys.py"


def run(out: Path, *arguments: str) -> int:
    command = [sys.executable, str(TOYS), str(out), *arguments]
    return subprocess.run(command, capture_output=True, timeout=120).returncode


def final(out: Path, step: int) -> dict[str, bytes]:
    folder = out / "checkpoints" / f"step-{step:08d}"
    return {
        f"{file.name}/{key}": value.numpy().tobytes()
        for file in sorted(folder.glob("*.safetensors"))
        for key, value in load_file(file).items()
    }


def killed_and_resumed(tmp_path: Path, kills: int, steps: int) -> None:
    last = ("--steps", str(steps))
    assert run(tmp_path / "whole", *last) == 0
    out, resume, draw = tmp_path / "killed", [], random.Random(0)
    # Ascending, so that every kill falls behind the last one: in a loss, or in a checkpoint.
    moments = sorted(draw.sample(range(1, steps), kills))
    for moment in moments:
        at = f"{moment + draw.choice([0.25, 0.75])}"
        code = run(out, *last, *resume, "--kill", at)
        assert code == -9
        resume = ["--resume"]
    assert run(out, *last, *resume) == 0
    whole, resumed = final(tmp_path / "whole", steps), final(out, steps)
    assert len(whole) > 20 and whole == resumed
    assert (out / "log.jsonl").read_text() == (tmp_path / "whole" / "log.jsonl").read_text()


def test_two_kills(tmp_path):
    killed_and_resumed(tmp_path, 2, 12)


@pytest.mark.slow
def test_ten_kills(tmp_path):
    killed_and_resumed(tmp_path, 10, 60)
