"""Probability paths x_t = alpha(t) x_0 + sigma(t) eps: the one place that knows schedules."""

from __future__ import annotations

from typing import Any

from genkit.paths.base import KINDS, Kind, Path, expand, wide
from genkit.paths.explicit import EDM, RectifiedFlow, TrigFlow, edm_time, edm_weights
from genkit.paths.variance_preserving import VP, DiscreteVP

__all__ = [
    "EDM",
    "KINDS",
    "PATHS",
    "VP",
    "DiscreteVP",
    "Kind",
    "Path",
    "RectifiedFlow",
    "TrigFlow",
    "edm_time",
    "edm_weights",
    "expand",
    "make_path",
    "wide",
]

PATHS: dict[str, type[Path]] = {
    path.name: path for path in (RectifiedFlow, TrigFlow, EDM, VP, DiscreteVP)
}


def make_path(config: dict[str, Any]) -> Path:
    """The path of a config written by `Path.config`; ValueError for an unknown name."""
    arguments = dict(config)
    name = arguments.pop("name", None)
    if name not in PATHS:
        raise ValueError(f"unknown path {name!r}; choose one of {', '.join(PATHS)}")
    return PATHS[name](**arguments)
