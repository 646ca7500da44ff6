"""Conditional variance: every loss of diversity has its figure."""

import pytest
import torch

from genkit.benchmarks.base import open_bench
from genkit.benchmarks.conditional_variance import MODES


@pytest.fixture(scope="module")
def bench():
    return open_bench("conditional-variance")


@pytest.fixture(scope="module")
def floor(bench):
    return bench.floor(0)


def test_fresh_draws_are_right(floor):
    assert abs(floor["variance"] - 1) < 0.03 and floor["variance_error"] < 0.05
    assert abs(floor["width"] - 1) < 0.03 and floor["width_error"] < 0.05
    assert floor["modes_tv"] < 0.05 and floor["cover"] == 1.0


def of(bench, x):
    return bench.measured(x)


def test_less_noise_is_less_width_but_hardly_less_variance(bench, floor):
    label = bench.problem.cond(4000)["label"]
    x = torch.randn(4000, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    centre, component = bench.density.draw(4000, torch.Generator().manual_seed(2), label)
    sharp = bench.density.means[component] + 0.5 * (centre - bench.density.means[component])
    figures = of(bench, sharp)
    assert figures["width"] == pytest.approx(0.25, rel=0.05)
    assert figures["modes_tv"] < 0.05 and figures["sw"] > floor["sw"]
    assert of(bench, x)["width_error"] > 1


def test_one_mode_for_each_y_loses_variance_and_modes(bench, floor):
    label = bench.problem.cond(4000)["label"]
    heaviest = torch.tensor([sum(MODES[: y + 1]) - 1 for y in range(len(MODES))])
    std = bench.density.std[heaviest][label].float()[:, None, None, None]
    noise = torch.randn(4000, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    figures = of(bench, bench.density.means[heaviest][label] + std * noise)
    assert figures["cover"] == pytest.approx(8 / sum(MODES))
    assert figures["modes_tv"] > 0.3 and figures["variance"] < 0.5 < floor["variance"]
    assert abs(figures["width"] - 1) < 0.05, "each mode that is there is as wide as it should be"


def test_the_wrong_condition_is_seen(bench, floor):
    x = bench.reference.roll(2, 0)
    figures = of(bench, x)
    assert figures["sw"] > 5 * floor["sw"] and figures["width_error"] > 1


def test_equal_masses_are_wrong_masses(bench):
    label = bench.problem.cond(4000)["label"]
    even = torch.arange(4000) // len(MODES)
    first = torch.tensor([sum(MODES[:y]) for y in range(len(MODES))])[label]
    component = first + even % torch.tensor(MODES)[label]
    figures = of(bench, bench.density.means[component])
    # Of 8, 4, 2 and 1 modes a total variation of 2/9, 1/5, 1/6 and 0.
    assert figures["modes_tv"] == pytest.approx((2 / 9 + 1 / 5 + 1 / 6) / 4, abs=0.01)
