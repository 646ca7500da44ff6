"""The model card (README.md) of a saved pipeline: what it is, and how exactly it is opened."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

FOLDER = '"this/folder"'


def model_card(
    pipeline_class: type[Any],
    defaults: Mapping[str, Any],
    components: Mapping[str, tuple[str, str]],
    text: str = "",
) -> str:
    """Markdown with the hub's front matter: the trained defaults, how to open it, then `text`.

    components: {name: (library, class)}, from which the card says whether the scheduler is stock.
    """
    title = defaults.get("description") or pipeline_class.__name__
    parts = [
        "---\nlibrary_name: diffusers\ntags:\n- genkit\n---",
        f"# {title}",
        _table(defaults),
        "## How to open it",
        _code(pipeline_class, defaults, components),
        _scheduler(components),
        text.strip(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(defaults: Mapping[str, Any]) -> str:
    hidden = ("format", "class", "description")
    rows = [
        f"| {name} | {value} |"
        for name, value in defaults.items()
        if name not in hidden and isinstance(value, (str, int, float))
    ]
    return "\n".join(["| | |", "|---|---|", *rows]) if rows else ""


def _code(
    pipeline_class: type[Any],
    defaults: Mapping[str, Any],
    components: Mapping[str, tuple[str, str]],
) -> str:
    """How the folder is opened and called: a stock class by diffusers alone, with every argument,
    as its own defaults are not the trained ones; ours by genkit, whose defaults they are."""
    call = _call(pipeline_class, defaults, components)
    if pipeline_class.__module__.split(".")[0] == "diffusers":
        return _stock_code(call, components)
    module, name = pipeline_class.__module__, pipeline_class.__name__
    return (
        "```python\n"
        "import genkit\n\n"
        f"pipeline = genkit.Pipeline.from_pretrained({FOLDER})\n"
        "```\n\n"
        "or by its class, with the same defaults:\n\n"
        "```python\n"
        f"from {module} import {name}\n\n"
        f"pipeline = {name}.from_pretrained({FOLDER})\n"
        "```\n\n"
        f"The defaults, said in full, are `pipeline(..., {call})`."
    )


def _stock_code(call: str, components: Mapping[str, tuple[str, str]]) -> str:
    library, _ = components.get("scheduler", ("diffusers", ""))
    ours = library.split(".")[0] == "genkit"
    # diffusers opens a component from elsewhere only if its module is already imported.
    first = f"import {library}  # its scheduler\n" if ours else ""
    return (
        "```python\n"
        f"{first}from diffusers import DiffusionPipeline\n\n"
        f"pipeline = DiffusionPipeline.from_pretrained({FOLDER})\n"
        f"image = pipeline({call}).images[0]\n"
        "```\n\n"
        "Give these arguments: the pipeline's own defaults are those of the class, not the trained "
        "ones. `genkit.Pipeline.from_pretrained` opens the folder too."
    )


def _call(
    pipeline_class: type[Any],
    defaults: Mapping[str, Any],
    components: Mapping[str, tuple[str, str]],
) -> str:
    """The arguments with which the pipeline samples as trained; a stock class gets its prompt and
    what its call would otherwise do to the size."""
    taken = inspect.signature(pipeline_class.__call__).parameters
    said = {
        "num_inference_steps": defaults.get("steps"),
        "guidance_scale": defaults.get("guidance"),
    }
    parts = [f"{name}={value}" for name, value in said.items() if value is not None]
    parts = [part for part in parts if part.split("=")[0] in taken]
    if pipeline_class.__module__.split(".")[0] == "diffusers":
        parts = ['"a prompt"', *parts] if "prompt" in taken else ["batch_size=1", *parts]
        if "eta" in taken and components.get("scheduler", ("", ""))[1] == "TCDScheduler":
            parts.append("eta=0.3")  # such a pipeline tells its scheduler 0 otherwise
        parts += ["use_resolution_binning=False"] if "use_resolution_binning" in taken else []
    return ", ".join(parts)


def _scheduler(components: Mapping[str, tuple[str, str]]) -> str:
    if "scheduler" not in components:
        return ""
    library, name = components["scheduler"]
    if library == "diffusers":
        return f"Its scheduler is diffusers' own {name}."
    return f"Its scheduler is genkit's {name}: no stock scheduler holds its trained grid."
