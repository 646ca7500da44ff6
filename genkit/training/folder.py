"""A run's folder: whose it is, and what its configuration was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genkit.training.checkpoints import write_text
from genkit.training.config import FREE


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, each in value.items():
            found |= _leaves(each, f"{name}.{key}" if name else str(key))
        return found
    return {name: value}


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The dotted names of the settings that differ, but for those that may."""
    # Through JSON, as the old one went: tuples are lists there.
    before, after = (_leaves(json.loads(json.dumps(each, default=str))) for each in (old, new))
    names = [name for name in before | after if before.get(name) != after.get(name)]
    return sorted(name for name in names if name.rsplit(".", 1)[-1] not in FREE)


def check_folder(out: Path, record: Mapping[str, Any], resume: bool) -> None:
    """ValueError unless `out` is free for a new run, or holds this very run to resume.

    Cheap and without side effect: call it before anything slow.
    """
    file = out / "config.json"
    if not resume:
        if file.exists() or (out / "checkpoints").exists():
            raise ValueError(
                f"{out} holds another run; go on with it with --resume, or choose another folder"
            )
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out} is a file; choose another folder")
        return
    if not file.exists():
        raise ValueError(f"{out} holds no run to resume; leave --resume out to start one")
    try:
        old = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} cannot be read ({error}); it was changed by hand") from error
    names = changed(old, record)
    if names:
        before, after = _leaves(old), _leaves(json.loads(json.dumps(record, default=str)))
        told = "; ".join(
            f"{name} was {before.get(name, 'not set')!r} and is {after.get(name, 'not set')!r}"
            for name in names[:6]
        )
        raise ValueError(
            f"{out} was started with other settings ({told}); give the old ones to resume it, or "
            "choose another folder for a new run"
        )


def open_folder(out: Path, record: Mapping[str, Any], resume: bool) -> None:
    """`check_folder`, then make it and write config.json."""
    check_folder(out, record, resume)
    out.mkdir(parents=True, exist_ok=True)
    # The configuration first: a folder killed before it is empty, and free for the same run again.
    write_text(out / "config.json", json.dumps(record, indent=2, default=str) + "\n")
    (out / "checkpoints").mkdir(exist_ok=True)
