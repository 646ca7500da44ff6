"""Tests of the command line: what its runs leave, and every mistake a person can make.

Commands run in this process through `main`. Lists and help are in test_cli_help.py.
"""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from genkit.cli import main
from genkit.training import checkpoints

ROOT = Path(__file__).resolve().parent.parent
SHORT = "--max-steps 6 --batch-size 16 --pairs 40 --measure-n 20 --measure-every 3".split()
SHORT += "--checkpoint-every 3 --evaluate-n 0".split()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys: pytest.CaptureFixture) -> str:
    """The one sentence an error is."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith("genkit: "), err
    return last


def distil(teacher: Path, out: str | Path, *more: str, method: str = "reflow") -> int:
    return main(
        ["train-distill", method, "--teacher", str(teacher), "--out", str(out), *SHORT, *more]
    )


@pytest.fixture(scope="module")
def finished(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "reflow"
    judged = "--evaluate-n 300 --evaluate-seeds 0 --evaluate-steps 1 --bootstraps 2".split()
    assert distil(tiny_teacher, out, *judged) == 0
    return out


# ---- Runs ----


def test_a_run_prints_its_table_and_where_it_lies(finished: Path):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["n"] == 300 and metrics["seeds"] == [0]
    assert (finished / "report.html").exists() and (finished / "pipeline").is_dir()


def test_a_config_file_runs_again_and_flags_win(finished: Path, here: Path):
    file = str(finished / "config.json")
    words = ["train-distill", "--config", file, "--out", "again", "--evaluate-n", "0"]
    assert main(words) == 0
    assert main([*words[:4], "other", *words[5:], "--seed", "3"]) == 0
    old, again, other = (
        json.loads((folder / "config.json").read_text())
        for folder in (finished, here / "again", here / "other")
    )
    assert again["settings"] == {**old["settings"], "evaluate_n": 0}
    assert other["settings"] == {**again["settings"], "seed": 3}
    weights = "pipeline/network/diffusion_pytorch_model.safetensors"
    assert (here / "again" / weights).read_bytes() == (finished / weights).read_bytes()
    assert (here / "other" / weights).read_bytes() != (finished / weights).read_bytes()


def test_a_folder_nobody_named_is_opened_again(
    tiny_teacher: Path, here: Path, capsys: pytest.CaptureFixture
):
    words = ["train-distill", "--teacher", str(tiny_teacher), *SHORT]
    assert main(words) == 0 and (here / "runs" / "quickstart" / "report.html").exists()
    before = (here / "runs" / "quickstart" / "report.html").stat().st_mtime_ns
    capsys.readouterr()
    assert main(words) == 0
    assert "runs/quickstart/report.html" in capsys.readouterr().err
    assert (here / "runs" / "quickstart" / "report.html").stat().st_mtime_ns == before
    assert main([*words, "--seed", "1"]) == 2
    assert "seed was 0 and is 1" in told(capsys)


def test_interrupting_saves_and_resuming_ends(
    tiny_teacher: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    from genkit.training import turns

    run, seen = turns.Turns.run, []

    def stopped(self: Any, *given: Any) -> None:
        seen.append(None)
        if len(seen) == 4:
            os.kill(os.getpid(), 2)
        run(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(turns.Turns, "run", stopped)
        assert distil(tiny_teacher, "cut") == 130
    assert "--resume" in told(capsys)
    assert distil(tiny_teacher, "cut") == 2
    assert "--resume" in told(capsys)
    assert distil(tiny_teacher, "cut", "--resume", "--lr", "0.5") == 2
    assert "lr was 0.001 and is 0.5" in told(capsys)
    assert distil(tiny_teacher, "cut", "--resume") == 0


# ---- Generating and evaluating ----


def test_generate_writes_what_was_asked_and_nothing_over(
    tiny_teacher: Path, here: Path, capsys: pytest.CaptureFixture
):
    words = ["generate", str(tiny_teacher), "3,5", "-n", "2", "--seed", "1", "--out", "made"]
    assert main(words) == 0
    files = capsys.readouterr().out.split()
    assert len(files) == len(set(files)) == 4 and all(Path(each).exists() for each in files)
    first = Path(files[0]).read_bytes()
    assert main(words) == 0
    again = capsys.readouterr().out.split()
    assert not set(again) & set(files) and Path(again[0]).read_bytes() == first
    assert main(["generate", str(tiny_teacher), "--steps", "2", "--out", "all"]) == 0
    assert len(list((here / "all").iterdir())) == 10


def test_evaluate_prints_and_writes(
    finished: Path, tiny_teacher: Path, here: Path, capsys: pytest.CaptureFixture
):
    words = ["evaluate", str(finished / "pipeline"), "--against", str(tiny_teacher)]
    words += "--steps 1,2 -n 300 --seeds 0 --bootstraps 2 --json figures.json".split()
    assert main(words) == 0
    assert "floor" in capsys.readouterr().out
    rows = json.loads((here / "figures.json").read_text())["rows"]
    assert [(row["pipeline"], row["steps"]) for row in rows] == [
        ("tiny", 1),
        ("tiny", 2),
        ("reflow", 1),
    ]


# ---- Mistakes ----

MISTAKES = [
    ("trian", "did you mean 'train'"),
    ("list method", "did you mean 'methods'"),
    ("list methods data", "one word"),
    ("bench method", "did you mean 'methods'"),
    ("train-distill reflw", "did you mean 'reflow'"),
    ("train-distill flow_matching", "trains from data alone"),
    ("train reflow", "needs a teacher"),
    ("train-distill reflow --max-stps 3", "did you mean '--max-steps'"),
    ("train-distill reflow --teacher TEACHER --data digit", "did you mean 'digits'"),
    ("train-distill reflow --teacher nothing", "neither a folder nor a shipped pipeline"),
    ("train-distill reflow --teacher TEACHER --steps 0", "steps is 0"),
    ("train-distill reflow --teacher TEACHER --max-steps -4", "max_steps is -4"),
    ("train-distill reflow --teacher TEACHER --lora 0", "lora is 0"),
    ("train-distill reflow --lr fast", "--lr"),
    ("train-distill reflow --max-steps", "--max-steps"),
    ("train-distill consistency --solver rk4", "--solver"),
    ("train-distill reflow extra", "'extra'"),
    ("train-distill --config nothing.json", "nothing.json"),
    ("generate", "PIPELINE"),
    ("generate nothing 3", "neither a folder nor a shipped pipeline"),
    ("generate TEACHER cat", "no list of classes"),
    ("generate TEACHER 12", "0 to 9"),
    ("generate TEACHER 3 --steps 0", "steps is 0"),
    ("generate TEACHER 3 -n 0", "n is 0"),
    ("evaluate TEACHER --steps 0,1", "at least 1"),
    ("compare --set lr=1e-4 --set ema=0.9", "--set is given twice"),
    ("evaluate TEACHER --steps one", "--steps"),
    ("evaluate TEACHER -n 2", "n is 2"),
    ("evaluate TEACHER --data digit", "did you mean 'digits'"),
]


@pytest.mark.parametrize(("line", "says"), MISTAKES)
def test_a_mistake_is_one_sentence(
    line: str, says: str, tiny_teacher: Path, here: Path, capsys: pytest.CaptureFixture
):
    words = [str(tiny_teacher) if word == "TEACHER" else word for word in line.split()]
    assert main(words) == 2
    assert says in told(capsys)
    assert list(here.iterdir()) == []


def broken(teacher: Path, to: Path, change: str) -> Path:
    """A copy of the tiny teacher, damaged."""
    shutil.copytree(teacher, to)
    index = json.loads((to / "model_index.json").read_text())
    (weights,) = (to / "network").glob("*.safetensors")
    if change == "missing":
        weights.unlink()
    elif change == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif change == "pickle":
        weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    elif change == "newer":
        index["_genkit"]["format"] = 99
    elif change == "unknown class":
        index["_class_name"] = "NoSuchPipeline"
        index["_genkit"].pop("class")
    (to / "model_index.json").write_text(json.dumps(index))
    return to


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("missing", "missing"),
        ("truncated", "truncated"),
        ("pickle", "pickle"),
        ("newer", "newer genkit"),
        ("unknown class", "NoSuchPipeline"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "evaluate", "train-distill"])
def test_a_broken_pipeline_is_one_sentence(
    command: str,
    change: str,
    says: str,
    tiny_teacher: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
):
    folder = broken(tiny_teacher, here / "broken", change)
    words = [command, "reflow", "--teacher"] if command == "train-distill" else [command]
    assert main([*words, str(folder)]) == 2
    assert says in told(capsys)
    assert [each.name for each in here.iterdir()] == ["broken"]


def test_a_folder_of_another_run_is_left_alone(
    finished: Path, tiny_teacher: Path, here: Path, capsys: pytest.CaptureFixture
):
    before = {each: each.read_bytes() for each in finished.rglob("*") if each.is_file()}
    assert distil(tiny_teacher, finished, method="consistency") == 2
    assert "choose another folder" in told(capsys)
    assert distil(tiny_teacher, finished, "--resume", method="consistency") == 2
    assert "method was 'reflow' and is 'consistency'" in told(capsys)
    assert before == {each: each.read_bytes() for each in finished.rglob("*") if each.is_file()}


def test_a_full_disk_keeps_the_last_checkpoint(
    tiny_teacher: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    write, written = checkpoints.write_folder, []

    def full(folder: Path, *given: Any) -> None:
        if "step-" in folder.name:
            written.append(folder)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        write(folder, *given)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_folder", full)
        assert distil(tiny_teacher, "run") == 1
    sentence = told(capsys)
    assert "full" in sentence and "--resume" in sentence and "step 3" in sentence
    assert distil(tiny_teacher, "run", "--resume") == 0


def test_a_full_disk_before_the_run_is_one_sentence(
    tiny_teacher: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    from genkit import runs

    def full(*given: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "pairs-00000.safetensors")

    monkeypatch.setattr(runs, "cached_pairs", full)
    assert distil(tiny_teacher, "run") == 1
    assert "full" in told(capsys)


def test_a_loss_that_turns_nan_stops_the_run(
    tiny_teacher: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    from genkit.methods import reflow

    loss, seen = reflow.Method.loss, []

    def spoiled(self: Any, *given: Any) -> dict[str, torch.Tensor]:
        seen.append(None)
        losses = loss(self, *given)
        return {"total": losses["total"] * float("nan")} if len(seen) == 5 else losses

    monkeypatch.setattr(reflow.Method, "loss", spoiled)
    assert distil(tiny_teacher, "run") == 1
    sentence = told(capsys)
    assert "nan" in sentence and "step 4" in sentence and "checkpoint is of step 3" in sentence
    assert "nan" in (here / "run" / "report.html").read_text()


def test_debug_shows_where_it_came_from(here: Path):
    with pytest.raises(ValueError, match="neither a folder"):
        main(["generate", "nothing", "3", "--debug"])


def test_a_bug_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch):
    from genkit.commands import list as listing

    monkeypatch.setattr(listing, "table", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["list", "methods"])
