"""Ranks, winners, claims and the page, on rows made by hand."""

import pytest
import torch

from genkit.benchmarks import page, ranking
from genkit.benchmarks.claims import CLAIMS, VARIANTS, Claim, verdict
from genkit.benchmarks.ranking import Found
from genkit.metrics.paired import over_seeds

BENCH = "analytic-digits"


def row(name, steps, seed, **figures):
    whole = {"nll": 32.0, "cover": 0.9, "class_tv": 0.1, "sw": 0.1, "fd": 0.1} | figures
    head = {"bench": BENCH, "name": name, "steps": steps, "seed": seed}
    return head | {"fate": "finished", "sentence": "", "figures": whole, "train_steps": 9}


def told(*rows):
    floor = [row("floor", 0, seed) for seed in range(5)]
    return {"rows": [*floor, *rows], "budget": "1k-nfe", "settings": {"seeds": 5}}


@pytest.fixture
def three():
    """a is the best but at the floor's own nll, where c is; b is the worst in all."""
    rows = []
    for seed in range(5):
        luck = 0.01 * seed
        rows += [
            row("a", 1, seed, nll=20 + luck, fd=0.2 + luck, sw=0.2, cover=0.8),
            row("b", 1, seed, nll=99, fd=0.5 + luck, sw=0.5, cover=0.1, class_tv=0.2),
            row("c", 1, seed, nll=33, fd=0.3 + luck, sw=0.3, cover=0.7, class_tv=0.15),
        ]
    return told(*rows)


def test_intervals_are_students():
    mean, low, high = over_seeds([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3 and high - mean == pytest.approx(2.776 * 1.5811 / 5**0.5, rel=1e-3)
    assert low == pytest.approx(6 - high)
    assert over_seeds([2.0]).high == float("inf")
    with pytest.raises(ValueError, match="no seeds"):
        over_seeds([])


def test_ranks_are_mean_places_over_figures(three):
    found = Found.of(three, BENCH)
    ranks = {name: rank.value for name, rank in found.order(1)}
    assert ranks == pytest.approx({"a": (2 + 1 + 1 + 1 + 1) / 5, "c": (1 + 2 * 4) / 5, "b": 3})
    assert list(ranks) == ["a", "c", "b"]


def test_less_than_the_floor_is_not_better_where_near_is_best(three):
    found = Found.of(three, BENCH)
    assert found.loss("nll", 17) > found.loss("nll", 33) > found.loss("nll", 32) == 0
    assert found.loss("cover", 0.9) < found.loss("cover", 0.1)


def test_the_winner_is_told_on_fresh_seeds(three):
    """c is the best on the last three seeds alone, where nobody looks when choosing."""
    for each in three["rows"]:
        if each["name"] == "c" and each["seed"] > 1:
            each["figures"] |= {"fd": 0.0, "sw": 0.0, "cover": 1.0, "class_tv": 0.0}
    assert Found.of(three, BENCH).winner(1) == ("a", [0, 1], [2, 3, 4])
    assert Found.of(three, BENCH).winner(4) is None


def test_differences_are_paired_by_seed(three):
    interval, seeds = Found.of(three, BENCH).difference(("a", 1), ("c", 1), "fd")
    assert seeds == 5 and interval == pytest.approx((-0.1, -0.1, -0.1)), "luck cancels"
    assert Found.of(three, BENCH).difference(("a", 1), ("nobody", 1), "fd") is None


def test_the_best_is_compared_on_fresh_seeds(three):
    three["rows"] += [row("teacher", 50, seed, fd=0.1) for seed in range(5)]
    interval, seeds = Found.of(three, BENCH).difference(("best", 1), ("teacher", 50), "fd")
    assert seeds == 3 and interval.value == pytest.approx(0.1 + 0.03), "a's, on seeds 2, 3 and 4"
    assert verdict(claim("best", "b"), three).says == "holds"


def claim(a, b, figure="fd", within=0.0):
    return Claim("it is so", "a paper", BENCH, (a, 1), (b, 1), figure, within)


def test_verdicts(three):
    assert verdict(claim("a", "c"), three).says == "holds"
    assert verdict(claim("c", "a"), three).says == "refuted"
    assert verdict(claim("a", "c", "nll"), three).says == "refuted", "too near to the centres"
    assert verdict(claim("a", "b", "cover"), three).says == "holds"
    assert verdict(claim("c", "a", within=0.6), three).says == "holds"
    assert verdict(claim("a", "slam"), three).says == "not measured"
    assert verdict(claim("a", "c"), {"rows": []}).says == "not measured"


def test_an_interval_that_holds_both_is_open(three):
    for each in three["rows"]:
        if each["name"] == "a" and each["seed"] in (1, 4):
            each["figures"]["fd"] = 0.6
    assert verdict(claim("a", "c"), three).says == "open"
    three["rows"] = [each for each in three["rows"] if each["seed"] == 0]
    assert verdict(claim("a", "c"), three).says == "open", "one seed shows nothing"


def test_claims_are_about_figures_there_are():
    for each in CLAIMS:
        assert each.figure in ranking.aims(each.bench)
    for name in VARIANTS:
        assert any(name in (each.row[0], each.than[0]) for each in CLAIMS)


def test_the_page_says_all_there_is(three):
    three["rows"].append(
        {"bench": BENCH, "name": "d", "steps": 1, "seed": 0, "fate": "collapsed", "sentence": "x"}
    )
    text = page.page(three, "rows.json")
    assert "| `a` | 1 | 1.2 +-0 | 20 +-" in text
    assert "| `d` | 1 (seed 0) | collapsed | x |" in text
    assert "| `a` | 1 | 0, 1 | 2, 3, 4 | 20 " in text
    assert text.count("not measured") == len(CLAIMS)
    assert "`a`" in page.text_tables(three) and "collapsed: x" in page.text_tables(three)


def test_the_claim_of_smaller_students_can_be_measured():
    """They are smaller, match the teacher's score first, and go their own ways by class."""
    from genkit.benchmarks.base import open_bench
    from genkit.benchmarks.problem import START, Training
    from genkit.networks.size import parameters

    problem = open_bench("conditional-variance", 50).problem
    begun = Training(START, problem, None, {"drop": 0.0}).run(1, 0, 0, watched=False)
    small = Training("msd:small", problem, begun, VARIANTS["msd:small"])
    assert small.method().stages()[0].share == 0.3
    student = small.run(8, 64, 0, watched=False)
    networks = student.network.network.networks
    assert len(networks) == 4 and parameters(networks[0]) < 0.6 * parameters(begun.network)
    assert not any(
        torch.equal(networks[0].leave.weight, each.leave.weight) for each in networks[1:]
    )
    assert student.samples(16, 0).isfinite().all()
