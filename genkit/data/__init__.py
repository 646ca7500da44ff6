"""Data sets, found by looking: every file of this folder that defines `load` is one.

A data set's name is its file's name (with - for _), its description the first line of that file's
docstring. A file may say under METHOD by which method a teacher of it is trained by default, and
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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genkit.data.base import Prompts, Samples

__all__ = ["default_method", "describe", "load", "names", "open_data", "presets"]

METHOD = "flow_matching"  # of data that say nothing


@cache
def _trees() -> dict[str, ast.Module]:
    """{file name: syntax tree} of the files of this folder that define `load`."""
    files = [p for p in sorted(Path(__file__).parent.glob("*.py")) if p.stem != "__init__"]
    trees = {p.stem: ast.parse(p.read_text(encoding="utf-8")) for p in files}
    return {
        name.replace("_", "-"): tree
        for name, tree in trees.items()
        if any(isinstance(node, ast.FunctionDef) and node.name == "load" for node in tree.body)
    }


def names() -> list[str]:
    """The data sets there are, in alphabetical order."""
    return list(_trees())


def describe(name: str) -> str:
    """One line on the data set `name`. ValueError if there is none of that name."""
    return (ast.get_docstring(_trees()[_known(name)]) or "").partition("\n")[0]


def default_method(name: str) -> str:
    """The method by which a teacher of a data set, or of a folder, is trained unless told."""
    return str(_said(name, "METHOD", METHOD))


def presets(name: str, method: str) -> Mapping[str, Any]:
    """What the file of a data set, or of the layout of a folder, says of a method under PRESETS."""
    return _said(name, "PRESETS", {}).get(method, {})


def _said(name: str, constant: str, default: Any) -> Any:
    """The constant of that name in the file of a data set or of a folder's layout; `default` where
    it has none. Files without it are not imported."""
    from genkit.data import speech_folder

    if (tree := _trees().get(name)) is None:
        spoken = bool(name) and speech_folder.is_speech_folder(Path(name))
        return getattr(speech_folder, constant, default) if spoken else default
    plain = [each.targets[0] for each in tree.body if isinstance(each, ast.Assign)]
    typed = [each.target for each in tree.body if isinstance(each, ast.AnnAssign)]
    if constant not in [ast.unparse(each) for each in plain + typed]:
        return default
    return getattr(importlib.import_module(f"genkit.data.{name.replace('-', '_')}"), constant)


def load(name: str, split: str = "train") -> "Samples":
    """The data set `name`, or a folder of speech or music, one of its splits. ValueError if there
    is no such set or split."""
    from genkit.data.music_folder import is_music_folder, read_music_folder
    from genkit.data.speech_folder import is_speech_folder, read_speech_folder

    if name not in names() and is_speech_folder(Path(name)):
        return read_speech_folder(Path(name), split)
    if name not in names() and is_music_folder(Path(name)):
        return read_music_folder(Path(name), split)
    module = f"genkit.data.{_known(name).replace('-', '_')}"
    return importlib.import_module(module).load(split)


def open_data(name: str, size: int, split: str = "train") -> "Samples | Prompts":
    """What to train on: a data set of ours, a folder of pictures or music with captions or of
    speech in LJSpeech's layout, a text file of prompts, or `datasets:NAME`. Pictures of a person's
    own are brought to size x size. split: of data sets of ours, of speech and of music.

    ValueError for what is none of these, or cannot be read.
    """
    from genkit.data.datasets_hub import PREFIX, read_datasets
    from genkit.data.folder import read_folder
    from genkit.data.music_folder import is_music_folder
    from genkit.data.prompts import read_prompts
    from genkit.data.speech_folder import is_speech_folder

    path = Path(name)
    if name.startswith(PREFIX):
        return read_datasets(name.removeprefix(PREFIX), size)
    ours = name in names() or is_speech_folder(path) or is_music_folder(path)
    if path.is_dir() and not ours:
        return read_folder(path, size)
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
