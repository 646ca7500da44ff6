"""Tests of genkit/benchmarks/attention.py."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from genkit.benchmarks import attention
from genkit.benchmarks.attention import Settings, main, measure

TINY = {
    "grids": ("8x12",),
    "group": "2x3",
    "dtypes": ("float32",),
    "head_dims": (16,),
    "backends": ("torch",),
    "rounds": 1,
    "error_rows": 8,
    "memory": False,
}
ASKED = {
    "region", "grid", "dtype", "head_dim", "backend", "seconds", "speedup", "bound", "fraction",
    "error",
}  # fmt: skip


def measured(monkeypatch: pytest.MonkeyPatch, seconds, **changed):
    """Rows by (region, backend, pass), where the i-th call takes seconds(i)."""
    monkeypatch.setattr(attention, "timed", lambda calls, n: {k: seconds(int(k)) for k in calls})
    rows = list(measure(Settings(**TINY | changed)))
    return {(row["region"], row["backend"], row["pass"]): row for row in rows}


def test_ratios_follow_from_seconds(monkeypatch: pytest.MonkeyPatch):
    # In turn: dense 8 s, surround 4 s, criss-cross 2 s, full 16 s, on 4 x 4 groups.
    rows = measured(monkeypatch, lambda i: (8.0, 4.0, 2.0, 16.0)[i])
    row = rows["surround", "torch", "forward"]
    assert set(row) >= ASKED and row["grid"] == "8x12" and not row["sampled"]
    assert (row["seconds"], row["dense_seconds"], row["speedup"]) == (4, 8, 2)
    assert row["bound"] == pytest.approx(16 / 9) and row["fraction"] == pytest.approx(2 * 9 / 16)
    assert row["speedup_by_full"] == 4 and row["fraction_by_full"] == pytest.approx(4 * 9 / 16)
    assert row["memory"] is None and row["forwards"] is None and 0 < row["error"] < 1e-5
    assert rows["criss_cross", "torch", "forward"]["bound"] == pytest.approx(16 / 7)
    assert rows["full", "sdpa", "forward"]["speedup"] == 1


def test_what_is_run_for_a_share_is_scaled(monkeypatch: pytest.MonkeyPatch):
    rows = measured(monkeypatch, lambda i: 1.0, whole=50, dense_rows=24)
    row = rows["full", "sdpa", "forward"]
    assert row["sampled"] and row["seconds"] == 4
    # Every fourth of 16 groups sees all, the others themselves: 4 x 16 + 12 of 256 pairs.
    row = rows["full", "torch", "forward"]
    assert row["sampled"] and row["seconds"] == pytest.approx(256 / 76)
    row = rows["surround", "torch", "forward"]
    assert not row["sampled"] and row["seconds"] == 1 and row["speedup"] == 4


def test_backward_and_derivatives_have_their_own_bounds(monkeypatch: pytest.MonkeyPatch):
    rows = measured(monkeypatch, lambda i: 2.0 + i, train=True, jvp=True, regions=("surround",))
    assert [key[2] for key in rows] == [
        "forward", "forward", "backward", "backward", "jvp", "func.jvp", "func.jvp",
    ]  # fmt: skip
    of = {key[2]: row for key, row in rows.items() if key[1] == "torch"}
    assert of["backward"]["speedup"] == 4 / 5 and of["backward"]["forwards"] == 5 / 3
    assert of["backward"]["bound"] == of["forward"]["bound"] == pytest.approx(16 / 9)
    assert of["jvp"]["speedup"] == 2 / 6 and of["jvp"]["forwards"] == 6 / 2
    assert of["jvp"]["bound"] == pytest.approx(16 / 27)
    assert of["func.jvp"]["bound"] == pytest.approx(32 / 63)
    assert rows["full", "naive", "func.jvp"]["speedup"] == 2 / 7
    assert all(0 <= row["error"] < 2e-5 for row in rows.values())


def test_the_table_and_the_rows_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = Settings(**TINY | {"grids": ("8x12", "4x6")}, json=str(tmp_path / "a" / "rows.json"))
    main(settings)
    held = json.loads((tmp_path / "a" / "rows.json").read_text())
    assert [row["grid"] for row in held["rows"]] == ["4x6"] * 4 + ["8x12"] * 4
    assert held["machine"]["threads"] and held["settings"]["rounds"] == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and len(set(map(len, lines[1:]))) == 1


def test_what_cannot_run_is_said(monkeypatch: pytest.MonkeyPatch, capsys):
    rows = measured(monkeypatch, lambda i: 1.0, backends=("cpp", "torch"), dtypes=("float16",))
    assert "cpp is left out: " in capsys.readouterr().err
    assert {key[1] for key in rows} == {"sdpa", "torch"}


def test_memory_is_asked_for_each_row(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(attention.cases, "peak_memory", lambda *x: asked.append(x[2:]) or 2**20)
    rows = measured(monkeypatch, lambda i: 1.0, memory=True, whole=50, dense_rows=24)
    assert asked == [("torch", "forward")] * 2  # not where the call is only a share of it
    assert [row["memory"] for row in rows.values()] == [None, 2**20, 2**20, None]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"regions": ("surround", "cross")}, r"regions has \['cross'\]; there are surround"),
        ({"dtypes": ("bf16",)}, "there are bfloat16"),
        ({"backends": ()}, "backends has none; there are torch, cpp, triton, reference"),
        ({"rounds": 0}, "at least 1"),
        ({"grids": ("big",)}, "'big' is no grid"),
        ({"grids": ("8x8x8",)}, "one positive size per axis"),
        ({"grids": ("1x2",)}, "larger than the grid"),
    ],
)
def test_mistakes_are_refused(changed, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        next(measure(Settings(**TINY | changed)))


def test_a_plot_says_what_it_needs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r'--plot needs matplotlib: pip install "genkit\[plot\]"'):
        Settings(**TINY, plot="speed.png")


def test_a_plot_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("matplotlib")
    assert importlib.import_module("matplotlib")
    rows = measured(monkeypatch, lambda i: 1.0, grids=("8x12", "4x6")).values()
    attention.draw(list(rows), tmp_path / "a" / "speed.png")
    assert (tmp_path / "a" / "speed.png").stat().st_size > 5000
