"""Equal budgets: steps that fit, evaluations counted, students that begin and are trained alike."""

import pytest
import torch

from genkit.benchmarks import budget
from genkit.benchmarks.budget import BATCH, LONG, Budget, Problem, fit, start
from genkit.denoisers.analytic import Mixture
from genkit.paths import RectifiedFlow


@pytest.fixture
def problem(monkeypatch) -> Problem:
    """Eight pictures of 4 x 4, and small numbers everywhere."""
    monkeypatch.setattr(budget, "WIDTH", 16)
    monkeypatch.setattr(budget, "PAIRS", 256)
    monkeypatch.setattr(budget, "RENEWED", 256)
    monkeypatch.setattr(budget, "SHORT", 4)
    monkeypatch.setattr(budget, "LONG", 12)
    means = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 8
    density = Mixture(RectifiedFlow(), means, 0.15, labels=labels)
    return Problem(density, (1, 4, 4), {"label": torch.tensor([8])})


def test_steps_of_a_budget():
    assert Budget(60.0).steps(0.01, 300.0) == 6000
    assert Budget(60.0).steps(0.01, 300.0, once=20.0) == 4000
    assert Budget(None, 60_000).steps(0.01, 300.0, once=20.0) == 200
    assert Budget(0.1).steps(1.0, 1.0) == LONG, "never less than what was tried out"


@pytest.mark.parametrize("given", [(None, None), (1.0, 5), (0.0, None), (None, -1)])
def test_a_budget_is_one_positive_number(given):
    with pytest.raises(ValueError, match="budget"):
        Budget(*given)


def test_fresh_draws_are_numbered(problem):
    draws = problem.draws()
    first = draws.batch(3, 7, 5)
    assert first["x_0"].shape == (5, 1, 4, 4) and first["cond"]["label"].tolist() == [8] * 5
    assert torch.equal(first["x_0"], draws.batch(3, 7, 5)["x_0"])
    assert not torch.equal(first["x_0"], draws.batch(3, 8, 5)["x_0"])


def test_pairs_follow_the_exact_flow(problem):
    pairs = problem.pairs().tensors
    ones = torch.ones(256).double()
    exact = problem.density.flow_map(pairs["eps"].double(), ones, 0 * ones, {}, 32)
    assert (pairs["x_0"] - exact).abs().mean() < 0.03
    assert problem.pairs() is problem.pairs(), "made once"


def test_students_of_every_kind_of_method(problem):
    limit = Budget(None, 40 * BATCH)
    begun = start(problem, limit, 0)
    # Forward evaluations of the student, one per sample and step.
    assert begun.train_steps == 40 and begun.evaluations == 40 * BATCH
    again = start(problem, limit, 0)
    assert torch.equal(again.samples(6, 1, 4), begun.samples(6, 1, 4)), "a seed decides"
    before = begun.samples(6, 0, 1)
    for name, settings in (
        ("regression, x", {"lr": 2e-3}),
        ("consistency", {}),
        ("dmd2", {}),
        ("meanflow", {}),
    ):
        trained = fit(name, settings, problem, begun, limit, 0)
        x = trained.samples(6, 0)
        assert x.shape == (6, 1, 4, 4) and x.isfinite().all()
        assert not torch.equal(x, before)
        assert trained.evaluations >= trained.train_steps * BATCH
        assert trained.row(name, 1, 0)["evaluations"] == trained.evaluations
    assert torch.equal(begun.samples(6, 0, 1), before), "the start is left as it was"


def test_unrelated_pairs_teach_the_mean(problem):
    limit = Budget(None, 300 * BATCH)
    begun = start(problem, limit, 0)
    control, paired = (
        fit("regression", {}, problem, begun, limit, 0, paired=paired) for paired in (False, True)
    )
    mean = problem.density.means.mean(0)
    away = [(each.samples(64, 0) - mean).square().mean() for each in (control, paired)]
    assert away[0] < away[1] / 2
