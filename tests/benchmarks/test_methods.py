"""The bench of methods: all are there, what fails is a row, and it goes on where it was stopped."""

import json
from dataclasses import replace

import pytest

from genkit import catalogue
from genkit.benchmarks import methods
from genkit.benchmarks.claims import CLAIMS
from genkit.benchmarks.methods import (
    COLLAPSED,
    FAILED,
    FINISHED,
    REFUSED,
    Settings,
    contenders,
    main,
    seeds_of,
    trainings,
)
from genkit.benchmarks.working import Work, spread
from genkit.training.health import Collapse

BENCH = "analytic-digits"


@pytest.fixture
def asked(tiny, tmp_path) -> Settings:
    """Two methods and their like, one of them at two numbers of steps by one training."""
    return Settings(
        bench=(BENCH,),
        methods=("regression", "consistency", "guidance_distill"),
        budget="4k-nfe",
        seeds=2,
        steps=(1, 2),
        n=50,
        jobs=1,
        json=str(tmp_path / "rows.json"),
    )


def keys(rows):
    return {(row["name"], row["steps"], row["seed"]) for row in rows}


def test_every_method_that_distils_is_there():
    found = contenders()
    every = {n for n, entry in catalogue.methods().items() if entry.facts["has_teacher"]}
    assert every <= set(found) and "flow_matching" not in found
    assert {name.partition(":")[0] for name in found} == every | {"flow_matching"}


def test_trainings_are_as_few_as_can_be(tiny):
    asked = Settings(methods=("sid", "consistency", "dmd2"), seeds=5, few_seeds=2)
    works = list(trainings(asked, BENCH))
    sampled = {(work.name, work.steps): work.sampled for work in works}
    assert sampled == {
        ("sid", None): (1,),
        ("consistency", 1): (1, 2, 4),
        ("dmd2", 1): (1,),
        ("dmd2", 2): (2,),
        ("dmd2", 4): (4,),
        ("independent", None): (1,),
    }
    seeds = {key: len(seeds_of(asked, work)) for key, work in zip(sampled, works, strict=True)}
    assert seeds["consistency", 1] == seeds["dmd2", 1] == 5 and seeds["dmd2", 4] == 2


def test_every_claim_is_about_rows_that_are_made(tiny):
    """At the steps that it names, and for more than one seed where it is no goal of few."""
    asked = Settings()
    made = {(work.name, k): work for work in trainings(asked, BENCH) for k in work.sampled}
    beside = {("best", 1), ("teacher", 50), ("flow_matching", 50)}
    for claim in CLAIMS:
        assert {claim.row, claim.than} <= beside | set(made)
        seeds = [len(seeds_of(asked, made[r])) for r in (claim.row, claim.than) if r in made]
        assert min(seeds, default=2) >= 2
    assert len(seeds_of(asked, made["flow_matching:pfgm", 50])) == asked.seeds


def test_a_whole_bench_and_its_going_on(asked, monkeypatch, capsys):
    rows = main(asked)
    done = {row["name"]: row for row in rows if row["fate"] == FINISHED}
    assert set(done) == {
        "floor",
        "teacher",
        "flow_matching",
        "regression",
        "consistency",
        "independent",
    }
    assert {("consistency", k, seed) for k in (1, 2) for seed in (0, 1)} <= keys(rows)
    assert {("teacher", k, 1) for k in (1, 2, 4, 50)} <= keys(rows)
    (refused,) = [row for row in rows if row["fate"] == REFUSED and row["steps"] == 1]
    assert refused["name"] == "guidance_distill" and "folds nothing in" in refused["sentence"]
    spent = [row["evaluations"] for row in rows if "evaluations" in row]
    assert all(3000 < each <= 4000 for each in spent), "equal, pairs and teacher included"
    assert json.loads(open(asked.json).read())["rows"] == rows
    shown = capsys.readouterr()
    assert "minutes" in shown.err and "guidance_distill" in shown.out

    ran = []
    real = methods.run_one
    monkeypatch.setattr(methods, "run_one", lambda work: ran.append(work) or real(work))
    again = main(asked)
    assert not ran and keys(again) == keys(rows)
    more = main(replace(asked, methods=("regression", "shortcut"), seeds=1))
    assert {work.name for work in ran} == {"shortcut"} and keys(more) > keys(again) - {
        ("guidance_distill", 1, 0), ("guidance_distill", 2, 0)
    }  # fmt: skip
    with pytest.raises(ValueError, match="budget was '4k-nfe' and is '20k-nfe'"):
        main(replace(asked, budget="20k-nfe"))


def test_what_collapses_or_fails_is_a_row(asked, monkeypatch):
    from genkit.benchmarks.problem import Training

    real = Training.run

    def run(self, *args, **kwargs):
        if self.name == "regression" and self.paired:
            raise Collapse("the samples hardly depend on the noise any more")
        if self.name == "consistency":
            raise KeyError("teacher")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Training, "run", run)
    rows = main(replace(asked, seeds=1, methods=("regression", "consistency")))
    fates = {(row["name"], row["steps"]): (row["fate"], row["sentence"]) for row in rows}
    assert fates["regression", 1] == (COLLAPSED, "the samples hardly depend on the noise any more")
    assert fates["consistency", 2] == (FAILED, "KeyError: 'teacher'")
    monkeypatch.setattr(Training, "run", real)
    rows = main(replace(asked, seeds=1, methods=("regression", "consistency")))
    fates = {(row["name"], row["steps"]): row["fate"] for row in rows}
    assert fates["consistency", 2] == FINISHED, "what failed is tried again"
    assert fates["regression", 1] == COLLAPSED, "what collapsed would do so again"


def test_rows_of_a_seed_are_the_same_whoever_is_beside(asked):
    rows = main(replace(asked, seeds=1, methods=("regression",)))
    more = main(
        replace(asked, seeds=1, methods=("consistency", "regression"), json=asked.json + "2")
    )
    first, second = (
        next(row["figures"] for row in each if row["name"] == "regression") for each in (rows, more)
    )
    assert first == second


def test_work_is_spread_over_processes():
    todo = [Work(BENCH, str(i), None, "1k-nfe", seed=i) for i in range(4)]
    assert {work: told for work, told in spread(repr, todo, 2)} == {w: repr(w) for w in todo}


def test_other_seeds_are_another_file(asked):
    asked = replace(asked, few_seeds=2)
    rows = main(replace(asked, seeds=2, methods=("regression", "guidance_distill")))
    later = replace(asked, seeds=1, first_seed=1, methods=("regression",))
    with pytest.raises(ValueError, match="first_seed was 0 and is 1"):
        main(later)
    theirs = main(replace(later, json=asked.json + "2"))
    assert {row["seed"] for row in theirs} == {1}
    assert [row["figures"] for row in theirs] == [
        row["figures"] for row in rows if row["seed"] == 1 and row["fate"] == FINISHED
    ], "the same seed is the same, whichever is the first"
    old = json.loads(open(asked.json).read())
    del old["first_seed"]  # a file of before there was such a setting
    open(asked.json, "w").write(json.dumps(old))
    with pytest.raises(ValueError, match="first_seed was 0 and is 1"):
        main(later)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="first_seed is -1"):
        Settings(first_seed=-1)
    with pytest.raises(ValueError, match="at least 1 seed"):
        Settings(seeds=0)
    with pytest.raises(ValueError, match="of evaluations"):
        Settings(budget="10m")
    with pytest.raises(ValueError, match="did you mean 'reflow'"):
        main(Settings(methods=("reflov",)))
    with pytest.raises(ValueError, match="did you mean 'spectral-fields'"):
        main(Settings(bench=("spectral",)))


def test_it_is_a_command(monkeypatch):
    from genkit.commands import bench as command

    seen = []
    monkeypatch.setattr(methods, "main", seen.append)
    line = "methods --bench spectral_fields --methods reflow,dmd2 --budget 200k-nfe --seeds 3"
    assert command.run(line.split()) == 0
    settings = Settings(
        bench=("spectral_fields",), methods=("reflow", "dmd2"), budget="200k-nfe", seeds=3
    )
    assert seen == [settings] and settings.asked().bench == ("spectral-fields",)
    assert replace(settings, quick=True).asked().seeds == 1
