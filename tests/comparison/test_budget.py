"""What a budget buys: its spelling, what steps and pairs cost, and how many fit."""

from pathlib import Path
from typing import Any

import pytest

from genkit import api
from genkit.comparison.budget import PAIRS_SHARE, Budget, Plan, Prices, fitted, prices

BATCH = 16


@pytest.mark.parametrize(
    ("text", "seconds", "evaluations"),
    [
        ("30s", 30, None),
        ("1.5m", 90, None),
        ("2h", 7200, None),
        ("200k-nfe", None, 2e5),
        ("5M-nfe", None, 5e6),
        ("300nfe", None, 300),
    ],
)
def test_budgets_are_times_or_evaluations(text: str, seconds: Any, evaluations: Any):
    assert Budget.of(text) == Budget(seconds, evaluations)


@pytest.mark.parametrize("text", ["", "10", "10 minutes", "0s", "5M", "-3s", "nfe"])
def test_other_budgets_are_refused(text: str):
    with pytest.raises(ValueError, match="30s, 10m or 2h"):
        Budget.of(text)


def found(teacher: Path, method: str, **given: Any) -> Prices:
    settings = {"batch_size": BATCH, "pairs": 40, "pair_steps": 4, **given}
    return prices(api.prepare(teacher, method, "digits", **settings)[0])


def counts(of: Prices) -> tuple[float, float, float]:
    """Evaluations of a step and of a pair, and the sets of pairs."""
    return of.step["evaluations"], of.pair["evaluations"], of.sets


def test_evaluations_are_those_of_the_methods_own_algorithm(tiny_teacher: Path):
    """Known by hand, in batches: reflow asks its student once. Consistency asks student, target,
    and by Heun's rule the teacher twice. A matching step of dmd2 is one of the critics (student and
    fake) and one of the student (itself, teacher and fake); its regression asks the student once.
    Guidance asks a teacher for two, but not the flow that reflow makes its later pairs from.
    """
    assert counts(found(tiny_teacher, "reflow")) == (BATCH, 4, 2)
    assert counts(found(tiny_teacher, "reflow", guidance=2.0)) == (BATCH, 8, 1.5)
    assert counts(found(tiny_teacher, "reflow", renew=False)) == (BATCH, 4, 1)
    assert counts(found(tiny_teacher, "consistency")) == (4 * BATCH, 0, 0)
    assert counts(found(tiny_teacher, "consistency", guidance=2.0)) == (6 * BATCH, 0, 0)
    matched = {"fake_turns": 1, "adversarial": 0.0, "warmup_share": 0.75}
    dmd2 = found(tiny_teacher, "dmd2", **matched)
    assert dmd2.stages["warm-up"]["evaluations"] == BATCH
    assert dmd2.stages["match"]["evaluations"] == 5 * BATCH
    assert counts(dmd2) == ((0.75 * 1 + 0.25 * 5) * BATCH, 4, 1)
    # rCM's turns change within its one stage: consistency alone (two), then with the matching.
    rcm = found(tiny_teacher, "rcm", tangent_warmup=0.75, fake_turns=1)
    assert rcm.step["evaluations"] == (0.75 * 2 + 0.25 * 7) * BATCH
    assert dmd2.step["seconds"] > 0 and dmd2.pair["seconds"] > 0


def test_teacher_samples_that_stand_for_data_are_charged_too(tiny_teacher: Path):
    assert counts(found(tiny_teacher, "consistency", teacher_data=True)) == (4 * BATCH, 4, 1)


STAGES = {"a": {"evaluations": 10.0, "seconds": 1.0}, "b": {"evaluations": 30.0, "seconds": 1.0}}
KNOWN = Prices({"evaluations": 20.0, "seconds": 1.0}, STAGES, {"evaluations": 5, "seconds": 0.1}, 2)


def spent(plan: Plan) -> float:
    return 20 * plan.max_steps + 5 * 2 * plan.pairs


def test_a_plan_spends_the_budget_and_no_more():
    plan = fitted(Budget(evaluations=10_000), KNOWN, 100, BATCH)
    assert (plan.pairs, plan.max_steps) == (100, 450) and spent(plan) == 10_000
    assert fitted(Budget(seconds=200), KNOWN, 100, BATCH).max_steps == 180
    cut = fitted(Budget(evaluations=10_000), KNOWN, 5000, BATCH)
    assert cut.pairs == PAIRS_SHARE * 10_000 / 10 and spent(cut) <= 10_000 < spent(cut) + 20


@pytest.mark.parametrize("evaluations", [30, 100, 600])
def test_too_small_a_budget_says_how_much_it_takes(evaluations: int):
    with pytest.raises(ValueError, match="times as much") as refused:
        fitted(Budget(evaluations=evaluations), KNOWN, 5000, BATCH)
    times = float(str(refused.value).partition("give ")[2].split()[0])
    fitted(Budget(evaluations=evaluations * (times + 0.01)), KNOWN, 5000, BATCH)
