"""Runs from end to end: resuming, stopping, stages, refusals."""

import os
import re
import signal
from pathlib import Path

import pytest
import torch
from training_toys import OneRole, TwoRoles, make_pairs, one_role, ring, two_roles, weights

from genkit.denoisers.base import Guided
from genkit.methods.base import Stage
from genkit.training import checkpoints
from genkit.training.log import read_log
from genkit.training.stopping import Interrupted

MAKERS = {"one role": one_role, "two roles": two_roles}


class Broken(Exception):
    """Stands for a crash."""


def broken_at(trainer, step: int):
    """The trainer, made to crash in the middle of a step."""
    loss = trainer.method.loss

    def breaking(*args):
        if trainer.step == step:
            raise Broken
        return loss(*args)

    trainer.method.loss = breaking
    return trainer


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, make):
    whole = make(tmp_path / "whole")
    result = whole.run()
    for step in (1, 4, 8, 11):
        out = tmp_path / str(step)
        with pytest.raises(Broken):
            broken_at(make(out), step).run()
        again = make(out)
        assert again.run(resume=True) == type(result)(out, *list(vars(result).values())[1:])
        assert same(weights(whole), weights(again))
        assert (out / "log.jsonl").read_text() == (tmp_path / "whole" / "log.jsonl").read_text()


def test_another_seed_ends_elsewhere(tmp_path):
    one, other = one_role(tmp_path / "a"), one_role(tmp_path / "b", {"seed": 1})
    one.run(), other.run()
    assert not same(weights(one), weights(other))


def test_a_damaged_checkpoint_is_said_and_the_one_before_used(tmp_path, capsys):
    whole = one_role(tmp_path / "whole")
    whole.run()
    with pytest.raises(Broken):
        broken_at(one_role(tmp_path / "run"), 8).run()
    file = tmp_path / "run/checkpoints/step-00000006/weights.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    again = one_role(tmp_path / "run")
    again.run(resume=True)
    assert re.search(r"cut short; going on from step 3", capsys.readouterr().err)
    assert same(weights(whole), weights(again))


def test_a_finished_run_resumes_to_its_result(tmp_path):
    first = one_role(tmp_path / "run").run()
    lines = read_log(tmp_path / "run")
    assert one_role(tmp_path / "run").run(resume=True) == first
    assert read_log(tmp_path / "run") == lines


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path):
    with pytest.raises(Broken):
        broken_at(one_role(tmp_path / "run"), 1).run()
    assert one_role(tmp_path / "run").run(resume=True).steps == 12


def test_another_run_is_not_written_over(tmp_path):
    one_role(tmp_path / "run").run()
    before = (tmp_path / "run" / "log.jsonl").read_text()
    with pytest.raises(ValueError, match="holds another run"):
        one_role(tmp_path / "run").run()
    with pytest.raises(ValueError, match="trainer.seed was 0 and is 1"):
        one_role(tmp_path / "run", {"seed": 1}).run(resume=True)
    assert (tmp_path / "run" / "log.jsonl").read_text() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number):
    whole = two_roles(tmp_path / "whole")
    whole.run()
    trainer = two_roles(tmp_path / "run")
    loss = trainer.method.loss

    def asked(*args):
        if trainer.turns.index == 3 * 4 + 1:
            os.kill(os.getpid(), number)
        return loss(*args)

    trainer.method.loss = asked
    with pytest.raises(Interrupted) as seen:
        trainer.run()
    assert str(seen.value) == "saved at step 5; go on with the same command and --resume"
    again = two_roles(tmp_path / "run")
    again.run(resume=True)
    assert same(weights(whole), weights(again))


def test_max_minutes_stops_cleanly_and_can_be_gone_on_from(tmp_path, capsys):
    whole = one_role(tmp_path / "whole")
    whole.run()
    exported = []
    export = lambda parts, out: exported.append(out)  # noqa: E731
    short = one_role(tmp_path / "run", {"max_minutes": 1e-9}, export=export).run()
    assert (short.steps, short.finished, short.best_step) == (1, False, 1) and len(exported) == 1
    assert "stopped at step 1 of 12" in capsys.readouterr().err
    again = one_role(tmp_path / "run")
    assert again.run(resume=True).finished
    assert same(weights(whole), weights(again))


def test_each_stage_gets_its_own_teacher_pairs_and_optimizers(tmp_path):
    given, seen = [], []

    def pairs(teacher, stage, number):
        given.append((type(teacher), stage.name, number))
        return make_pairs(teacher, stage, number)

    trainer = two_roles(tmp_path / "run", make_pairs=pairs)
    enter = trainer.networks.enter

    def entering(stage):
        teacher = trainer.networks.nets["teacher"]
        enter(stage)
        updates = trainer.networks.optimizers["student"].updates
        seen.append((stage.name, teacher is trainer.networks.nets["teacher"], updates))

    trainer.networks.enter = entering
    first = trainer.networks.nets["teacher"]
    trainer.run()
    assert [each[1:] for each in given] == [("first", 0), ("again", 1)]
    assert given[0][0] is not Guided and given[1][0] is Guided
    assert seen == [("first", True, 0), ("again", False, 0)]
    assert trainer.networks.nets["teacher"] is not first
    assert trainer.networks.optimizers["student"].updates == 5
    assert trainer.method.seen == 12


class Keeping(TwoRoles):
    """The second stage, guided, goes on with the pairs of the first."""

    def stages(self):
        return [Stage("first", 0.5, new_data=True), Stage("kept", 0.5, guidance=2.0)]


def test_a_stage_that_keeps_its_pairs_does_not_make_others(tmp_path):
    made = []

    def pairs(teacher, stage, number):
        made.append((isinstance(teacher, Guided), stage.name, number))
        return make_pairs(teacher, stage, number)

    whole = two_roles(tmp_path / "whole", method=Keeping(), make_pairs=pairs)
    whole.run()
    assert made == [(False, "first", 0)]
    with pytest.raises(Broken):
        broken_at(two_roles(tmp_path / "run", method=Keeping(), make_pairs=pairs), 8).run()
    made.clear()
    again = two_roles(tmp_path / "run", method=Keeping(), make_pairs=pairs)
    again.run(resume=True)
    assert made == [(False, "first", 0)] and same(weights(whole), weights(again))


def test_given_pairs_are_used_where_no_new_ones_are_asked_for(tmp_path):
    class Single(TwoRoles):
        def stages(self):
            return OneRole.stages(self)

    streams = {"data": ring(), "pairs": make_pairs_of_ones()}
    from training_toys import SMALL, denoiser

    from genkit.training.config import TrainerConfig
    from genkit.training.trainer import Trainer

    config = TrainerConfig(**SMALL)
    given = {"streams": streams, "teacher": denoiser()}
    assert Trainer(Single(), tmp_path / "run", config, **given).run().finished


def make_pairs_of_ones():
    from genkit.data.streams import TensorStream

    return TensorStream({"eps": torch.ones(8, 2), "x_0": torch.ones(8, 2), "cond": {}})


def test_missing_streams_are_named(tmp_path):
    with pytest.raises(ValueError, match="needs the stream 'data'"):
        one_role(tmp_path / "run", streams={}).run()
    with pytest.raises(ValueError, match="needs teacher pairs"):
        two_roles(tmp_path / "other", make_pairs=None).run()


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    whole = one_role(tmp_path / "whole")
    whole.run()
    real = checkpoints._fingerprint

    def full(file: Path):
        if "step-00000009" in str(file):
            raise OSError(28, "No space left on device")
        return real(file)

    monkeypatch.setattr(checkpoints, "_fingerprint", full)
    with pytest.raises(OSError, match=r"is full at step 9; the checkpoint of step 6 is untouched"):
        one_role(tmp_path / "run").run()
    monkeypatch.undo()
    again = one_role(tmp_path / "run")
    again.run(resume=True)
    assert same(weights(whole), weights(again))


def test_the_last_weights_are_kept_where_asked(tmp_path):
    one_role(tmp_path / "run", {"keep_weights": 3}).run()
    kept = sorted(each.name for each in (tmp_path / "run/checkpoints/weights").iterdir())
    assert kept == ["step-00000006", "step-00000009", "step-00000012"]


def test_the_student_learns(tmp_path):
    result = one_role(
        tmp_path / "run", {"max_steps": 300, "batch_size": 64, "checkpoint_every": 300}
    ).run()
    assert result.history[-1]["distance"] < 0.8 * result.history[0]["distance"]
