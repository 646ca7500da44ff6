"""Worlds end to end with a tiny network: trained, distilled, generated, measured, played.

Few steps: what comes out is noise, and only that everything fits together is tested.
"""

import json
import sys

import pytest
import torch

from genkit import api, cli, hub
from genkit.modalities.actions import ActionClips
from genkit.networks.causal_video import CausalVideoTransformer
from genkit.rng import sample_generators, sample_noise

SHORT = {
    "max_steps": 2,
    "batch_size": 4,
    "mixed_precision": "no",
    "sample_every": 0,
    "checkpoint_every": 2,
    "evaluate_n": 0,
}


def tiny(self):
    """16 tokens a frame."""
    frames, channels, size, _ = self.latent
    return CausalVideoTransformer(channels, size, frames, 5, 16, 32, 2, 2, context=4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a teacher; GENKIT_CACHE lies beside it."""
    out = tmp_path_factory.mktemp("worlds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ActionClips, "network", tiny)
        patch.setenv("GENKIT_CACHE", str(out / "cache"))
        api.train("world", out / "teacher", steps=3, **SHORT)
    return out


@pytest.fixture(autouse=True)
def cache(runs, monkeypatch):
    monkeypatch.setenv("GENKIT_CACHE", str(runs / "cache"))


@pytest.fixture(scope="module")
def student(runs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENKIT_CACHE", str(runs / "cache"))
        teacher = str(runs / "teacher" / "pipeline")
        api.distill(teacher, "consistency", out=runs / "student", **SHORT)
    return str(runs / "student" / "pipeline")


def test_the_teacher_is_an_interactive_pipeline(runs):
    teacher = hub.Pipeline.from_pretrained(runs / "teacher" / "pipeline")
    assert hub.trained(teacher)["data"] == "world" and hub.trained(teacher)["steps"] == 3
    assert teacher.network.config.context == 4
    assert (runs / "teacher" / "report.html").exists()


@pytest.mark.parametrize("method", ["dmd2", "regression"])
def test_students_on_their_own_roll_outs_and_on_pairs(runs, method):
    given = {"pairs": 6, "pair_steps": 2, "pair_precision": "no"} | SHORT
    extra = {"dmd2": {"adversarial": 1e-2, "steps": 2, "fake_turns": 1}}.get(method, {})
    teacher = str(runs / "teacher" / "pipeline")
    made = api.distill(teacher, method, out=runs / method, **{**given, **extra})
    frames = made([1, 2, 0], output_type="latent", generator=sample_generators(0, 1)).frames
    assert frames.shape == (1, 3, 3, 64, 64) and frames.isfinite().all()


def test_trainer_and_pipeline_sample_the_same_bits(runs, student):
    from genkit.training.checkpoints import Checkpoints

    assert Checkpoints(runs / "student" / "checkpoints").steps() == [2]
    made, again = (hub.Pipeline.from_pretrained(student) for _ in range(2))
    noise = sample_noise((10, 3, 64, 64), sample_generators(0, 2))
    action = torch.randint(5, (2, 10), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = again.denoiser.sample(noise, {"action": action}, again.scheduler, 1)
    called = made(action.tolist(), generator=sample_generators(0, 2), output_type="latent").frames
    assert torch.equal(called, x)


@pytest.mark.parametrize("method", ["scm", "f_distill", "meanflow"])
def test_methods_of_one_noise_level_refuse(runs, method):
    with pytest.raises(ValueError, match=f"{method} gives a sample one noise level.*consistency"):
        api.distill(str(runs / "teacher" / "pipeline"), method, out=runs / "no", **SHORT)


def test_evaluate(runs, student, monkeypatch):
    from genkit.metrics import references
    from genkit.modalities import actions

    monkeypatch.setattr(references, "CLIPS", 12)
    monkeypatch.setattr(actions, "LASTING", 40)
    monkeypatch.setattr(actions, "PART", 4)
    monkeypatch.setitem(
        references.REFERENCES, "world", lambda split: references.world_reference(split, 12)
    )
    found = api.evaluate(student, steps=(1,), n=6, seeds=(0,), bootstraps=1, quiet=True)
    assert found["floor"]["obeys"] == 1
    for row in found["rows"]:
        assert 0 <= row["obeys"] <= 1 and row["kurtosis"] > 0
        assert row["lasting_frames"] == 40 and row["lasting_worst"] > 0
        assert 0 <= row["continued_obeys"] <= row["continued_boat"] <= 1
    assert len(found["comparisons"]) == 1


def test_generate_writes_what_the_actions_say(student, tmp_path, capsys):
    assert cli.main(["generate", student, "rru", "-n", "2", "--out", str(tmp_path)]) == 0
    files = [each for each in capsys.readouterr().out.splitlines() if each]
    assert len(files) == 2 and all(each.endswith((".mp4", ".png")) for each in files)
    assert cli.main(["generate", student, "rru", "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.iterdir())) == 3
    capsys.readouterr()
    assert cli.main(["generate", student, "rxu"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("genkit: no action is called 'x'; there are: . (stay), l (left)")
    assert cli.main(["generate", student]) == 2
    assert "no action is given" in capsys.readouterr().err


def test_play_without_a_keyboard(student, tmp_path, capsys, monkeypatch):
    command = ["play", student, "--actions", "rruu", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "4 frames in" in out and out.count("▀") == 64 * 32 and "\x1b[38;2;" in out
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert cli.main(["play", student]) == 2
    assert "needs a terminal" in capsys.readouterr().err
    assert cli.main(["play", "digits-onestep", "--actions", "r"]) == 2
    assert "follows no actions" in capsys.readouterr().err
    assert cli.main(["play", student, "--fps", "0"]) == 2


def test_play_with_keys(student, monkeypatch, capsys):
    from contextlib import contextmanager

    from genkit.commands import play

    typed = iter(["d", "", "\x1b[A", "x", "q"])

    @contextmanager
    def keyboard():
        yield lambda: next(typed)

    monkeypatch.setattr(play, "keyboard", keyboard)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    pipeline = hub.Pipeline.from_pretrained(student)
    pipeline.reset(0)
    frames = play.played(pipeline, play.Play(student, fps=1000))
    assert len(frames) == 4 and pipeline._game.actions == [2, 0, 3, 0]


def test_bench_tells_the_frames_per_second(runs, student, tmp_path, capsys):
    file = tmp_path / "bench.json"
    given = ["--seconds", "2", "--teacher-frames", "2", "--json", str(file)]
    assert cli.main(["bench", "video", student, *given]) == 0
    told = json.loads(file.read_text())
    assert told["student"]["fps_p95"] <= told["student"]["fps_median"]
    assert told["teacher"]["steps"] == 3 and told["times_faster"] > 0
    assert set(told["parts"]) == {"evaluation_ms", "write_ms"}
    assert "at the 95th percentile" in capsys.readouterr().out
    assert cli.main(["bench", "video", "digits-onestep"]) == 2
