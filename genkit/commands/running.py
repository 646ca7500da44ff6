"""What `train` and `train-distill` share: a method's flags, a config file under them, the folder.

The method decides which flags there are, so it is read from the command line first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OPEN = ("config", "out", "resume")  # what a config file does not hold


def go(kind: Any, argv: list[str], command: str, quickstart: str | None) -> int:
    """Fill `kind` and a method's settings from the command line and run it.

    quickstart: the folder of a run without a METHOD, if it is not called by it. A folder that
    nobody named may hold the same run already: it is then gone on with, or, if finished, opened.
    """
    from genkit.commands.flags import parse

    held = _config(argv, command)
    method, given = _method(argv, held, kind)
    chosen = parse(*_with_settings(kind, method, held, argv, command))
    flat = {
        name: getattr(chosen, name)
        for name in _names(kind)
        if name not in OPEN
    }  # fmt: skip
    settings = {
        name: value
        for part in ("method_settings", "trainer", "around")
        for name, value in dataclasses.asdict(getattr(chosen, part)).items()
    }
    out = chosen.out or (None if given else quickstart) or f"runs/{method}"
    resume = chosen.resume or (chosen.out is None and (Path(out) / "config.json").exists())
    from genkit import api, hub

    hub.hide_loading_bars()
    act = {"train": api.train, "train-distill": api.distill}[command]
    try:
        act(**flat, out=out, resume=resume, **settings)
    except KeyboardInterrupt as stop:
        told = str(stop) or "interrupted; what was made is kept"
        again = "" if "--resume" in told else "; go on with the same command and --resume"
        raise KeyboardInterrupt(told + again) from None
    return 0


def _names(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _config(argv: Sequence[str], command: str) -> dict[str, Any]:
    """What the file behind --config holds; {} without one."""
    file = _flag(argv, "--config")
    if file is None:
        return {}
    from genkit.api import read_config

    held = read_config(file)
    if held.pop("command") != command:
        raise ValueError(f"{file} is of another command than {command}")
    return held


def _method(argv: Sequence[str], held: dict[str, Any], kind: Any) -> tuple[str, bool]:
    """(the method's name, whether one was asked for): the first word, else the config file's, else
    the command's or the data's own."""
    from genkit.catalogue import method
    from genkit.data import default_method

    if argv and not argv[0].startswith("-"):
        return method(argv[0]).name, True
    if "method" in held:
        return method(held["method"]).name, True
    default = next(each.default for each in dataclasses.fields(kind) if each.name == "method")
    return str(default or default_method(_data(argv, kind))), False


def _with_settings(
    kind: Any, method: str, held: dict[str, Any], argv: Sequence[str], command: str
) -> tuple[Any, Sequence[str], str, Any]:
    """The arguments of `parse`: `kind` with the method's, the trainer's and the run's settings,
    defaults from the config file, or else from the method's preset for the data."""
    from genkit.catalogue import method_class
    from genkit.commands.flags import joined
    from genkit.settings import Settings

    own = {name: held[name] for name in _names(kind) if name in held and name != "method"}
    rest = {name: value for name, value in held.items() if name not in {*own, "method"}}
    if "method" in held and held["method"] != method:
        raise ValueError(f"the config file is of {held['method']}, not of {method}")
    preset = "" if held else _data(argv, kind)
    settings = Settings.of(method_class(method), rest, preset)
    parts = {
        "method_settings": settings.method,
        "trainer": settings.trainer,
        "around": settings.run,
    }
    whole = joined(kind, parts)
    return whole, argv, command, whole(method=method, **own, **parts)


def _data(argv: Sequence[str], kind: Any) -> str:
    """The data set of this command line: the one named, else what its teacher was trained on."""
    from genkit import hub
    from genkit.folders import read_index

    fields = {each.name: each.default for each in dataclasses.fields(kind)}
    data = _flag(argv, "--data") or fields["data"]
    if data is not None:
        return str(data)
    folder = hub.resolve(_flag(argv, "--teacher") or str(fields["teacher"]))
    return str(read_index(folder).get("_genkit", {}).get("data", ""))


def _flag(argv: Sequence[str], name: str) -> str | None:
    """The word behind a flag, None where it was not given."""
    for place, word in enumerate(argv):
        if word == name and place + 1 < len(argv):
            return argv[place + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None
