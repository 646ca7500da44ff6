"""Flags from dataclasses, by tyro: every setting is one flat flag, whichever dataclass holds it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

T = TypeVar("T")

registry = ConstructorRegistry()


@registry.primitive_rule
def _commas(info: Any) -> PrimitiveConstructorSpec[Any] | None:
    """A tuple of any length is one word, its parts between commas: --steps 1,2,4,50."""
    if get_origin(info.type) is not tuple or get_args(info.type)[1:] != (...,):
        return None
    kind = get_args(info.type)[0]

    def read(words: list[str]) -> tuple[Any, ...]:
        return tuple(kind(part) for part in words[0].split(",") if part)

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{kind.__name__.upper()},...",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(str(each) for each in value)],
    )


def parse(kind: type[T], argv: Sequence[str], command: str, default: T | None = None) -> T:
    """The dataclass `kind` filled from the command line; its module's docstring is the help.

    ValueError in one sentence for an unknown flag (with the nearest), a value that does not fit, or
    a list that is given twice; --help prints and raises SystemExit(0).
    """
    prog, complaint = f"genkit {command}", io.StringIO()
    options: dict[str, Any] = {} if default is None else {"default": default}
    options |= {"args": list(argv), "prog": prog, "return_unknown_args": True, "registry": registry}
    options["description"] = sys.modules[kind.__module__].__doc__
    try:
        with contextlib.redirect_stderr(complaint):
            found, rest = tyro.cli(kind, **options)
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise ValueError(f"{_sentence(complaint.getvalue())}; see {prog} --help") from None
    if rest:
        raise _unknown(rest[0], kind, prog)
    given = [word.partition("=")[0] for word in argv]
    for flag in names(kind, lists=True):
        if given.count(flag) > 1:  # the last would silently stand for all
            raise ValueError(f"{flag} is given twice; give it once, with commas between its values")
    return found


def joined(base: type, parts: dict[str, Any]) -> type:
    """The dataclass `base` with the fields of others beside its own, {name: default instance}."""
    fields: list[Any] = [
        (name, _flat(type(part)), dataclasses.field(default_factory=lambda part=part: part))
        for name, part in parts.items()
    ]
    made = dataclasses.make_dataclass(base.__name__, fields, bases=(base,))
    made.__module__ = base.__module__
    return made


def _flat(kind: type) -> Any:
    return Annotated[kind, tyro.conf.arg(name="")]


def names(kind: type, lists: bool = False) -> list[str]:
    """The flags of a dataclass, those of the dataclasses in it included; or of them the `lists`."""
    found = []
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        inner = get_args(field.type)[0] if get_origin(field.type) is Annotated else None
        if inner is not None and dataclasses.is_dataclass(inner):
            found += names(inner, lists)  # type: ignore[arg-type]
        elif not lists or str(field.type).startswith(("tuple", "Sequence")):
            found.append("--" + field.name.replace("_", "-"))
    return found


def _unknown(word: str, kind: type, prog: str) -> ValueError:
    from genkit.catalogue import nearest

    if not word.startswith("-"):
        return ValueError(f"{prog} does not know what to do with {word!r}; see {prog} --help")
    flag = word.partition("=")[0]
    return ValueError(f"no flag is called {flag!r}; {nearest(flag, names(kind))}see {prog} --help")


def _sentence(complaint: str) -> str:
    """The first paragraph inside the box that tyro draws."""
    words = []
    for line in complaint.splitlines()[1:]:
        text = line.strip("│ ")
        if not text.strip("─╰╯"):
            break
        words.append(text)
    return " ".join(words).rstrip(".")
