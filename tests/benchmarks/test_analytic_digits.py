"""The analytic digits: every figure knows real from false."""

import pytest
import torch

from genkit.benchmarks.base import open_bench


@pytest.fixture(scope="module")
def bench():
    return open_bench("analytic-digits", 2000)


def test_fresh_draws_score_half_the_dimension(bench):
    row = bench.floor(0)
    assert abs(row["nll"] - 32) < 0.5
    # 2,000 draws over 1,797 digits miss exp(-2000 / 1797) of them.
    assert abs(row["cover"] - (1 - 0.3286)) < 0.03
    assert row["class_tv"] < 0.05 and row["sw"] < 0.05 and row["fd"] < 0.5
    assert abs(row["nearest"] - 0.15 * 8) < 0.05


def test_centres_are_the_peak(bench):
    """nll is 0 at a digit that stands alone, and every digit is then covered."""
    figures = bench.measured(bench.density.means)
    assert -1 < figures["nll"] < 0.01 and figures["cover"] == 1.0
    assert figures["class_tv"] < 1e-3 and figures["nearest"] < 1e-4


def test_each_figure_sees_its_own_fault(bench):
    row = bench.floor(0)
    x, component = bench.density.draw(2000, torch.Generator().manual_seed(5))
    noisy = bench.measured(x + 0.15 * torch.randn(x.shape, generator=torch.Generator()))
    assert noisy["nll"] > 1.5 * row["nll"]
    ones = bench.measured(x[bench.labels[component] == 1])
    assert ones["class_tv"] > 0.85 and ones["cover"] < 0.12 and ones["fd"] > 10 * row["fd"]
    few = bench.measured(x[:100].repeat(20, 1, 1, 1))
    assert few["cover"] < 0.06 and few["sw"] > 1.5 * row["sw"]


def test_the_teacher_takes_its_best_solver(bench):
    one, two, four = (bench.teacher(steps, 0) for steps in (1, 2, 4))
    assert one["order"] == 1 and one["cover"] < 0.01 and one["class_tv"] > 0.8, "the mean"
    assert four["order"] > 1 and four["sw"] < two["sw"] / 2
