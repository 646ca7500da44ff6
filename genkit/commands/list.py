"""List what there is: genkit list methods|pipelines|data.

Reads docstrings and JSON only, so it answers at once.
"""

from __future__ import annotations

from collections.abc import Callable

from genkit import catalogue
from genkit.catalogue import Entry

USAGE = "usage: genkit list methods|pipelines|data"


def run(argv: list[str]) -> int:
    """Print one table, or without an argument all three."""
    if "-h" in argv or "--help" in argv:
        print(f"{USAGE}\n\n{__doc__}")
        return 0
    if len(argv) > 1:
        raise ValueError(f"list takes one word, not {len(argv)}; {USAGE}")
    if argv and argv[0] not in TABLES:
        raise catalogue.unknown("list", argv[0], TABLES)
    parts = [table(name) if argv else f"{name}:\n{table(name)}" for name in argv or TABLES]
    print("\n\n".join(parts))
    return 0


def table(name: str) -> str:
    """The table of one kind of thing, a line each."""
    entries, facts = TABLES[name]
    rows = [[entry.name, *facts(entry), entry.summary] for entry in entries().values()]
    if not rows:
        return "none yet"
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True))
        for row in rows
    )


def _method(entry: Entry) -> list[str]:
    facts = entry.facts
    steps = facts.get("steps", "?")
    return [
        facts["family"],
        f"needs {' and '.join(facts['needs'])}",
        facts["paper"],
        "+".join(facts.get("roles", "?")),
        "the teacher's steps" if steps is None else f"{steps} step{'s' * (steps != 1)}",
        facts.get("figure") or facts.get("status", "not measured"),
    ]


TABLES: dict[str, tuple[Callable[[], dict[str, Entry]], Callable[[Entry], list[str]]]] = {
    "methods": (catalogue.methods, _method),
    "pipelines": (catalogue.pipelines, lambda entry: []),
    "data": (catalogue.data_sets, lambda entry: []),
}
