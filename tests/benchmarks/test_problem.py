"""Students of a known density: what they are given, what it costs, how they begin."""

import pytest
import torch

from genkit.benchmarks import problem as problems
from genkit.benchmarks.problem import START, ExactTeacher, FreshDraws, Training
from genkit.comparison.budget import Budget
from genkit.networks.head import blocks
from genkit.training.meter import counted


@pytest.fixture
def begun(problem, monkeypatch):
    monkeypatch.setattr(problems, "PART", 40)
    return Training(START, problem, None, {"drop": 0.0}).run(40, 0, 0)


def trained(name, problem, begun, budget=4000.0, **given):
    training = Training(name, problem, begun, {"pairs": 80, **given})
    plan = training.plan(Budget(evaluations=budget))
    return training.run(plan.max_steps, plan.pairs, 0)


def test_fresh_draws_are_numbered(problem):
    draws = FreshDraws(problem)
    first = draws.batch(3, 7, 50)
    assert first["x_0"].shape == (50, 1, 4, 4) and set(first["cond"]["label"].tolist()) == {0, 1}
    assert torch.equal(first["x_0"], draws.batch(3, 7, 50)["x_0"])
    assert not torch.equal(first["x_0"], draws.batch(3, 8, 50)["x_0"])
    mode = torch.cdist(first["x_0"].flatten(1), problem.density.means.flatten(1)).argmin(1)
    assert torch.equal(mode % 2, first["cond"]["label"]), "each of its own class"


def test_pairs_follow_the_exact_flow_and_cost_the_same_each_time(problem, begun, monkeypatch):
    teacher = ExactTeacher(problem.density, begun.network)
    made, cost = problem.pairs(teacher, 100, 25, 3)
    assert cost.evaluations == 100 * 25 and len(made) == 100
    ones, tensors = torch.ones(100).double(), made.tensors
    exact = problem.density.flow_map(tensors["eps"].double(), ones, 0 * ones, tensors["cond"], 32)
    assert (tensors["x_0"] - exact).abs().mean() < 0.03
    with monkeypatch.context() as once:
        once.setattr(problem, "_pairs", lambda *asked: pytest.fail("made again"))
        again, cost = problem.pairs(teacher, 60, 25, 3)
    assert cost.evaluations == 60 * 25
    assert torch.equal(again.tensors["x_0"], tensors["x_0"][:60])
    path = problem.pairs(teacher, 60, 24, 3, 2)[0].tensors["path"]
    assert path["t"][0].tolist() == [1.0, 0.5] and torch.equal(
        path["x_t"][:, 0], tensors["eps"][:60]
    )
    half = problem.density.flow_map(
        tensors["eps"][:60].double(), ones[:60], ones[:60] / 2, problem.cond(60), 32
    )
    assert (path["x_t"][:, 1] - half).abs().mean() < 0.03
    other, cost = problem.pairs(begun.network, 60, 5, 3)
    assert cost.evaluations == 60 * 5
    assert not torch.equal(other.tensors["x_0"], tensors["x_0"][:60])


def test_the_exact_teacher_counts_as_a_network_does(problem, begun):
    teacher, x, t = (
        ExactTeacher(problem.density, begun.network),
        torch.randn(6, 1, 4, 4),
        torch.rand(6),
    )
    cond = problem.cond(6)
    with counted(teacher) as cost:
        velocity = teacher.predict(x, t, cond, "velocity")
    assert cost.evaluations == 6
    assert torch.equal(velocity, problem.density.velocity(x, t, cond))
    with counted(teacher) as cost:
        prediction, features = teacher.trace(x, t, cond, "x_0", ("network.blocks.1",))
    assert cost.evaluations == 6, "features and prediction are of one forward"
    assert torch.equal(prediction, problem.density.predict(x, t, cond, "x_0"))
    theirs = begun.network.trace(x, t, cond, "x_0", ("network.blocks.1",))[1]
    assert torch.equal(features["network.blocks.1"], theirs["network.blocks.1"])
    names = blocks(teacher)
    assert names == ("like.network.blocks.0", "like.network.blocks.1")
    _, features = teacher.trace(x, t, cond, "x_0", names)
    assert torch.equal(features[names[1]], theirs["network.blocks.1"])


@pytest.mark.parametrize("name", ["regression", "consistency", "progressive", "ladd", "meanflow"])
def test_students_of_every_kind_of_method(name, problem, begun):
    """They spend the budget, begin as the start, and leave it as it was."""
    before = begun.samples(6, 0, 1)
    student = trained(name, problem, begun)
    x = student.samples(6, 0, 1 if name == "regression" else None)
    assert x.shape == (6, 1, 4, 4) and x.isfinite().all()
    assert 3000 < student.cost.evaluations <= 4000
    assert not torch.equal(x, before) and torch.equal(begun.samples(6, 0, 1), before)


def test_one_student_takes_any_number_of_steps(problem, begun):
    student = trained("consistency", problem, begun)
    one, four = student.samples(40, 0, 1), student.samples(40, 0, 4)
    assert not torch.equal(one, four)
    assert torch.equal(four, student.samples(40, 0, 4)), "renoised by the seed's own noise"


def test_unrelated_pairs_teach_the_mean(problem, begun):
    far = []
    for paired in (False, True):
        given = {"pair_steps": 8, "batch_size": 128, "lr": 1e-2, "ema": 0.9}
        training = Training("regression", problem, begun, given, paired)
        student = training.run(200, 80, 0, watched=False)
        x, label = student.samples(64, 0), problem.cond(64)["label"]
        means = torch.stack([problem.density.means[y::2].mean(0) for y in (0, 1)])
        far.append((x - means[label]).square().mean())
    assert far[0] < far[1] / 2


def test_a_collapse_is_seen(problem, begun):
    from genkit.training.health import Collapse

    training = Training("regression", problem, begun, {"lr": 10.0, "ema": 0.0})
    with pytest.raises(Collapse, match="training collapsed at step"):
        training.run(40, 80, 0)


def test_presets_are_read_under_the_problems_name(problem, monkeypatch):
    from genkit.methods.regression import Method

    known = {"lr": 0.1, "pair_steps": 3}
    presets = {"tiny": {"lr": 0.5, "pairs": 7}, "digits": {"ema": 0}, "known-density": known}
    monkeypatch.setattr(Method, "presets", presets)
    settings = Training("regression", problem, None, {"ema": 0.25}).settings
    assert (settings.method.lr, settings.run.pairs, settings.method.ema) == (0.5, 7, 0.25)
    assert (settings.run.pair_steps, settings.trainer.batch_size) == (3, 16)
    with pytest.raises(ValueError, match="did you mean 'lr'"):
        Training("regression", problem, None, {"lt": 1}).plan(Budget(evaluations=1000))
    with pytest.raises(ValueError, match="merges several teachers"):
        Training("dmm", problem, None).plan(Budget(evaluations=1000))


def test_low_rank_students_begin_as_the_start(problem, begun):
    student = trained("regression", problem, begun, lora=2)
    count = sum(p.numel() for p in student.network.parameters())
    assert count > sum(p.numel() for p in begun.network.parameters()), "with adapters beside"
    assert student.samples(6, 0, 1).isfinite().all()
