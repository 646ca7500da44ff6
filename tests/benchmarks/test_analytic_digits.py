"""The analytic-digits bench: its figures know real from false, and its rows hold together."""

import json

import pytest
import torch

from genkit.benchmarks import analytic_digits
from genkit.benchmarks.analytic_digits import Bench, Settings, floor_row, main, table, teacher_row


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench.of(2000)


def test_fresh_draws_score_half_the_dimension(bench):
    row = floor_row(bench, 0)
    assert abs(row["nll"] - 32) < 0.5
    # 2,000 draws over 1,797 digits miss exp(-2000 / 1797) of them.
    assert abs(row["cover"] - (1 - 0.3286)) < 0.03
    assert row["class_tv"] < 0.05 and row["sw"] < 0.05 and row["fd"] < 0.5


def test_centres_are_the_peak(bench):
    """nll is 0 at a digit that stands alone, and every digit is then covered."""
    figures = bench.figures(bench.density.means)
    assert -1 < figures["nll"] < 0.01 and figures["cover"] == 1.0
    assert figures["class_tv"] < 1e-3


def test_each_figure_sees_its_own_fault(bench):
    row = floor_row(bench, 0)
    x, component = bench.density.draw(2000, torch.Generator().manual_seed(5))
    noisy = bench.figures(x + 0.15 * torch.randn(x.shape, generator=torch.Generator()))
    assert noisy["nll"] > 1.5 * row["nll"]
    ones = bench.figures(x[bench.labels[component] == 1])
    assert ones["class_tv"] > 0.85 and ones["cover"] < 0.12 and ones["fd"] > 10 * row["fd"]
    few = bench.figures(x[:100].repeat(20, 1, 1, 1))
    assert few["cover"] < 0.06 and few["sw"] > 1.5 * row["sw"]


def test_one_step_of_the_teacher_is_the_mean(bench):
    row = teacher_row(bench, 1, 0)
    assert row["name"] == "teacher, order 1" and row["cover"] < 0.01 and row["class_tv"] > 0.8


def test_more_steps_and_higher_order_help(bench):
    two, four = teacher_row(bench, 2, 0), teacher_row(bench, 4, 0)
    assert four["name"] != "teacher, order 1" and four["sw"] < two["sw"] / 2


def test_methods_are_found():
    found = analytic_digits.all_methods()
    assert {"reflow", "consistency", "dmd2", "regression"} <= set(found)
    assert not {"flow_matching", "guidance_distill"} & set(found)


def test_table_is_of_means():
    rows = [{"name": "a", "steps": 1, "seed": i, "nll": float(i), "fd": 2.0} for i in (1, 2)]
    text = table([*rows, {"name": "b", "steps": 0, "seed": 0, "nll": 7.0}])
    assert "1.5" in text.splitlines()[1] and "-" in text.splitlines()[2]


@pytest.mark.slow
def test_the_whole_bench_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(analytic_digits, "TEACHER_STEPS", (1,))
    file = tmp_path / "rows.json"
    found = main(Settings(seconds=1, seeds=1, json=str(file), n=500))
    names = [row["name"] for row in found]
    assert names[:2] == ["floor", "teacher, order 1"] and names[-1] == analytic_digits.CONTROL
    assert {"consistency", "dmd2", "reflow"} <= set(names)
    assert json.loads(file.read_text())["rows"] == found


def test_what_it_refuses():
    with pytest.raises(ValueError, match="at least 1 seed"):
        Settings(seeds=0)
    with pytest.raises(ValueError, match="give more than 0"):
        main(Settings(seconds=0))
    with pytest.raises(ValueError, match="did you mean 'reflow'"):
        main(Settings(methods=("reflov",)))


def test_it_is_a_command(monkeypatch, capsys):
    from genkit.commands import bench as command

    seen = []
    monkeypatch.setattr(analytic_digits, "main", seen.append)
    assert command.run(["methods", "--seconds", "5", "--methods", "reflow,dmd2"]) == 0
    assert seen == [Settings(seconds=5, methods=("reflow", "dmd2"))]
