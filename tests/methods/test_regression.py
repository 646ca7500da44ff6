"""Regression on a Gaussian's pairs: the flow map at once; on unrelated pairs, the mean (card 1)."""

import pytest
import torch

from genkit.methods.base import Roles
from genkit.methods.regression import Method
from genkit.rng import Rng


def test_learns_the_flow_map(fit, learned, error, path):
    method = Method(Method.Config(), path, (1,))
    student = fit(method, learned(path, "consistency"))
    assert error(student) < 0.01
    assert method.sampler().steps == 1


class Untied(Method):
    """The broken twin: each sample with another's noise."""

    def loss(self, roles, batch, moment, rng):
        pairs = batch["pairs"]
        return super().loss(
            roles, {"pairs": {**pairs, "eps": pairs["eps"].roll(1, 0)}}, moment, rng
        )


def test_the_broken_twin_makes_the_mean_of_every_noise(fit, learned, path):
    student = fit(Untied(Untied.Config(), path, (1,)), learned(path, "consistency"))
    assert student.mean.item() == pytest.approx(1.3, abs=0.05)
    assert abs(student.std.item()) < 0.1, "twin: nothing but the mean is left"


def on_paths(teacher, n, steps, seed):
    """Pairs of the exact flow map with the points that a student of `steps` asks for."""
    eps, t = Rng(seed).normal((n, 1)).double(), teacher.path.grid(steps).float()
    start = torch.ones(n, dtype=torch.float64)
    x_t = [teacher.flow_map(eps, start, each.expand(n)) for each in t]
    path = {"x_t": torch.stack(x_t, 1), "t": t.expand(n, steps)}
    return {"eps": eps, "x_0": teacher.flow_map(eps, start, 0 * start), "path": path, "cond": {}}


class Mistimed(Method):
    """The broken twin: each point with the time of the next."""

    def loss(self, roles, batch, moment, rng):
        path = batch["pairs"]["path"]
        turned = {**path, "t": path["t"].roll(1, 1)}
        return super().loss(roles, {"pairs": {**batch["pairs"], "path": turned}}, moment, rng)


@pytest.mark.parametrize("cls", [Method, Mistimed])
def test_several_steps_learn_from_the_teacher_s_paths(learned, error, path, teacher, cls):
    method, student = cls(cls.Config(steps=3), path, (1,)), learned(path, "consistency")
    assert method.stages()[0].points == 3 and method.sampler().stochastic
    assert Method(Method.Config(), path, (1,)).stages()[0].points == 0
    adam = torch.optim.Adam(student.parameters(), lr=0.03)
    for step in range(250):
        batch = {"pairs": on_paths(teacher, 256, 3, step)}
        adam.zero_grad()
        method.loss(Roles(student=student), batch, None, Rng(step))["total"].backward()
        adam.step()
    assert (error(student) < 0.01) is (cls is Method)


def test_the_loss_is_the_distance_of_one_evaluation_at_pure_noise(learned, path):
    method = Method(Method.Config(), path, (1,))
    eps = Rng(0).normal((4096, 1)).double()
    roles = Roles(student=learned(path, "consistency", 1.3, 0.5))
    tied = {"eps": eps, "x_0": 1.3 + 0.5 * eps, "cond": {}}
    off = {**tied, "x_0": tied["x_0"] + 0.2}
    (stage,) = method.stages()
    assert stage.new_data and stage.share == 1
    losses = [method.loss(roles, {"pairs": p}, None, Rng(1))["total"] for p in (tied, off)]  # type: ignore[arg-type]
    assert losses[0] < 1e-10 and torch.isclose(losses[1], torch.tensor(0.04).double(), rtol=1e-6)
