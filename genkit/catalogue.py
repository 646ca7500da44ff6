"""What there is, by name, read from the files without importing them (so without torch).

The file system is the registry: a method is a file of genkit/methods, a data set one of
genkit/data, a shipped pipeline a folder of genkit_pipelines/pretrained. Every name a person types
is checked here, and one that does not exist is answered with the nearest that does.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TABLE = "table.json"  # written by scripts/write_methods_table.py


@dataclass(frozen=True)
class Entry:
    """One name: its description in one line and its facts, such as a method's family and paper."""

    name: str
    summary: str
    facts: dict[str, Any]


def nearest(name: str, known: Iterable[str]) -> str:
    """ "did you mean ...? " with the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> ValueError:
    """The error for a name that does not exist: what was asked, the nearest, and all there are."""
    names = list(known)
    there = f"there are: {', '.join(names)}" if names else "there is none yet"
    return ValueError(f"no {kind} is called {name!r}; {nearest(name, names)}{there}{hint}")


def methods() -> dict[str, Entry]:
    """{name: Entry} of the methods; facts: family, paper, needs, has_teacher, and, of methods that
    table.json tells of, roles, steps (None: the teacher's), status, figure."""
    entries, file = {}, HERE / "methods" / TABLE
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for file in sorted((HERE / "methods").glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        facts = _class_facts(tree, "Method")
        if facts.get("family"):
            summary = (ast.get_docstring(tree) or "").partition("\n")[0]
            entries[file.stem] = Entry(
                file.stem, summary, {"has_teacher": True} | facts | told.get(file.stem, {})
            )
    return entries


def method(name: str) -> Entry:
    """The method of a name; ValueError with the nearest one if there is none."""
    known = methods()
    if name not in known:
        raise unknown("method", name, known)
    return known[name]


def method_class(name: str) -> type:
    """The `Method` class of a method's name, which imports torch."""
    return importlib.import_module(f"genkit.methods.{method(name).name}").Method


def data_sets() -> dict[str, Entry]:
    """{name: Entry} of the data sets."""
    from genkit import data

    return {name: Entry(name, data.describe(name), {}) for name in data.names()}


def pipelines() -> dict[str, Entry]:
    """{name: Entry} of the shipped pipelines."""
    from genkit import hub

    return {name: Entry(name, summary, {}) for name, summary in hub.shipped().items()}


def _class_facts(tree: ast.Module, name: str) -> dict[str, Any]:
    """The plain values a class of this name sets in its body."""
    facts = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for line in node.body:
                if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                    facts[line.targets[0].id] = ast.literal_eval(line.value)
    return facts
