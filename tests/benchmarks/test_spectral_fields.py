"""Spectral fields: the field has its spectrum, the leaves their edges, and blur is seen."""

import pytest
import torch

from genkit.benchmarks.base import open_bench
from genkit.benchmarks.spectral_fields import SIZE, STD, dead_leaves, kurtosis, spectrum


@pytest.fixture(scope="module")
def bench():
    return open_bench("spectral-fields", 1000)


def blurred(x):
    return torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def test_the_field_has_its_spectrum(bench):
    row = bench.floor(0)
    _, radius, std = spectrum()
    power = std[0].square()
    assert power.mean() == pytest.approx(STD**2)
    ratio = power[radius == 3].mean() / power[radius == 12].mean()
    assert ratio == pytest.approx(16.0), "a fourth of the frequency, sixteen times the power"
    assert row["slope_field"] == pytest.approx(-2.0, abs=0.05)
    assert abs(row["high_field"] - 1) < 0.03 and abs(row["high_leaves"] - 1) < 0.1
    assert row["kurtosis_field"] == pytest.approx(3.0, abs=0.1)


def test_leaves_have_edges_and_the_variance_of_the_field(bench):
    x = dead_leaves(400, torch.Generator().manual_seed(3))
    assert x.shape == (400, 1, SIZE, SIZE) and abs(float(x.std()) - STD) < 0.05
    assert kurtosis(x) > 6 and not x.isnan().any()
    assert -3 < bench.slope(x) < -1.5


def test_blur_shows_in_the_high_band_and_the_slope(bench):
    row, soft = bench.floor(0), bench.measured(blurred(bench.reference))
    for name in ("field", "leaves"):
        assert soft[f"high_{name}"] < 0.6 < row[f"high_{name}"]
        assert soft[f"slope_{name}"] < row[f"slope_{name}"] - 0.3
    assert soft["kurtosis_leaves"] < 0.8 * row["kurtosis_leaves"]


def test_classes_are_kept_apart(bench):
    swapped = bench.figures(bench.reference, {"label": 1 - bench.problem.cond(1000)["label"]})
    row = bench.floor(0)
    assert swapped["kurtosis_field"] > 2 * row["kurtosis_field"]
    assert swapped["cover"] < row["cover"] and swapped["nearest"] > 2 * row["nearest"]


def test_copies_of_few_leaves_cover_few(bench):
    x = bench.reference.clone()
    x[1::2] = bench.examples[:5].repeat(100, 1, 1, 1)
    figures = bench.measured(x)
    assert figures["cover"] == pytest.approx(5 / 256) and figures["nearest"] < 1e-5


def test_few_steps_of_the_teacher_are_worse(bench):
    one, four = bench.teacher(1, 0), bench.teacher(4, 0)
    assert one["kurtosis_leaves"] < four["kurtosis_leaves"] and four["sw"] < one["sw"]
