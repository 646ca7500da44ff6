"""What a saved pipeline's folder holds, and whether it can be opened.

Read before diffusers sees the folder: no module is imported but those of genkit, diffusers and
transformers, nothing is unpickled, and what is wrong is said in one sentence.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any

FORMAT = 1
INDEX = "model_index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def package_folder(name: str) -> FilePath:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.submodule_search_locations, f"{name} is not installed"
    return FilePath(next(iter(spec.submodule_search_locations)))


def sentence(error: BaseException) -> str:
    """The first line of an error's text, without its full stop."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(". ")


@contextmanager
def one_sentence(folder: FilePath) -> Iterator[None]:
    """Turn what diffusers raises while opening `folder` into one ValueError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be opened: {sentence(error)}") from error


def read_index(folder: FilePath) -> dict[str, Any]:
    """The folder's model_index.json; ValueError where there is none, or one from a newer genkit."""
    file = folder / INDEX
    if not file.is_file():
        inside = folder / "pipeline" / INDEX
        hint = f"; its pipeline is {inside.parent}" if inside.is_file() else ""
        raise ValueError(f"{folder} holds no pipeline (no {INDEX}){hint}")
    try:
        index = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(
            f"{file} is not JSON ({sentence(error)}); save the pipeline anew"
        ) from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise ValueError(f"{file} names no pipeline class of genkit or diffusers")
    version = index.get("_genkit", {}).get("format", FORMAT)
    if not isinstance(version, int) or version > FORMAT:
        raise ValueError(
            f"{folder} was saved by a newer genkit (format {version}, this one reads {FORMAT}); "
            "upgrade genkit to open it"
        )
    return index


def components(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """{component: (library, class)} of an index, those it leaves out not counted."""
    return {
        name: (value[0], value[1])
        for name, value in index.items()
        if not name.startswith("_")
        and isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
    }


def check(folder: FilePath) -> dict[str, Any]:
    """The index of a folder that can be opened; imports the modules its components come from.

    ValueError for a missing component, an unknown library or class, a pickle in the place of
    weights, and missing, truncated or incomplete weights.
    """
    index = read_index(folder)
    for name, (library, class_name) in components(index).items():
        part = folder / name
        if not part.is_dir() or not any(part.iterdir()):
            raise ValueError(f"{folder} is incomplete: its {name} is missing")
        _check_weights(part)
        component = _component_class(folder, library, class_name)
        if _is_model(component) and not list(part.glob("*.safetensors")):
            raise ValueError(f"{part} is incomplete: its weights (safetensors) are missing")
    return index


def _component_class(folder: FilePath, library: str, class_name: str) -> Any:
    """The class of a component; importing its module is what diffusers wants done before."""
    from diffusers import pipelines

    if library.split(".")[0] in ("genkit", "genkit_pipelines", "diffusers", "transformers"):
        try:
            module = importlib.import_module(library)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{folder} names the module {library!r}, which is not here; upgrade genkit"
            ) from error
    elif library in dir(pipelines):
        module = getattr(pipelines, library)
    else:
        raise ValueError(
            f"{folder} names the library {library!r}; genkit opens components of its own, of "
            "diffusers and of transformers only"
        )
    if not hasattr(module, class_name):
        raise ValueError(f"{folder} names the class {class_name!r}, which {library} does not have")
    return getattr(module, class_name)


def _is_model(component: Any) -> bool:
    from torch import nn

    return isinstance(component, type) and issubclass(component, nn.Module)


def _check_weights(part: FilePath) -> None:
    from safetensors import SafetensorError, safe_open

    weights = sorted(part.glob("*.safetensors"))
    pickles = sorted(file.name for file in part.iterdir() if file.suffix in PICKLES)
    if pickles and not weights:
        raise ValueError(
            f"{part} holds its weights as a pickle ({pickles[0]}), which can run code when opened; "
            "genkit opens safetensors only"
        )
    for file in weights:
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{file} is truncated or damaged ({sentence(error)}); save or download it anew"
            ) from error


def missing_weights(part: FilePath, network: Any) -> list[str]:
    """The weights of a loaded network that are in no file of its folder: diffusers and transformers
    fill them at random and only warn. Tied weights, saved under one of their names, are there."""
    from safetensors import safe_open

    saved: set[str] = set()
    for file in part.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            saved.update(weights.keys())
    state = network.state_dict()
    held = {state[name].data_ptr() for name in saved & state.keys()} - {0}  # 0: not in memory
    return sorted(name for name in state.keys() - saved if state[name].data_ptr() not in held)


def find_class(index: Mapping[str, Any]) -> type[Any]:
    """The pipeline class an index names: ours, by the module saved with it, or diffusers'."""
    import diffusers

    name, saved = index["_class_name"], index.get("_genkit", {}).get("class", "")
    module = saved if str(saved).startswith("genkit_pipelines.") else _module_of(name)
    if module is not None and importlib.util.find_spec(module) is not None:
        found = vars(importlib.import_module(module)).get(name)
        if found is not None:
            return found
    elif re.fullmatch(r"\w+Pipeline", name) and name in dir(diffusers):
        return getattr(diffusers, name)
    raise ValueError(
        f"the pipeline class {name!r} is known neither to genkit nor to diffusers "
        f"{diffusers.__version__}; upgrade them, or check {INDEX}"
    )


def _module_of(class_name: str) -> str | None:
    """The module of genkit_pipelines that defines a class, found without importing any."""
    root = package_folder("genkit_pipelines")
    for file in sorted(root.rglob("*.py")):
        tree = ast.parse(file.read_text())
        if any(isinstance(n, ast.ClassDef) and n.name == class_name for n in tree.body):
            return ".".join(("genkit_pipelines", *file.relative_to(root).with_suffix("").parts))
    return None
