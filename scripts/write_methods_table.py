"""Write genkit/methods/README.md and table.json from the method files and the measured figures:
`python scripts/write_methods_table.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genkit import catalogue

HEAD = """# Methods

One file per method; its name here, on the command line, in its test and in its file is one word.
The table below, which `genkit list methods` shows too, is written by
`python scripts/write_methods_table.py`, and a test holds it to the files.

Which of them suits a teacher is for `genkit compare` to say:

```
genkit compare --teacher digits-teacher --methods dmd2,reflow,consistency --budget 30s
genkit compare --teacher digits-teacher --methods regression,scm --budget 2M-nfe --seeds 2
```

Each method and seed gets that much training, in time or in network evaluations (one sample through
one network, forward; a guided teacher's are two), and what it spends on teacher pairs is charged to
it, whether they are made or lie in the cache. A few steps of each stage tell what a step costs (so
nothing else should run meanwhile; on a busy machine, give evaluations), and so how many there are;
pairs take at most a quarter. All bake in the teacher's own guidance (another by `--set guidance=2`)
and deliver their last student, which is measured like all others.
`runs/compare/comparison.html` has the table, quality against the cost of sampling and of training,
and samples on equal noise; `comparison.json` the same figures. Every run is whole in its own
folder. The same command goes on where it was stopped, methods and seeds can be added to it, and
what fails or collapses is a row with its sentence. `--set batch_size=64` is for all methods that
have such a setting, `--set dmd2.lr=1e-4` for one.

"""


COLUMNS = ("method", "family", "what it does", "paper", "reads", "networks", "steps", "our figure")
NOTES = """
Networks: the roles of a run with default settings, the frozen teacher first. Steps: of the student
by default. Our figure: of students of the exact teacher of `genkit bench methods`, the sliced
Wasserstein distance to fresh draws of its density ({floor} of other fresh draws) and the share of
the 1,797 digits that samples come near, by the fewest steps measured (teachers: 50), in the mean
over seeds; all benches are in [docs/results-methods.md](../../docs/results-methods.md).
"""
ROWS = Path(__file__).resolve().parent.parent / "docs" / "figures" / "methods.json"
BENCH = "analytic-digits"


def facts() -> dict[str, dict[str, Any]]:
    """{method: roles, steps (None: the teacher's), status, figure}: what a method says only when it
    is made, and what was measured. `genkit list methods` reads it from table.json, torch unloaded.
    """
    import torch

    from genkit.paths import PATHS

    told, measured = {}, figures()
    for name, entry in catalogue.methods().items():
        kind: Any = catalogue.method_class(name)
        config, path = kind.Config(), PATHS[kind.paths[0]]()
        method = kind(config, path, (1, 8, 8), uncond={"label": torch.tensor([10])})
        roles = ["teacher"] if entry.facts["has_teacher"] else []
        kept = getattr(config, "steps", 1) is None
        told[name] = {
            "roles": roles + [role for role in method.nets() if role not in roles],
            "steps": None if kept else method.sampler().steps,
            "status": "measured" if name in measured else "not measured",
            "figure": measured.get(name, ""),
        }
    return told


def rows() -> list[dict[str, Any]]:
    """The bench's finished rows, [] where there are none."""
    told = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else {"rows": []}
    return [row for row in told["rows"] if row["fate"] == "finished"]


def figures() -> dict[str, str]:
    """{method or "floor": its figure on the digits, "" of rows of other benches alone}."""
    groups: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for row in rows():
        by_steps = groups.setdefault(row["name"], {})
        if row["bench"] == BENCH:
            by_steps.setdefault(row["steps"], []).append(row["figures"])
    known = catalogue.methods()
    teachers = {name for name, entry in known.items() if not entry.facts["has_teacher"]}
    return {
        name: _figure(by_steps, (max if name in teachers else min)(by_steps)) if by_steps else ""
        for name, by_steps in groups.items()
    }


def _figure(by_steps: dict[int, list[dict[str, Any]]], steps: int) -> str:
    held = by_steps[steps]
    sw, cover = (sum(each[name] for each in held) / len(held) for name in ("sw", "cover"))
    return f"{sw:.3f}, {cover:.0%} at {steps} step{'s' * (steps != 1)} ({len(held)} seeds)"


def table(told: dict[str, dict[str, Any]]) -> str:
    """The page: one row per method, from the files' docstrings and attributes, and `facts`."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name, entry in catalogue.methods().items():
        facts, own = entry.facts, told[name]
        number = facts["paper"].removeprefix("arXiv ")
        paper = f"[{number}](https://arxiv.org/abs/{number})"
        row = [
            f"[`{name}`]({name}.py)",
            facts["family"],
            entry.summary.rstrip(".").replace("|", "\\|"),
            paper,
            ", ".join(facts["needs"]),
            ", ".join(own["roles"]),
            "the teacher's" if own["steps"] is None else str(own["steps"]),
            own["figure"] or own["status"],
        ]
        lines.append(f"| {' | '.join(row)} |")
    floor = figures().get("floor", "not measured").partition(",")[0]
    return HEAD + "\n".join(lines) + "\n" + NOTES.format(floor=floor)


if __name__ == "__main__":
    home, told = Path(catalogue.__file__).parent / "methods", facts()
    (home / "README.md").write_text(table(told), encoding="utf-8")
    (home / catalogue.TABLE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(home / "README.md")
