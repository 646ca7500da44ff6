"""Methods side by side on densities known exactly, at equal network evaluations.

Three benches: analytic-digits, spectral-fields, conditional-variance. Every method that distils a
teacher is trained with the settings it has for the bench, at 1, 2 and 4 steps where its sampler
takes several (on discrete VP where it takes no rectified flow). Beside them stand the floor (fresh
draws), the exact teacher with its best solver, the network all students begin with, and a
regression of data on unrelated noise. What refuses, fails or collapses is a row with its sentence.
Within a seed all share one start, one teacher and one noise. The same command goes on where it was
stopped; methods, benches and seeds can be added.
The results page: python scripts/write_results.py FILE.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from genkit.benchmarks import base
from genkit.benchmarks.base import open_bench
from genkit.benchmarks.claims import VARIANTS
from genkit.benchmarks.problem import START, Student, Training, class_of
from genkit.benchmarks.vp import suited
from genkit.benchmarks.working import Work, spread
from genkit.comparison.budget import Budget
from genkit.runs import say
from genkit.training.checkpoints import write_text
from genkit.training.health import Collapse

FLOOR, TEACHER, CONTROL = "floor", "teacher", "independent"
TEACHER_STEPS = (1, 2, 4, 50)
FINISHED, COLLAPSED, FAILED, REFUSED = "finished", "collapsed", "failed", "refused"

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What is compared, and for how long."""

    bench: tuple[str, ...] = base.NAMES
    """Of analytic-digits, spectral-fields and conditional-variance."""
    methods: tuple[str, ...] = ()
    """Only these, besides what stands beside them; none named means all."""
    budget: str = "100k-nfe"
    """Network evaluations of every training, teacher pairs included; the start's come on top."""
    seeds: int = 5
    """Seeds of what is trained."""
    first_seed: int = 0
    """The first of them. Settings are chosen on 100 and on, and reported on 0 and on."""
    few_seeds: int = 1
    """Seeds of students trained anew for 2 and for 4 steps, which most methods need."""
    steps: tuple[int, ...] = (1, 2, 4)
    """Numbers of steps of the students."""
    n: int | None = None
    """Samples that are measured; by default each bench's own number."""
    jobs: int = min(2, os.cpu_count() or 1)
    """Trainings at a time, of one thread each; figures do not depend on it."""
    quick: bool = False
    """A few minutes: one seed, one step, and too small a budget to rank anything."""
    json: str = "runs/methods.json"
    """File of the rows, written as they come."""

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.few_seeds < 0 or self.jobs < 1 or (self.n or 50) < 50:
            raise ValueError(
                f"seeds is {self.seeds}, few_seeds {self.few_seeds}, jobs {self.jobs} and n "
                f"{self.n}; give at least 1 seed, 1 job and 50 samples"
            )
        if self.first_seed < 0:
            raise ValueError(f"first_seed is {self.first_seed}; give 0 or more")
        if min(self.steps, default=0) < 1:
            raise ValueError(f"steps are {list(self.steps)}; give numbers from 1 on, such as 1,2,4")
        if Budget.of(self.budget).evaluations is None:
            raise ValueError(
                f"budget is {self.budget!r}; here it is of evaluations, such as 100k-nfe"
            )

    def asked(self) -> Settings:
        """What is really run: names as files have them, and what `quick` makes of it."""
        named = replace(self, bench=tuple(name.replace("_", "-") for name in self.bench))
        if not self.quick:
            return named
        return replace(named, budget="20k-nfe", seeds=1, few_seeds=0, steps=(1,), n=500)

    def record(self) -> dict[str, Any]:
        """What must stay the same while rows are added: seeds that settings were chosen on never
        stand beside those that are reported."""
        return {"budget": self.budget, "n": self.n, "first_seed": self.first_seed}


def contenders(asked: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """{name: settings over its preset} of all methods that distil a teacher, and of the variants
    that claims are about, the start's too; or of those asked for. ValueError for a name that is
    none."""
    from genkit import catalogue

    known = {name: {} for name, entry in catalogue.methods().items() if entry.facts["has_teacher"]}
    variants = {name: dict(given) for name, given in VARIANTS.items()}
    known |= {n: given for n, given in variants.items() if n.partition(":")[0] in (*known, START)}
    for name in asked:
        if name not in known:
            raise catalogue.unknown("method that distils a teacher", name, known)
    return {name: known[name] for name in asked} if asked else known


# ---- One piece of work, in whatever process ------------------------------------------------------


@lru_cache(maxsize=1)
def _bench(name: str, n: int | None) -> base.Bench:
    return open_bench(name, n)


@lru_cache(maxsize=2)
def _start(name: str, n: int | None, budget: str, seed: int) -> Student:
    """The network that all students of a seed begin with: flow matching for one budget."""
    training = Training(START, _bench(name, n).problem, None, {"drop": 0.0})
    plan = training.plan(Budget.of(budget))
    return training.run(plan.max_steps, 0, seed, watched=False)


@lru_cache(maxsize=1)
def _untrained(name: str, n: int | None) -> Student:
    """A start that has learnt nothing, which costs what one that has does."""
    training = Training(START, _bench(name, n).problem, None, {"drop": 0.0})
    return training.run(1, 0, 0, watched=False)


def _training(work: Work, begun: Student) -> Training:
    problem, control = _bench(work.bench, work.n).problem, work.name == CONTROL
    name, given = "regression" if control else work.name, dict(contenders().get(work.name, {}))
    if work.steps is not None:
        given["steps"] = work.steps
    start = begun if class_of(name).has_teacher else None  # a teacher is trained from nothing
    return Training(name, suited(problem, name), start, given, not control)


def plan_one(work: Work) -> dict[str, Any]:
    """How a method spends the budget: {"max_steps", "pairs", "seconds"}; or its refusal."""
    try:
        plan = _training(work, _untrained(work.bench, work.n)).plan(Budget.of(work.budget))
    except ValueError as error:
        return {"refused": _sentence(error)}
    except Exception as error:  # a fault of one method must not end the bench
        return {"refused": f"{type(error).__name__}: {_sentence(error)}"}
    seconds = plan.max_steps * plan.prices.step["seconds"]
    seconds += plan.pairs * plan.prices.pair["seconds"] * plan.prices.sets
    pairs = plan.pairs if plan.prices.sets else 0
    return {"max_steps": plan.max_steps, "pairs": pairs, "seconds": seconds}


def run_one(work: Work) -> list[Row]:
    """The rows of one training, or of one thing that stands beside."""
    bench, head = _bench(work.bench, work.n), {"bench": work.bench, "seed": work.seed}
    done = {"fate": FINISHED, "sentence": ""}
    if work.name == FLOOR:
        return [head | {"name": FLOOR, "steps": 0} | done | {"figures": bench.floor(work.seed)}]
    if work.name == TEACHER:
        return [
            head | {"name": TEACHER, "steps": k} | done | {"figures": bench.teacher(k, work.seed)}
            for k in work.sampled
        ]
    begun = _start(work.bench, work.n, work.budget, work.seed)
    try:
        student = begun
        if work.name != START:
            watched = work.name != CONTROL  # whose answer is a constant, as it should be
            student = _training(work, begun).run(work.max_steps, work.pairs, work.seed, watched)
        cost = {
            "train_steps": student.train_steps,
            "pairs": work.pairs,
            "evaluations": student.cost.evaluations,
            "seconds": student.cost.seconds,
        }
        made = [(k, bench.measured(student.samples(bench.n, work.seed, k))) for k in work.sampled]
        told = {"name": work.name} | done | cost
        return [head | {"steps": k} | told | {"figures": figures} for k, figures in made]
    except Collapse as error:
        ended = {"fate": COLLAPSED, "sentence": str(error)}
    except Exception as error:  # a fault of one method must not end the bench
        ended = {"fate": FAILED, "sentence": f"{type(error).__name__}: {_sentence(error)}"}
    return [head | {"name": work.name, "steps": k} | ended for k in work.sampled]


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())


# ---- All of it -----------------------------------------------------------------------------------


def trainings(asked: Settings, bench: str) -> Iterator[Work]:
    """Every training to be planned, as for seed 0: one for all numbers of steps where training does
    not depend on them."""
    for name in contenders(asked.methods):
        cls = class_of(name)
        work = Work(bench, name, asked.n, asked.budget)
        if not cls.has_teacher:
            yield replace(work, sampled=TEACHER_STEPS[-1:])
        elif "steps" not in cls.Config.__dataclass_fields__:
            yield replace(work, sampled=(1,))
        elif cls.any_steps:
            yield replace(work, steps=min(asked.steps), sampled=asked.steps)
        else:
            for k in asked.steps:
                yield replace(work, steps=k, sampled=(k,))
    yield Work(bench, CONTROL, asked.n, asked.budget, sampled=(1,))


def seeds_of(asked: Settings, work: Work) -> range:
    """The seeds of a training: fewer where it is one for 2 or 4 steps alone."""
    alone = (
        work.steps is not None
        and work.sampled != asked.steps
        and min(work.sampled) > min(asked.steps)
    )
    count = min(asked.seeds, asked.few_seeds) if alone else asked.seeds
    return range(asked.first_seed, asked.first_seed + count)


def beside(asked: Settings, bench: str) -> Iterator[Work]:
    """What stands beside the students, for every seed."""
    for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
        work = Work(bench, FLOOR, asked.n, asked.budget, seed=seed, sampled=(0,))
        yield work
        yield replace(work, name=TEACHER, sampled=TEACHER_STEPS)
        yield replace(work, name=START, sampled=(1, 50))


class Record:
    """The file of rows and plans, written whole after each addition."""

    def __init__(self, asked: Settings) -> None:
        self.file, self.told = Path(asked.json), dict[str, Any]()
        if self.file.exists():
            self.told = {"first_seed": 0} | json.loads(self.file.read_text())
        for name, value in asked.record().items():
            held = self.told.get(name, value)
            if held != value:
                raise ValueError(
                    f"{self.file} holds another bench ({name} was {held!r} and is {value!r}); "
                    "choose another file"
                )
        self.told |= asked.record() | {"seeds": max(asked.seeds, self.told.get("seeds", 0))}
        # What failed or was refused is tried again: its file may have changed.
        kept = (FINISHED, COLLAPSED)
        self.told["rows"] = [row for row in self.told.get("rows", []) if row["fate"] in kept]
        self.told.setdefault("plans", {})

    @property
    def rows(self) -> list[Row]:
        """All rows so far."""
        return self.told["rows"]

    def has(self, work: Work) -> bool:
        """Whether the rows of a piece of work are there."""
        there = {(row["bench"], row["name"], row["steps"], row["seed"]) for row in self.rows}
        return all((work.bench, work.name, k, work.seed) in there for k in work.sampled)

    def add(self, rows: list[Row]) -> None:
        """Keep rows, in place of older ones of the same."""
        key = ("bench", "name", "steps", "seed")
        new = {tuple(row[part] for part in key) for row in rows}
        self.told["rows"] = [r for r in self.rows if tuple(r[part] for part in key) not in new]
        self.told["rows"] += rows
        self.write()

    def write(self) -> None:
        """Write the file."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.file, json.dumps(self.told, indent=1) + "\n")


def planned(asked: Settings, record: Record) -> list[Work]:
    """Everything to be done, in order, with its plan; refusals become rows."""
    every = [work for bench in asked.bench for work in trainings(asked, bench)]
    plans = record.told["plans"]
    todo = [work for work in every if work.key not in plans]
    for work, plan in spread(plan_one, todo, asked.jobs):
        if "refused" in plan:
            ended = {"fate": REFUSED, "sentence": plan["refused"]}
            head = {"bench": work.bench, "name": work.name, "seed": asked.first_seed} | ended
            record.add([head | {"steps": k} for k in work.sampled])
        else:
            plans[work.key] = plan
    record.write()
    found: list[Work] = []
    for bench in asked.bench:
        whole = list(beside(asked, bench))
        for work in (each for each in every if each.bench == bench and each.key in plans):
            plan = plans[work.key]
            told = {name: plan[name] for name in ("max_steps", "pairs")}
            whole += [replace(work, seed=seed, **told) for seed in seeds_of(asked, work)]
        found += sorted(whole, key=lambda each: each.seed)  # what shares a start comes together
    return [work for work in found if not record.has(work)]


def estimate(todo: list[Work], plans: Mapping[str, Any], measuring: Mapping[str, float]) -> float:
    """Seconds of one process: trainings as planned, starts, and what measuring takes."""
    total = 0.0
    for work in todo:
        plan = plans.get(work.key)
        looks = 5 if work.name == TEACHER else len(work.sampled)
        total += measuring[work.bench] * looks
        if plan is not None:
            total += plan["seconds"]
        elif work.name == START:
            control = next(v for k, v in plans.items() if k.startswith(f"{work.bench}/{CONTROL}"))
            total += 2 * control["seconds"]  # once in each of two processes
    return total


def time_measuring(name: str, n: int | None) -> float:
    """Seconds that one row's figures take, the floor's."""
    import time

    bench = open_bench(name, n)
    bench.floor(0)
    began = time.perf_counter()
    bench.floor(0)
    return time.perf_counter() - began


def main(settings: Settings) -> list[Row]:
    """Run the bench: a line on stderr for each row as it comes, the tables on stdout at the end."""
    from genkit.benchmarks.page import text_tables

    asked = settings.asked()
    contenders(asked.methods)  # refuses unknown names before anything is made
    for name in asked.bench:
        open_bench(name)
    record = Record(asked)
    record.told["settings"] = asdict(asked)
    measuring = {name: time_measuring(name, asked.n) for name in asked.bench}
    try:
        todo = planned(asked, record)
        seconds = estimate(todo, record.told["plans"], measuring) / asked.jobs
        say(f"{len(todo)} pieces of work at {asked.budget} each, about {seconds / 60:.0f} minutes")
        for number, (_, rows) in enumerate(spread(run_one, todo, asked.jobs), 1):
            record.add(rows)
            for row in rows:
                _tell(number, len(todo), row)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped, and kept; the same command goes on from here") from None
    print(text_tables(record.told))
    return record.rows


def _tell(number: int, of: int, row: Row) -> None:
    seen = row["sentence"] or " ".join(f"{k}={v:.4g}" for k, v in row["figures"].items())
    told = f"[{number}/{of}] {row['bench']} {row['name']} steps={row['steps']} seed={row['seed']}"
    print(f"{told}: {row['fate']} {seen}", file=sys.stderr, flush=True)
