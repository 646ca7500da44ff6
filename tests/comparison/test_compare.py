"""Whole comparisons on a tiny teacher: equal budgets, every fate a row, resuming, refusals."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from genkit import api, catalogue
from genkit.cli import main
from genkit.commands.compare import read_settings
from genkit.comparison import compare as comparing
from genkit.comparison.compare import compare
from genkit.comparison.results import section

BUDGET = 4000
# A step size that ends in NaN, and a number of steps that cannot be halved to one.
BROKEN = {"shortcut.lr": 1e18, "shortcut.warmup": 0, "progressive.base_steps": 12}
TINY: dict[str, Any] = {"batch_size": 16, "pairs": 40, "pair_steps": 2, "bootstraps": 2}
METHODS = ("reflow", "consistency", "shortcut", "progressive")


def asked(teacher: Path, out: Path, **given: Any) -> dict[str, Any]:
    whole = {"budget": f"{BUDGET}-nfe", "steps": (1, 2), "n": 60, "data": "digits", **given}
    whole.setdefault("methods", METHODS)
    whole["settings"] = TINY | whole.get("settings", BROKEN)
    return compare(str(teacher), out=out, **whole)


@pytest.fixture(scope="module")
def out(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparisons") / "four"
    asked(tiny_teacher, folder)
    return folder


@pytest.fixture(scope="module")
def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "comparison.json").read_text())


def test_every_method_is_a_row_whatever_became_of_it(result: dict[str, Any]):
    fates = {row["method"]: row["fate"] for row in result["rows"]}
    assert fates == {
        "reflow": "finished",
        "consistency": "finished",
        "shortcut": "collapsed",
        "progressive": "failed",
    }
    told = {row["method"]: row["sentence"] for row in result["summary"]}
    assert "turned" in told["shortcut"] and "doubled once or more" in told["progressive"]
    assert told["reflow"] == told["consistency"] == ""


def test_those_that_finish_spend_the_same(result: dict[str, Any]):
    """Up to what a step costs: 16 for reflow, 4 times that for consistency."""
    done = {row["method"]: row for row in result["rows"] if row["fate"] == "finished"}
    assert BUDGET - 16 < done["reflow"]["training_evaluations"] <= BUDGET
    assert BUDGET - 64 < done["consistency"]["training_evaluations"] <= BUDGET
    assert done["consistency"]["train_steps"] == BUDGET // 64
    # Pairs twice: the teacher's, and the flow's own.
    assert (BUDGET - 2 * 40 * 2) // 16 == done["reflow"]["train_steps"]


def test_the_teacher_and_the_floor_stand_beside(result: dict[str, Any]):
    assert [row["steps"] for row in result["teacher_rows"]] == [1, 2]
    wanted = {"fd", "sw", "recall", "diversity", "class_accuracy", "seconds_per_sample"}
    for row in (*result["teacher_rows"], *result["summary"][:2]):
        assert wanted | {"latency", "sampling_evaluations"} <= row.keys()
    assert {"fd", "sw", "recall"} <= result["floor"].keys()
    assert result["ranked_by"] == "fd"
    ranked = [row["fd"] for row in result["summary"] if row["seeds"]]
    assert ranked == sorted(ranked) and len(ranked) == 2


def test_the_page_stands_alone_and_shows_all(out: Path, result: dict[str, Any]):
    page = (out / "comparison.html").read_text()
    assert not re.search(r"https?://", page) and page.count("<svg") == 3
    assert "data:image/png;base64," in page and (out / "grid.png").exists()
    for word in (*METHODS, "floor: real data", "teacher, 2", "doubled once or more", "4000-nfe"):
        assert word in page, word
    assert 'href="reflow-0/report.html"' in page and (out / "reflow-0/report.html").exists()


def test_the_same_command_runs_nothing_again(
    out: Path, result: dict[str, Any], tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch
):
    tried = []
    monkeypatch.setattr(api, "distill", lambda *given, **config: tried.append(given))
    again = asked(tiny_teacher, out)
    assert tried == [], "progressive is refused before it is trained, shortcut stays collapsed"
    fates = [(row["method"], row["fate"], row["sentence"]) for row in again["rows"]]
    assert fates == [(row["method"], row["fate"], row["sentence"]) for row in result["rows"]]


def test_two_at_a_time_are_the_same(result: dict[str, Any], tiny_teacher: Path, tmp_path: Path):
    """Up to what one thread and several round differently."""
    both = asked(tiny_teacher, tmp_path / "two", jobs=2)
    assert len(both["rows"]) == len(result["rows"])
    for one, two in zip(result["rows"], both["rows"], strict=True):
        assert [one[part] for part in ("method", "fate")] == [two["method"], two["fate"]]
        if one["fate"] == "finished":
            assert one["training_evaluations"] == two["training_evaluations"]
            assert two["fd"] == pytest.approx(one["fd"], rel=1e-3)
    assert both["ranked_by"] == "fd"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"budget": "5000-nfe"}, "holds another comparison .budget was '4000-nfe' and is '5000"),
        ({"settings": {}}, "another comparison .settings was"),
    ],
)
def test_another_comparison_goes_elsewhere(changed: dict, says: str, out: Path, tiny_teacher: Path):
    with pytest.raises(ValueError, match=says):
        asked(tiny_teacher, out, **changed)


def test_what_is_stopped_goes_on(
    tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    distill, seen = api.distill, []

    def stopped(*given: Any, **config: Any) -> Any:
        seen.append(config["seed"])
        if len(seen) == 2:
            raise KeyboardInterrupt("saved at step 3")
        return distill(*given, **config)

    given = {"methods": ("reflow",), "seeds": 2, "settings": {}, "budget": "2000-nfe"}
    with monkeypatch.context() as patch:
        patch.setattr(api, "distill", stopped)
        with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
            asked(tiny_teacher, tmp_path / "cut", **given)
    half = json.loads((tmp_path / "cut/comparison.json").read_text())
    assert [row["fate"] for row in half["rows"]] == ["finished", "not run yet"]
    assert "not run yet" in (tmp_path / "cut/comparison.html").read_text()
    whole = asked(tiny_teacher, tmp_path / "cut", **given)
    assert [row["fate"] for row in whole["rows"]] == ["finished"] * 2
    assert whole["rows"][0] == half["rows"][0]
    one, two = whole["rows"]
    assert one["train_steps"] == two["train_steps"] and one["fd"] != two["fd"]
    summary = whole["summary"][0]
    assert summary["seeds"] == 2 and summary["fd"] == pytest.approx((one["fd"] + two["fd"]) / 2)
    assert summary["spread"] == pytest.approx(abs(one["fd"] - two["fd"]))


def test_presets_change_neither_target_nor_measure(tiny_teacher: Path, tmp_path: Path):
    """dmd2's preset for the emoji scenes has its own guidance and precision."""

    def own(**settings: Any) -> dict[str, Any]:
        given = ("dmd2", "scm"), "1s", 1, tmp_path, "digits", (), 60, settings
        return comparing._asked(tiny_teacher, *given).own("dmd2")

    assert own() == {"guidance": 1.0, "evaluate_precision": "no"}
    assert own(guidance=3.0, **{"scm.lr": 1.0})["guidance"] == 3.0
    assert own(**{"dmd2.guidance": 2.0, "lr": 1e-5}) == {
        "guidance": 2.0,
        "evaluate_precision": "no",
        "lr": 1e-5,
    }


# ---- Mistakes ----


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"methods": ("reflo",)}, "did you mean 'reflow'"),
        ({"methods": ()}, "give different ones"),
        ({"methods": ("reflow", "reflow")}, "give different ones"),
        ({"methods": ("flow_matching",)}, "without a teacher; leave it out"),
        ({"budget": "10"}, "budget is '10'"),
        ({"seeds": 0}, "seeds is 0"),
        ({"n": 3}, "n 3"),
        ({"steps": (0,)}, "steps are"),
        ({"jobs": 0}, "jobs is 0"),
        ({"budget": "9s", "jobs": 2}, "would slow each other down"),
        ({"data": "digit"}, "did you mean 'digits'"),
        ({"settings": {"max_steps": 3}}, "max_steps is the same for all"),
        ({"settings": {"dmd2.lr": 3}}, "no compared method is called 'dmd2'"),
        ({"settings": {"reflow.lrr": 3}}, "did you mean 'lr'"),
    ],
)
def test_mistakes_are_said_before_anything_is_made(
    given: dict, says: str, tiny_teacher: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match=says):
        asked(tiny_teacher, tmp_path / "out", **{"methods": ("reflow",), "settings": {}, **given})
    assert not (tmp_path / "out").exists()


def test_all_are_those_that_distil(
    tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tried = []
    monkeypatch.setattr(comparing, "_run", lambda asked, method, seed: tried.append(method))
    asked(tiny_teacher, tmp_path / "out", methods=("reflow", "all"), settings={})
    assert tried[0] == "reflow" and len(set(tried)) == len(tried)
    facts = {name: entry.facts["has_teacher"] for name, entry in catalogue.methods().items()}
    assert set(tried) == {name for name, taught in facts.items() if taught}


def test_the_results_page_takes_a_comparison(result: dict[str, Any]):
    text = section(result, "figures.json")
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("|  | fate"))
    assert "| fd |" in head and "Rows: figures.json" in text
    rows = [line for line in lines if line.startswith(("| reflow |", "| consistency |"))]
    assert all(row.count("|") == head.count("|") for row in rows) and len(rows) == 2
    assert "| progressive | base_steps is 12" in text and "| floor: real data |" in text


def test_a_folder_of_something_else_is_left_alone(tiny_teacher: Path, tmp_path: Path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        asked(tiny_teacher, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


def test_too_small_a_budget_is_a_row(tiny_teacher: Path, tmp_path: Path):
    told = asked(tiny_teacher, tmp_path / "out", methods=("reflow",), budget="9-nfe", settings={})
    assert told["rows"][0]["fate"] == "failed" and "times as much" in told["rows"][0]["sentence"]
    assert (tmp_path / "out/comparison.html").exists() and told["ranked_by"] is None


def test_the_command_line(
    tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: Any
):
    monkeypatch.chdir(tmp_path)
    words = ["compare", "--teacher", str(tiny_teacher), "--methods"]
    assert main([*words, "reflow,dmd"]) == 2
    assert "did you mean 'dmd2'" in capsys.readouterr().err
    seen = {}
    monkeypatch.setattr(comparing, "compare", lambda **given: seen.update(given))
    assert main([*words, "reflow,dmd2", "--budget", "30s", "--set", "pairs=7,dmd2.time=x"]) == 0
    assert seen["methods"] == ("reflow", "dmd2") and seen["out"] == "runs/compare"
    assert seen["settings"] == {"pairs": 7, "dmd2.time": "x"}


def test_settings_are_read_as_json_or_as_written():
    assert read_settings(["a=1", "b.c=x=y", "d=true"]) == {"a": 1, "b.c": "x=y", "d": True}
    with pytest.raises(ValueError, match="name=value"):
        read_settings(["lr"])
