"""Checkpoints: whole or not there, damage found and said, the good ones left alone."""

import errno
import json

import pytest
import torch

from genkit.training import checkpoints as module
from genkit.training.checkpoints import Checkpoints, Damaged, read_folder, write_folder


def groups(value: float) -> dict:
    return {"weights": {"a/w": torch.full((4, 3), value)}, "empty": {}}


def state(best: int | None = None) -> dict:
    return {"best": None if best is None else {"step": best, "distance": 1.0}}


def filled(folder, steps, keep=2) -> Checkpoints:
    saved = Checkpoints(folder, keep)
    for step in steps:
        saved.save(step, groups(step), state())
    return saved


def test_what_is_saved_comes_back(tmp_path):
    tensors, found, damage = filled(tmp_path, [5]).load()
    assert torch.equal(tensors["weights"]["a/w"], torch.full((4, 3), 5.0))
    assert tensors["empty"] == {} and damage == [] and found["best"] is None


def test_transposed_and_repeated_tensors_come_back(tmp_path):
    whole = torch.arange(6.0).view(2, 3)
    write_folder(tmp_path / "x", {"g": {"t": whole.T, "again": whole}}, {})
    tensors = read_folder(tmp_path / "x")[0]["g"]
    assert torch.equal(tensors["t"], whole.T) and torch.equal(tensors["again"], whole)


def test_last_and_previous_are_kept(tmp_path):
    assert filled(tmp_path, [1, 2, 3]).steps() == [2, 3]
    assert not list(tmp_path.glob(".*"))


def test_none_is_no_error(tmp_path):
    assert Checkpoints(tmp_path).load() is None


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def flip(file):
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("weights.safetensors", cut, "cut short"),
        ("weights.safetensors", flip, "not what was written"),
        ("weights.safetensors", lambda file: file.unlink(), "missing"),
        ("state.json", cut, "state.json"),
    ],
)
def test_a_damaged_one_is_said_and_the_one_before_used(tmp_path, name, harm, said):
    saved = filled(tmp_path, [1, 2])
    harm(saved.path("step", 2) / name)
    tensors, _, damage = saved.load()
    assert tensors["weights"]["a/w"][0, 0] == 1
    assert len(damage) == 1 and said in damage[0]
    saved.save(2, groups(2.5), state())
    assert saved.load()[0]["weights"]["a/w"][0, 0] == 2.5


def test_a_damaged_later_one_goes_when_an_earlier_step_is_saved(tmp_path):
    saved = filled(tmp_path, [1, 5])
    cut(saved.path("step", 5) / "state.json")
    saved.save(3, groups(3), state())
    assert saved.steps() == [1, 3]


def test_all_damaged_is_one_sentence(tmp_path):
    saved = filled(tmp_path, [1, 2])
    for step in (1, 2):
        cut(saved.path("step", step) / "weights.safetensors")
    with pytest.raises(ValueError, match="no checkpoint of this run is whole"):
        saved.load()


def test_a_newer_format_is_refused(tmp_path):
    saved = filled(tmp_path, [1])
    file = saved.path("step", 1) / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(ValueError, match="newer genkit") as seen:
        saved.load()
    assert not isinstance(seen.value, Damaged)


def test_best_stays_while_a_state_names_it(tmp_path):
    saved = Checkpoints(tmp_path)
    saved.save_best(1, groups(1)["weights"], 0.5)
    saved.save(1, {}, state(1))
    saved.save_best(2, groups(2)["weights"], 0.4)
    saved.save(3, {}, state(2))
    assert saved.load_best(1)["a/w"][0, 0] == 1
    saved.save(4, {}, state(2))
    assert [each.name for each in tmp_path.glob("best-*")] == ["best-00000002"]


def test_the_last_weights_are_kept_for_combining(tmp_path):
    saved = Checkpoints(tmp_path, keep_weights=2)
    for step in (1, 2, 3):
        saved.save_weights(step, groups(step)["weights"])
    names = sorted(each.name for each in (tmp_path / "weights").iterdir())
    assert names == ["step-00000002", "step-00000003"]


def test_a_full_disk_leaves_the_last_one_untouched(tmp_path, monkeypatch):
    saved = filled(tmp_path, [1])

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_sync", full)
    with pytest.raises(OSError) as seen:
        saved.save(2, groups(2), state())
    monkeypatch.undo()
    assert module.is_full(seen.value)
    assert [each.name for each in tmp_path.iterdir()] == ["step-00000001"]
    assert saved.load()[0]["weights"]["a/w"][0, 0] == 1


def test_what_a_full_disk_looks_like():
    assert module.is_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not module.is_full(OSError(errno.EACCES, "denied"))
    assert not module.is_full(RuntimeError("os error 281"))
