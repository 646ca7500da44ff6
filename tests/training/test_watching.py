"""What is kept and shown of a student while it trains."""

import json

import pytest
import torch
from training_toys import SMALL, OneRole, one_role, two_roles

from genkit.methods.base import Stage
from genkit.training.health import Collapse


def distances(*values):
    """A measure that gives these distances one after the other."""
    left = list(values)
    return lambda sample: {"distance": left.pop(0), "other": 1.0}


def test_the_best_student_is_delivered_not_the_last(tmp_path):
    delivered = {}

    def export(parts, out):
        delivered.update({key: value for key, value in parts["network"].state_dict().items()})

    trainer = one_role(tmp_path / "run", measure=distances(3.0, 1.0, 2.0), export=export)
    kept, save_best = {}, trainer.checkpoints.save_best

    def spying(step, tensors, distance):
        kept[step] = {key: value.clone() for key, value in tensors.items()}
        save_best(step, tensors, distance)

    trainer.checkpoints.save_best = spying
    result = trainer.run()
    assert (result.best_step, result.best_distance) == (8, 1.0) and sorted(kept) == [4, 8]
    assert [line["distance"] for line in result.history] == [3.0, 1.0, 2.0]
    for key, value in delivered.items():
        assert torch.equal(value, kept[8][f"student/{key}"])
    last = trainer.networks.exported("student").state_dict()
    assert not all(torch.equal(value, last[key]) for key, value in delivered.items())


def test_without_a_measure_the_last_average_is_delivered(tmp_path):
    delivered = {}
    export = lambda parts, out: delivered.update(parts["network"].state_dict())  # noqa: E731
    trainer = one_role(tmp_path / "run", measure=None, export=export)
    result = trainer.run()
    assert result.best_step is None
    for key, value in trainer.networks.exported("student").state_dict().items():
        assert torch.equal(value, delivered[key])


def test_previews_stand_beside_the_reference_on_fixed_noise(tmp_path):
    trainer = two_roles(tmp_path / "run")
    trainer.run()
    files = sorted((tmp_path / "run" / "samples").iterdir())
    assert [each.name for each in files] == [f"step-{k:08d}.json" for k in (4, 8, 12)]
    rows = [json.loads(each.read_text()) for each in files]
    assert list(rows[0]) == ["teacher", "student"]
    assert rows[0]["teacher"] == rows[2]["teacher"] and rows[0]["student"] != rows[2]["student"]
    preview = trainer.watch.preview
    noise, generators = preview.draw((2,))
    again = trainer.watch.sample(noise, preview.cond, generators)
    assert again.tolist() == rows[2]["student"]


def test_sampling_leaves_training_as_it_was(tmp_path):
    method = OneRole(ema={"target": OneRole().nets()["student"].ema["target"]})
    trainer = one_role(tmp_path / "run", {"max_steps": 1}, method)
    trainer.run()
    student = trainer.networks.nets["student"]
    assert trainer.networks.exported("student") is student and student.training
    calls = student.network.calls.item()
    one, two = (trainer.watch.sample(torch.ones(1, 2), {}) for _ in range(2))
    assert torch.equal(one, two) and student.training and student.network.calls == calls


class Halving(OneRole):
    """Its first stage's student takes four steps."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def stages(self):
        return [Stage("4 steps", 0.5, steps=4), Stage("1 step", 0.5)]

    def sample(self, student, noise, cond, steps=None, generator=None):
        self.asked.append(steps)
        return super().sample(student, noise, cond, steps, generator)


def test_a_stage_is_previewed_with_its_own_steps_and_measured_with_the_last(tmp_path):
    from training_toys import render

    from genkit.training.preview import Preview

    preview = Preview(6, {}, 5, render, reference=torch.randn(6, 2))
    measured = []

    def measure(sample):
        before = len(method.asked)
        sample(torch.ones(1, 2), {})
        measured.extend(method.asked[before:])
        return {"distance": 1.0}

    method = Halving()
    one_role(tmp_path / "run", {}, method, preview=preview, measure=measure).run()
    assert measured and set(measured) == {None}
    assert method.asked[0] == 4 and method.asked.count(4) > 1 and method.asked[-2] is None


class Vanishing(OneRole):
    """From its sixth step on, its samples ignore the noise."""

    def __init__(self, trainer_step):
        super().__init__()
        self.trainer_step = trainer_step

    def sample(self, student, noise, cond, steps=None, generator=None):
        x_0 = super().sample(student, noise, cond, steps, generator)
        return x_0 * 0 + 0.5 if self.trainer_step() >= 6 else x_0


def test_collapsed_samples_stop_the_run_and_are_not_kept(tmp_path):
    from training_toys import render

    from genkit.training.preview import Preview

    holder = []
    method = Vanishing(lambda: holder[0].step if holder else 0)
    preview = Preview(8, {}, 0, render, reference=torch.randn(8, 2))
    trainer = one_role(tmp_path / "run", {}, method, preview=preview, measure=distances(9, 1, 1))
    holder.append(trainer)
    with pytest.raises(Collapse, match="hardly depend on the noise") as seen:
        trainer.run()
    assert "the best student of step 4" in str(seen.value)
    assert trainer.watch.best == {"step": 4, "distance": 9}
    assert trainer.checkpoints.steps() == [3, 6] and SMALL["checkpoint_every"] == 3


def test_a_distance_that_is_not_finite_is_a_collapse(tmp_path):
    with pytest.raises(Collapse, match="measured distance is nan"):
        one_role(tmp_path / "run", measure=distances(float("nan"))).run()
