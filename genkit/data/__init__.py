"""Data sets and layouts of folders, found by looking: a file of this folder that defines `load` is
a data set, one that defines `holds` (whether a folder has the layout) and `read_folder` a layout.

A data set's name is its file's name (with - for _), its description the first line of that file's
docstring. Either may say under METHOD by which method a teacher of it is trained by default, and
hold under PRESETS {method: settings that were found to serve it}, of the method, the trainer and
the run.
Listing them reads the files and imports none, so that it costs no torch.
"""

import ast
import difflib
import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genkit.data.base import Prompts, Samples

__all__ = ["default_method", "describe", "load", "names", "open_data", "presets"]

METHOD = "flow_matching"  # of data that say nothing


@cache
def _trees(function: str) -> dict[str, ast.Module]:
    """{file name: syntax tree} of the files of this folder that define a function of that name."""
    files = [p for p in sorted(Path(__file__).parent.glob("*.py")) if p.stem != "__init__"]
    trees = {p.stem: ast.parse(p.read_text(encoding="utf-8")) for p in files}
    return {
        name.replace("_", "-"): tree
        for name, tree in trees.items()
        if any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body)
    }


def names() -> list[str]:
    """The data sets there are, in alphabetical order."""
    return list(_trees("load"))


def describe(name: str) -> str:
    """One line on the data set `name`. ValueError if there is none of that name."""
    return (ast.get_docstring(_trees("load")[_known(name)]) or "").partition("\n")[0]


def default_method(name: str) -> str:
    """The method by which a teacher of a data set, or of a folder, is trained unless told."""
    return str(_said(name, "METHOD", METHOD))


def presets(name: str, method: str) -> Mapping[str, Any]:
    """What the file of a data set, or of the layout of a folder, says of a method under PRESETS."""
    return _said(name, "PRESETS", {}).get(method, {})


def _said(name: str, constant: str, default: Any) -> Any:
    """The constant of that name in the file of a data set or of a folder's layout; `default` where
    it has none. Data sets without it are not imported."""
    if (tree := _trees("load").get(name)) is None:
        layout = _layout(name)
        return default if layout is None else getattr(layout, constant, default)
    plain = [each.targets[0] for each in tree.body if isinstance(each, ast.Assign)]
    typed = [each.target for each in tree.body if isinstance(each, ast.AnnAssign)]
    if constant not in [ast.unparse(each) for each in plain + typed]:
        return default
    return getattr(_module(name), constant)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"genkit.data.{name.replace('-', '_')}")


def _layout(folder: str) -> ModuleType | None:
    """The layout that a folder has, if it has one of ours."""
    if not folder or not Path(folder).is_dir():
        return None
    found = (_module(name) for name in _trees("holds"))
    return next((each for each in found if each.holds(Path(folder))), None)


def load(name: str, split: str = "train") -> "Samples":
    """The data set `name`, or a folder in one of our layouts, one of its splits. ValueError if
    there is no such set or split."""
    if name not in names() and (layout := _layout(name)) is not None:
        return layout.read_folder(Path(name), split)
    return _module(_known(name)).load(split)


def open_data(name: str, size: int, split: str = "train") -> "Samples | Prompts":
    """What to train on: a data set of ours, a folder of pictures or music with captions or of
    speech in LJSpeech's layout, a text file of prompts, or `datasets:NAME`. Pictures of a person's
    own are brought to size x size. split: of data sets of ours, of speech and of music.

    ValueError for what is none of these, or cannot be read.
    """
    from genkit.data.datasets_hub import PREFIX, read_datasets
    from genkit.data.folder import read_pictures
    from genkit.data.prompts import read_prompts

    path = Path(name)
    if name.startswith(PREFIX):
        return read_datasets(name.removeprefix(PREFIX), size)
    if name not in names() and path.is_dir() and _layout(name) is None:
        return read_pictures(path, size)
    if path.is_file():
        return read_prompts(path)
    return load(name, split)


def _known(name: str) -> str:
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"no data set is called {name!r}; {meant}there are: {', '.join(known)}; or give a "
            "folder of pictures or music with captions, one of speech in LJSpeech's layout, a text "
            "file of prompts, or datasets:NAME"
        )
    return name
