"""genkit turns a slow generative model into a one-step or few-step one.

The names below are loaded on first use, so `import genkit` itself loads neither torch nor
diffusers:

    genkit.Pipeline    open an exported folder, a shipped pipeline or a hub id
    genkit.distill     train a few-step student of a teacher
    genkit.train       train a teacher
    genkit.evaluate    compare a pipeline with real data and with its teacher
    genkit.compare     train several methods on one teacher under one budget
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genkit.api import distill, evaluate, train
    from genkit.comparison.compare import compare
    from genkit.hub import Pipeline

__version__ = "0.1.0"
__all__ = ["Pipeline", "__version__", "compare", "distill", "evaluate", "train"]

_HOME = {
    "Pipeline": "genkit.hub",
    "compare": "genkit.comparison.compare",
    "distill": "genkit.api",
    "evaluate": "genkit.api",
    "train": "genkit.api",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its home module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'genkit' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the lazy names too, so that completion finds them."""
    return sorted({*globals(), *_HOME})
