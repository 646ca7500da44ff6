"""Tests of the command line's lists and help: what they say, and how fast.

Commands run in this process through `main`; a fresh interpreter is started only for timing.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genkit import catalogue
from genkit.cli import commands, main

ROOT = Path(__file__).resolve().parent.parent


def seconds(*words: str) -> float:
    """Processor seconds of a fresh start, which a busy neighbour does not lengthen; the best of
    three."""
    best = float("inf")
    for _ in range(3):
        before = os.times()
        command = [sys.executable, "-m", "genkit.cli", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        after = os.times()
        user = after.children_user - before.children_user
        best = min(best, user + after.children_system - before.children_system)
    assert not done.stderr or words == ("lst",)
    return best


@pytest.mark.parametrize(
    "words", [("--help",), ("list", "methods"), ("list", "pipelines"), ("list", "data"), ("lst",)]
)
def test_help_and_lists_answer_at_once(words: tuple[str, ...]):
    assert seconds(*words) < 1


def test_help_and_lists_load_no_torch():
    code = (
        "import sys; from genkit.cli import main\n"
        "assert main(['--help']) == 0 and main(['list']) == 0 and main(['nothing']) == 2\n"
        "assert not {'torch', 'diffusers', 'gradio', 'tyro'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_commands_own_help_is_quick():
    assert seconds("train-distill", "dmd2", "--help") < 5


def test_help_names_every_command(capsys: pytest.CaptureFixture):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    named = {line.split()[0] for line in text.splitlines() if line.startswith("  ")}
    assert named == set(commands())
    assert named >= {"train", "train-distill", "generate", "evaluate", "list", "doctor", "bench"}


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_has_its_own_help(name: str, capsys: pytest.CaptureFixture):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: genkit {name}") and commands()[name].split(":")[0] in text


def test_a_methods_settings_are_its_flags(capsys: pytest.CaptureFixture):
    assert main(["train-distill", "dmd2", "--help"]) == 0
    text = capsys.readouterr().out
    for flag in ("--fake-turns", "--max-steps", "--lora", "--resume", "--config"):
        assert flag in text
    assert "--trainer." not in text and "--solver" not in text


def test_lists_say_what_there_is(capsys: pytest.CaptureFixture):
    assert main(["list", "methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(catalogue.methods())
    assert any("arXiv 2405.14867" in line and "needs data and pairs" in line for line in lines)
    assert main(["list", "data"]) == 0 and "digits" in capsys.readouterr().out


def test_doctor_finds_this_machine_sound(capsys: pytest.CaptureFixture):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok  ", "!!  ")) for line in lines)
    text = "\n".join(lines)
    for word in ("python", "torch", "cores", "memory", "disk", "cache", "gpu", "[app]"):
        assert word in text


def test_version(capsys: pytest.CaptureFixture):
    assert main(["--version"]) == 0 and capsys.readouterr().out.strip() == "0.1.0"
