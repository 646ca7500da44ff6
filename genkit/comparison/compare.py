"""Methods side by side on one teacher: the same budget, the same evaluation, one page.

Every (method, seed) is an ordinary run of `genkit.distill` in its own folder, with its report and
its pipeline; what is added here is how long it may be (budget.py) and what is shown of it
(results.py, page.py). Each delivers its last student: no method chooses among its checkpoints. The
same command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genkit import api, catalogue, hub
from genkit.benchmarks.working import spread
from genkit.comparison import results
from genkit.comparison.budget import Budget, fitted, prices
from genkit.comparison.page import write_page
from genkit.comparison.results import COLLAPSED, FAILED, FINISHED, WAITING, Row
from genkit.data import open_data
from genkit.denoisers.diffusers import Loaded
from genkit.evaluation import aligned
from genkit.modalities import Modality, modality
from genkit.opening import open_teacher, picture_size
from genkit.runs import say
from genkit.settings import RunConfig
from genkit.training.checkpoints import write_text
from genkit.training.config import TrainerConfig
from genkit.training.health import Collapse

ALL = "all"
ASKED, PLANS, FATES, RESULT = "compare.json", "plans", "fates", "comparison.json"
# Settings that the comparison itself gives, the same to all.
OURS = ("max_steps", "max_minutes", "seed", "evaluate_n", "evaluate_seeds", "evaluate_steps")


@dataclass(frozen=True)
class Comparison:
    """What is compared. settings: {"name" or "method.name": value} over the methods' own presets;
    a bare name is for every method that has such a setting."""

    teacher: Any
    name: str
    loaded: Loaded
    data: str
    modality: Modality
    methods: tuple[str, ...]
    seeds: int
    budget: str
    steps: tuple[int, ...]
    n: int
    out: Path
    settings: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """All that must stay the same while runs are added: not the methods, and not the seeds."""
        return {
            "teacher": self.name,
            "teacher_weights": hub.weights_hash(self.loaded.denoiser),
            "data": self.data,
            "budget": self.budget,
            "steps": list(self.steps),
            "n": self.n,
            "settings": dict(self.settings),
        }

    @property
    def guidance(self) -> float:
        """The teacher's scale, which students bake in."""
        return float(self.settings.get("guidance", self.loaded.guidance))

    def runs(self) -> list[tuple[str, int]]:
        """(method, seed) of all runs: every method once, then again."""
        return [(method, seed) for seed in range(self.seeds) for method in self.methods]

    def folder(self, method: str, seed: int) -> Path:
        """Where a run lies."""
        return self.out / f"{method}-{seed}"

    @property
    def precision(self) -> str:
        """The precision of all evaluations."""
        return str(self.settings.get("evaluate_precision", "no"))

    def own(self, method: str) -> dict[str, Any]:
        """The settings of a method: what is one for all, whatever presets say, and what was
        given."""
        known = setting_names(method)
        alike = {"guidance": self.guidance, "evaluate_precision": self.precision}
        plain = {
            name: value for name, value in (alike | dict(self.settings)).items() if name in known
        }
        named = {
            name.partition(".")[2]: value
            for name, value in self.settings.items()
            if name.partition(".")[0] == method and "." in name
        }
        return plain | named

    def plan(self, method: str) -> dict[str, Any]:
        """How a method spends the budget, found once. ValueError where it cannot."""
        file = self.out / PLANS / f"{method}.json"
        if not file.exists():
            run, _ = api.prepare(self.teacher, method, self.data, **self.own(method))
            pairs, batch = run.settings.run.pairs, run.settings.trainer.batch_size
            plan = fitted(Budget.of(self.budget), prices(run), pairs, batch)
            _write_json(file, plan.record())
        return json.loads(file.read_text())

    def config(self, method: str, seed: int) -> dict[str, Any]:
        """The settings of a run; what a person gave comes last."""
        plan = self.plan(method)
        steps = plan["max_steps"]
        given = {
            "max_steps": steps,
            "pairs": plan["pairs"],
            "seed": seed,
            "log_every": max(1, steps // 200),
            "checkpoint_every": max(1, steps // 8),
            "sample_every": max(1, steps // 4),
            # Without real data to measure against, the distance to the teacher, at the end alone.
            "measure_every": 0 if self.modality.has_reference() else steps,
            "evaluate_n": self.n,
            "evaluate_seeds": (0,),
            "evaluate_steps": self.steps,
        }
        return given | {k: v for k, v in self.own(method).items() if k != "pairs"}


def compare(
    teacher: Any,
    methods: Sequence[str],
    budget: str = "10m",
    seeds: int = 1,
    out: str | os.PathLike[str] = "runs/compare",
    data: str | None = None,
    steps: Sequence[int] = (),
    n: int = 1000,
    settings: Mapping[str, Any] | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Train every method on `teacher` under one budget, evaluate them alike, and write the page.

    methods: names, or "all" for every one that distils a teacher.
    budget: of each method and seed: a time such as "10m", or evaluations such as "5M-nfe". steps:
    numbers of steps at which the teacher stands beside; by default 1, 4 and its own. n: samples of
    the evaluation. settings: over the methods' presets, "batch_size" for all or "dmd2.lr" for one.
    jobs: runs at a time, of one thread each where they are several: for a budget of evaluations and
    a teacher given by name or folder.
    What is in `out` already is not run again. A run that fails or collapses is a row with its
    sentence. Returns what comparison.json in `out` holds; ValueError for what cannot be asked.
    KeyboardInterrupt, when the page shows what there is; the same call goes on.
    """
    given = teacher, tuple(methods), budget, seeds, out, data, tuple(steps), n, settings or {}
    asked = _asked(*given)
    _check_jobs(asked, jobs)
    _open(asked)
    try:
        if jobs == 1:
            for method, seed in asked.runs():
                _run(asked, method, seed)
        else:
            for _ in spread(_run_there, [(given, *run) for run in asked.runs()], jobs):
                continue
    except KeyboardInterrupt:
        write(asked)
        raise KeyboardInterrupt(
            "stopped, and kept; the same command goes on from here (the page shows what there is)"
        ) from None
    return write(asked)


def _asked(
    teacher: Any,
    methods: Sequence[str],
    budget: str,
    seeds: int,
    out: str | os.PathLike[str],
    data: str | None,
    steps: Sequence[int],
    n: int,
    settings: Mapping[str, Any],
) -> Comparison:
    """The comparison, with all that can be refused before anything is made refused."""
    names = tuple(catalogue.method(name).name for name in methods if name != ALL)
    if ALL in methods:
        known = catalogue.methods().items()
        names += tuple(n for n, entry in known if entry.facts["has_teacher"] and n not in names)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"methods are {list(methods)}; give different ones, such as dmd2,reflow")
    for name in names:
        if not catalogue.method(name).facts["has_teacher"]:
            raise ValueError(f"{name} trains from data alone, without a teacher; leave it out")
    Budget.of(budget)
    if seeds < 1 or n < 6:
        raise ValueError(f"seeds is {seeds} and n {n}; give at least 1 seed and 6 samples")
    if min(steps, default=1) < 1:
        raise ValueError(f"steps are {list(steps)}; give numbers of at least 1, such as 1,4,50")
    _check_settings(names, settings)
    loaded, name, facts = open_teacher(teacher)
    data = data or facts.get("data")
    if data is None:
        raise ValueError(f"{name} does not say what it was trained on; name the data")
    kind = modality(open_data(data, picture_size(loaded)), loaded)
    own = tuple(steps) or tuple(sorted({1, 4, loaded.sampler.steps}))
    return Comparison(
        teacher, name, loaded, data, kind, names, seeds, budget, own, n, Path(out), settings
    )


def setting_names(method: str) -> set[str]:
    """The settings a method's run has."""
    kinds = (catalogue.method_class(method).Config, TrainerConfig, RunConfig)  # type: ignore[attr-defined]
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


def _check_settings(methods: Sequence[str], settings: Mapping[str, Any]) -> None:
    for name in settings:
        method, dot, bare = name.rpartition(".")
        if bare in OURS:
            raise ValueError(f"{bare} is the same for all, and given by the comparison; leave it")
        if dot and method not in methods:
            raise catalogue.unknown("compared method", method, methods)
        known = set().union(*map(setting_names, [method] if dot else methods))
        if bare not in known:
            raise catalogue.unknown("setting", bare, sorted(known))


def _check_jobs(asked: Comparison, jobs: int) -> None:
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; give at least 1")
    if jobs > 1 and Budget.of(asked.budget).seconds is not None:
        raise ValueError(
            f"budget is {asked.budget!r} with {jobs} jobs, which would slow each other down; give "
            "network evaluations, such as 5M-nfe, or 1 job"
        )
    if jobs > 1 and not isinstance(asked.teacher, str | os.PathLike):
        raise ValueError(f"{jobs} jobs open the teacher each; give its name or folder, or 1 job")


def _open(asked: Comparison) -> None:
    """Make the folder; ValueError where it holds anything but this comparison."""
    file, record = asked.out / ASKED, json.loads(json.dumps(asked.record(), default=str))
    if file.exists():
        held = json.loads(file.read_text())
        changed = [name for name in record if held.get(name) != record[name]]
        told = [f"{name} was {held.get(name)!r} and is {record[name]!r}" for name in changed]
        if told:
            raise ValueError(f"{asked.out} holds another comparison ({told[0]}); choose another")
        return
    if asked.out.exists() and (not asked.out.is_dir() or any(asked.out.iterdir())):
        raise ValueError(f"{asked.out} holds something else; choose a new or empty folder")
    asked.out.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(record, indent=1) + "\n")


def _run_there(piece: tuple[tuple[Any, ...], str, int]) -> None:
    """A run in a process of its own."""
    given, method, seed = piece
    hub.hide_loading_bars()
    _run(_asked(*given), method, seed)


def _run(asked: Comparison, method: str, seed: int) -> None:
    """Train and evaluate one, unless that is done; what goes wrong is kept as its fate."""
    folder = asked.folder(method, seed)
    if _finished(folder) or _fates(asked).get(folder.name, {}).get("fate") == COLLAPSED:
        return
    try:
        config = asked.config(method, seed)
        say(f"{method}, seed {seed}: {config['max_steps']} steps")
        api.distill(asked.teacher, method, asked.data, folder, resume=True, **config)
        _keep_fate(asked, folder, None)
    except Collapse as error:
        _keep_fate(asked, folder, {"fate": COLLAPSED, "sentence": str(error)})
    except (ValueError, RuntimeError) as error:
        _keep_fate(asked, folder, {"fate": FAILED, "sentence": " ".join(str(error).split())})
    fate = _fates(asked).get(folder.name)
    if fate is not None:
        say(f"{method}, seed {seed}: {fate['fate']}: {fate['sentence']}")


def _finished(folder: Path) -> bool:
    return (folder / "config.json").exists() and api.finished(folder)


def _fates(asked: Comparison) -> dict[str, dict[str, str]]:
    return {
        file.stem: json.loads(file.read_text())
        for file in sorted((asked.out / FATES).glob("*.json"))
    }


def _keep_fate(asked: Comparison, folder: Path, fate: dict[str, str] | None) -> None:
    file = asked.out / FATES / f"{folder.name}.json"
    if fate is None:
        file.unlink(missing_ok=True)
    else:
        _write_json(file, fate)


def _write_json(file: Path, told: Mapping[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    write_text(file, json.dumps(told, indent=1) + "\n")


def rows(asked: Comparison) -> list[Row]:
    """A row for every run, whatever became of it."""
    found, fates = [], _fates(asked)
    for method, seed in asked.runs():
        folder = asked.folder(method, seed)
        ended = fates.get(folder.name, {"fate": WAITING, "sentence": ""})
        if _finished(folder):
            ended = {"fate": FINISHED, "sentence": ""}
        found.append(results.read_row(folder, method, seed, ended))
    return found


def write(asked: Comparison) -> dict[str, Any]:
    """comparison.json and comparison.html of what there is, and the table for a person."""
    import torch

    from genkit.comparison.drawing import drawn, latencies

    every = rows(asked)
    done = {row["folder"]: row["method"] for row in every if row["fate"] == FINISHED}
    folders = [asked.out / name for name in done]
    summary, teachers = results.summary(every), results.teacher_rows(folders, done)
    first = {method: folder for folder, method in reversed(done.items())}
    grid = drawn(asked, first) if done else None
    latencies(asked, first, summary, teachers)
    told = {
        **asked.record(),
        "methods": list(asked.methods),
        "seeds": asked.seeds,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "ranked_by": results.quality([row for row in summary if row["seeds"]]),
        "summary": summary,
        "teacher_rows": teachers,
        "floor": results.floor_row(folders),
        "rows": every,
    }
    write_text(asked.out / RESULT, json.dumps(told, indent=1) + "\n")
    page = write_page(told, asked.out, grid)
    print(table(told))
    say(f"page: {page}")
    return told


def table(told: Mapping[str, Any]) -> str:
    """The comparison for a person at a terminal."""
    failed = [f"{row['method']}: {row['sentence']}" for row in told["summary"] if row["sentence"]]
    head = f"{told['data']}, {told['budget']} for each of {told['seeds']} seeds, n = {told['n']}"
    return "\n\n".join([head, aligned(results.cells(told)), *failed])
