"""The model card (README.md) of a saved pipeline: what it is, and how exactly it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
        _code(pipeline_class, defaults),
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


def _code(pipeline_class: type[Any], defaults: Mapping[str, Any]) -> str:
    said = {
        "num_inference_steps": defaults.get("steps"),
        "guidance_scale": defaults.get("guidance"),
    }
    call = ", ".join(f"{name}={value}" for name, value in said.items() if value is not None)
    module, name = pipeline_class.__module__, pipeline_class.__name__
    if module.split(".")[0] == "diffusers":
        module = "diffusers"
    return (
        "```python\n"
        "import genkit\n\n"
        'pipeline = genkit.Pipeline.from_pretrained("this/folder")\n'
        "```\n\n"
        "or by its class, with the same defaults:\n\n"
        "```python\n"
        f"from {module} import {name}\n\n"
        f'pipeline = {name}.from_pretrained("this/folder")\n'
        "```\n\n"
        f"The defaults, said in full, are `pipeline(..., {call})`."
    )


def _scheduler(components: Mapping[str, tuple[str, str]]) -> str:
    if "scheduler" not in components:
        return ""
    library, name = components["scheduler"]
    if library == "diffusers":
        return f"Its scheduler is diffusers' own {name}."
    return f"Its scheduler is genkit's {name}: no stock scheduler holds its trained grid."
