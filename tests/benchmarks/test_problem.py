"""Students of a known density: what they are given, what it costs, how they begin."""

import pytest
import torch

from genkit.benchmarks import combined
from genkit.benchmarks import problem as problems
from genkit.benchmarks.problem import START, ExactTeacher, FreshDraws, Training
from genkit.benchmarks.vp import on_vp, suited
from genkit.comparison.budget import Budget
from genkit.metrics.sliced import sliced_wasserstein
from genkit.networks.head import blocks
from genkit.rng import generator
from genkit.search.lcsc import Found
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
    from genkit.benchmarks import presets

    own = {"regression": {"lr": 0.5, "pairs": 7}}
    monkeypatch.setattr(
        presets, "OWN", {"tiny": own, "analytic-digits": {"regression": {"ema": 0}}}
    )
    monkeypatch.setattr(presets, "KNOWN", {"regression": {"lr": 0.1, "pair_steps": 3}})
    settings = Training("regression", problem, None, {"ema": 0.25}).settings
    assert (settings.method.lr, settings.run.pairs, settings.method.ema) == (0.5, 7, 0.25)
    assert (settings.run.pair_steps, settings.trainer.batch_size) == (3, 16)
    with pytest.raises(ValueError, match="did you mean 'lr'"):
        Training("regression", problem, None, {"lt": 1}).plan(Budget(evaluations=1000))
    with pytest.raises(ValueError, match="merges several teachers"):
        Training("dmm", problem, None).plan(Budget(evaluations=1000))


def test_on_vp_the_start_is_the_same_network_read_as_eps(problem, begun):
    there = on_vp(problem)
    network, x, cond = begun.copy(there), torch.randn(6, 1, 4, 4), problem.cond(6)
    teacher = ExactTeacher(there.density, network)
    assert network.kind == teacher.kind == "eps" and suited(problem, "lcm") is problem
    assert {suited(problem, n).density.path.name for n in ("slam", "lcm:vp")} == {"discrete_vp"}
    assert problem.density.path.name == "rectified_flow" and there._made is not problem._made
    for index in (0.0, 250.0, 999.0):
        t = torch.full((6,), index)
        scale, flow = there.density.path.flow_coordinates(t)
        x_flow, flow = (x / scale[:, None, None, None]).float(), flow.float()
        for mine, theirs in ((network, begun.network), (teacher, problem.density)):
            want = theirs.predict(x_flow, flow, cond, "eps")
            assert torch.allclose(mine.predict(x, t, cond, "eps"), want, atol=1e-5)


@pytest.mark.parametrize("name", ["slam", "lcm:vp"])
def test_students_on_vp(name, problem, begun):
    training = Training(name, suited(problem, name), begun, {"steps": 2})
    student = training.run(20, 0, 0, watched=False)
    x = student.samples(40, 0, 2)
    assert x.isfinite().all() and x.std() < 3
    with pytest.raises(ValueError, match="does not take the path"):
        Training("slam", problem, begun).plan(Budget(evaluations=1000))


def test_kept_weights_end_in_their_best_combination(problem, begun, monkeypatch):
    """Within the budget of others, and no worse on the search's own noise than the last ones."""
    monkeypatch.setattr(combined, "SAMPLES", 50)
    trainings = [
        Training("consistency:lcsc", problem, begun, {"steps": 1, "lr": 5e-3, "keep_weights": kept})
        for kept in (0, 3)
    ]
    plans = [training.plan(Budget(evaluations=6000)) for training in trainings]
    assert plans[1].max_steps == pytest.approx(0.7 * plans[0].max_steps, abs=1)
    student = trainings[1].run(plans[1].max_steps, 0, 0, watched=False)
    assert 5000 < student.cost.evaluations <= 6000
    monkeypatch.setattr(combined, "search", last_ones)
    last = trainings[1].run(plans[1].max_steps, 0, 0, watched=False)
    cond = problem.cond(50)
    real = problem.draw(cond, generator(combined.SEED, "search"))

    def far(each):
        x, label = each.samples(50, combined.SEED, 1), cond["label"]
        return sum(sliced_wasserstein(x[label == y], real[label == y]) for y in (0, 1))

    assert far(student) < far(last)


def last_ones(score, count, tries, seed):
    weights = torch.eye(count, dtype=torch.float64)[-1]
    return Found(weights, score(weights), {}, [])


def test_a_start_with_another_prior_is_sampled_from_it(problem):
    training = Training("flow_matching:pfgm", problem, None, {"dimensions": 4.0, "drop": 0.0})
    student = training.run(10, 0, 0, watched=False)
    assert student.network.path.dimensions == 4
    seen = []
    method = training.method(4)
    training_method = lambda steps=None: method  # noqa: E731
    method.sample = lambda network, noise, *rest: seen.append(noise) or noise
    object.__setattr__(training, "method", training_method)
    student.samples(2000, 0)
    length = seen[0].flatten(1).norm(dim=1)
    assert length.max() > 5 * length.median(), "heavy-tailed"


def test_low_rank_students_begin_as_the_start(problem, begun):
    student = trained("regression", problem, begun, lora=2)
    count = sum(p.numel() for p in student.network.parameters())
    assert count > sum(p.numel() for p in begun.network.parameters()), "with adapters beside"
    assert student.samples(6, 0, 1).isfinite().all()
