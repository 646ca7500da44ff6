"""The results page of the methods' bench, and its tables for a terminal, from the rows alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from genkit.benchmarks.claims import CLAIMS, verdict
from genkit.benchmarks.ranking import Found, aims
from genkit.metrics.paired import Interval, over_seeds

BESIDE = ("floor", "teacher", "flow_matching", "flow_matching:pfgm", "independent")
CALLED = {
    "floor": "floor: fresh draws",
    "teacher": "exact teacher, best solver",
    "flow_matching": "the start (`flow_matching`)",
    "flow_matching:pfgm": "another start, with the noise of PFGM++",
    "independent": "regression on unrelated noise, the control",
}
HEAD = """# Methods side by side on known densities

Written by `python scripts/write_results.py {file}` from the rows of

```
genkit bench methods --budget {budget} --seeds {seeds} --json {file}
```

Densities whose score is a closed form are data AND teacher (genkit/benchmarks), so that nothing is
owed to a teacher's own error. Each student copies a network trained on the density by flow matching
for one budget, then trains for {budget}: every sample through any network or through the teacher,
those for pairs too, is one. Methods share teacher, start and noise within a seed. Figures are means
over seeds, with half of their 95% interval (Student's) behind +-. No figure alone ranks methods, so
`rank` is the mean place over all that a bench ranks by: of less, of more, or near to the floor.
"""


def told_number(value: float) -> str:
    """Three digits, as people write them."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def told_interval(found: Interval) -> str:
    """A mean and half of its interval, where it has one."""
    if math.isinf(found.high):
        return told_number(found.value)
    return f"{told_number(found.value)} +-{told_number(found.high - found.value)}"


def figures_of(found: Found) -> list[str]:
    """The names of a bench's figures, those it ranks by first."""
    ranked = list(aims(found.bench))
    shown = dict.fromkeys(name for row in found.rows for name in row["figures"])
    return [*ranked, *(name for name in shown if name not in ranked and name != "order")]


def line(found: Found, name: str, steps: int, rank: Interval | None) -> list[str]:
    """The cells of a row: name, steps, rank, figures, seeds, steps of training."""
    same = [row for row in found.rows if row["name"] == name and row["steps"] == steps]
    cells = [CALLED.get(name, f"`{name}`"), str(steps) if steps else ""]
    cells.append(told_interval(rank) if rank else "")
    for figure in figures_of(found):
        values = [row["figures"][figure] for row in same if figure in row["figures"]]
        cells.append(told_interval(over_seeds(values)) if values else "")
    trained = dict.fromkeys(str(row["train_steps"]) for row in same if "train_steps" in row)
    return [*cells, str(len(same)), ", ".join(trained)]


def head_of(found: Found) -> list[str]:
    """The columns of `line`."""
    return ["", "steps", "rank", *figures_of(found), "seeds", "trained"]


def lines(found: Found) -> list[list[str]]:
    """What stands beside, then the students by number of steps, the best first."""
    told, seen = [], dict.fromkeys((row["name"], row["steps"]) for row in found.rows)
    for name in BESIDE:
        told += [line(found, *key, None) for key in sorted(seen) if key[0] == name]
    for steps in sorted({k for name, k in seen if name not in BESIDE}):
        told += [line(found, name, steps, rank) for name, rank in found.order(steps)]
    return told


def ended(told: Mapping[str, Any], bench: str) -> list[list[str]]:
    """(name, steps, fate, sentence) of what did not finish, one for each name and sentence."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in told["rows"]:
        if row["bench"] == bench and row["fate"] != "finished":
            steps = f"{row['steps']} (seed {row['seed']})"
            groups.setdefault((row["name"], row["fate"], row["sentence"]), []).append(steps)
    return [[f"`{n}`", ", ".join(k), fate, said] for (n, fate, said), k in groups.items()]


def winners(found: Found, steps: Sequence[int]) -> list[list[str]]:
    """The winner at each number of steps: chosen on, told on, its figures there."""
    told = []
    for k in steps:
        best = found.winner(k)
        if best is None:
            continue
        name, chosen, fresh = best
        cells = [f"`{name}`", str(k), _seeds(chosen), _seeds(fresh)]
        for figure in figures_of(found):
            by_seed = found.figure(name, k, figure)
            values = [by_seed[seed] for seed in fresh if seed in by_seed]
            cells.append(told_interval(over_seeds(values)) if values else "")
        told.append(cells)
    return told


def _seeds(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"


def claims(told: Mapping[str, Any]) -> list[list[str]]:
    """Each claim with its interval and what the rows say."""
    cells = []
    for claim in CLAIMS:
        found = verdict(claim, told)
        (a, k), (b, m) = claim.row, claim.than
        between = f"`{a}` at {k} against `{b}` at {m}"
        interval = ""
        if found.interval is not None:
            low, high = found.interval.low, found.interval.high
            interval = told_number(found.interval.value)
            if not math.isinf(high):
                interval += f" [{told_number(low)}, {told_number(high)}]"
        where = f"{claim.bench}, {claim.figure}"
        seeds = str(found.seeds or "")
        cells.append([claim.says, claim.paper, where, between, interval, seeds, found.says])
    return cells


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    every = [head, ["---"] * len(head), *rows]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in every]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped) + "\n"


def benches(told: Mapping[str, Any]) -> list[str]:
    """The benches there are rows of."""
    return list(dict.fromkeys(row["bench"] for row in told["rows"]))


def page(told: Mapping[str, Any], file: str) -> str:
    """The whole page."""
    text = HEAD.format(file=file, budget=told["budget"], seeds=told["settings"]["seeds"])
    steps = sorted({row["steps"] for row in told["rows"] if row["name"] not in BESIDE})
    for bench in benches(told):
        text += _bench(told, bench, steps)
    head = ["claim", "paper", "bench, figure", "rows", "difference of losses", "seeds", "verdict"]
    text += (
        "\n## The papers' claims\n\nA loss is how far a figure is from its best; a difference "
        "below 0 is for the claim,\nwhich holds, or is refuted, where the whole 95% interval says "
        "so.\n\n"
    )
    return text + markdown(head, claims(told))


def _bench(told: Mapping[str, Any], bench: str, steps: Sequence[int]) -> str:
    found = Found.of(told, bench)
    aim = ", ".join(f"{name} ({best})" for name, best in aims(bench).items())
    text = f"\n## {bench}\n\nRanked by {aim}.\n\n"
    text += markdown(head_of(found), lines(found))
    best = winners(found, steps)
    if best:
        head = ["winner", "steps", "chosen on seeds", "told on", *figures_of(found)]
        text += "\n" + markdown(head, best)
    if without := ended(told, bench):
        text += "\n" + markdown(["not there", "steps", "fate", "why"], without)
    return text


def text_tables(told: Mapping[str, Any]) -> str:
    """The tables for a terminal."""
    from genkit.evaluation import aligned

    parts = []
    for bench in benches(told):
        found = Found.of(told, bench)
        parts += [bench, aligned([head_of(found), *lines(found)])]
        parts += [f"{n} at {k}: {fate}: {said}" for n, k, fate, said in ended(told, bench)]
    return "\n\n".join(parts)
