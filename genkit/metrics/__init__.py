"""Figures that tell generators apart, one family a file; `suite` runs them all.

Samples come first, real ones second, in every function that compares sets. No figure is enough
alone: precision ranks averaged samples highest, Frechet distance and sliced Wasserstein forgive
lost modes, diversity rewards noise.
"""

from genkit.metrics.references import class_reference, digits_reference, reference
from genkit.metrics.suite import Reference, Seen, compare, floor, measure

__all__ = [
    "Reference",
    "Seen",
    "class_reference",
    "compare",
    "digits_reference",
    "floor",
    "measure",
    "reference",
]
