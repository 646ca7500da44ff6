"""LCSC: sums of checkpoints, the coefficients of running averages, and a search with a known answer
(card 15, checks i to iv)."""

import math

import pytest
import torch
from torch import nn

from genkit.methods.base import Ema, constant
from genkit.search import lcsc
from genkit.search.lcsc import averaging, beginnings, combine, search
from genkit.training.ema import Average


def states(count=4, seed=0):
    """Checkpoints of a network with an integer buffer, a frozen weight and half precision."""
    draw = torch.Generator().manual_seed(seed)
    frozen = torch.randn(3, generator=draw)
    return [
        {
            "weight": torch.randn(5, 4, generator=draw),
            "half": (2000 + 10 * torch.randn(6, generator=draw)).half(),
            "frozen": frozen.clone(),
            "seen": torch.tensor([i * 10]),
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("which", range(4))
def test_one_coefficient_gives_a_checkpoint_s_bits(which):
    weights = [0.0] * 4
    weights[which] = 1.0
    combined = combine(states(), weights)
    for name, value in states()[which].items():
        assert torch.equal(combined[name], value) and combined[name].dtype == value.dtype


def test_the_coefficients_of_an_average_give_the_average():
    module = nn.Linear(4, 5, bias=False)
    rows = states(9)
    with torch.no_grad():
        module.weight.copy_(rows[0]["weight"])
        average = Average(module, Ema(constant(0.9)))
        for row in rows[1:]:
            module.weight.copy_(row["weight"])
            average.update()
    weights = averaging(9, 0.9)
    assert weights.sum().item() == pytest.approx(1, abs=1e-12)
    combined = combine(rows, weights.tolist())["weight"]
    assert torch.allclose(combined, average.module.state_dict()["weight"], atol=1e-6)


def test_sums_are_in_float32_and_what_is_no_weight_is_copied():
    rows, weights = states(), [40.0, -40.0, 1.5, -0.5]
    combined = combine(rows, weights)
    exact = sum(w * row["half"].double() for w, row in zip(weights, rows, strict=True))
    assert torch.allclose(combined["half"].double(), exact, atol=1.0)
    assert (40 * rows[0]["half"]).isinf().all(), "40 of it is more than a half can hold"
    assert torch.equal(combined["frozen"], rows[0]["frozen"]), "(40 - 40 + 1) x is not x in bits"
    assert combined["seen"] == rows[0]["seen"] and combined["seen"].dtype == torch.int64


@pytest.mark.parametrize("call", [lambda: combine([], []), lambda: search(lambda w: 0.0, 0)])
def test_no_checkpoint_is_one_sentence(call):
    with pytest.raises(ValueError, match="no checkpoint to combine; train with --keep-weights"):
        call()


def test_other_mistakes_are_one_sentence():
    with pytest.raises(ValueError, match="3 weights for 4 checkpoints"):
        combine(states(), [1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="begins with 11 combinations of 4 checkpoints"):
        search(lambda w: 0.0, 4, evaluations=10)


def quadratic(count, seed):
    """(metric of the coefficients, its least value over those that add up to 1), the latter by the
    optimality conditions [2 T H T', 1; 1', 0] [w; m] = [2 T H theta*; 1]."""
    draw = torch.Generator().manual_seed(seed)
    size = 2 * count

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    theta = 0.5 * normal(count, size).cumsum(0) + 0.3 * normal(count, size)
    best = 1.3 * theta[-1] + 0.3 * normal(size)
    root = normal(size, size)
    h = root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64)

    def metric(weights):
        away = weights @ theta - best
        return float(away @ h @ away)

    system = torch.ones(count + 1, count + 1, dtype=torch.float64)
    system[:count, :count], system[count, count] = 2 * theta @ h @ theta.T, 0
    right = torch.cat([2 * theta @ h @ best, torch.ones(1, dtype=torch.float64)])
    return metric, metric(torch.linalg.solve(system, right)[:count])


@pytest.mark.parametrize("count, seed", [(4, 0), (6, 1), (8, 2)])
def test_finds_the_optimum_of_a_quadratic(count, seed):
    metric, least = quadratic(count, seed)
    found = search(metric, count, evaluations=100 * count)
    assert found.weights.sum().item() == pytest.approx(1, abs=1e-9)
    assert least <= found.score < 1.01 * least
    assert min(found.began.values()) > 1.05 * least, "the beginnings were near already"


def test_is_never_worse_than_what_it_begins_with():
    metric, _ = quadratic(5, 3)
    for evaluations in (len(beginnings(5)), 20, 60):
        found = search(metric, 5, evaluations)
        assert found.score <= min(found.began.values())
        assert found.score == metric(found.weights) and len(found.history) == evaluations
        assert all(b <= a for a, b in zip(found.history, found.history[1:], strict=False))


def test_the_same_seed_finds_the_same_and_no_number_is_never_best():
    metric, _ = quadratic(4, 0)
    one, two, other = (search(metric, 4, 60, seed) for seed in (0, 0, 1))
    assert torch.equal(one.weights, two.weights) and not torch.equal(one.weights, other.weights)
    holed = search(lambda w: math.nan if w.min() < 0 else metric(w), 4, 60)
    assert math.isfinite(holed.score) and holed.weights.min() >= 0


def test_the_broken_twin_forgets_the_first_checkpoint(monkeypatch):
    """The published mistake (card 15): the alpha_i of all but theta_0 add up to 1, so that theta_0
    has no coefficient; then the optimum is out of reach."""
    whole = lcsc._plane

    def without_the_first(count):
        inner = whole(count - 1)
        return torch.block_diag(torch.zeros(1, 1, dtype=inner.dtype), inner)

    metric, least = quadratic(4, 0)
    monkeypatch.setattr(lcsc, "_plane", without_the_first)
    assert search(metric, 4, evaluations=400).score > 1.01 * least
