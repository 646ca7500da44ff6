"""Settings of a training run, as plain data; every field is a command-line flag."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# What may differ between a run and its resumption: none of these changes a weight.
FREE = frozenset({"max_minutes", "log_every", "sample_every", "checkpoint_every", "keep_weights"})


def check_precision(name: str, value: str) -> None:
    """ValueError where the setting `name` is no precision that networks can run in."""
    if value not in ("no", "bf16"):
        raise ValueError(f"{name} is {value!r}; give no or bf16")


@dataclass
class TrainerConfig:
    """How long, how much at once, and how often something is written."""

    max_steps: int = 2000
    """Student steps over all stages."""
    batch_size: int = 128
    """Samples per turn, over all processes and accumulated parts together."""
    accumulate: int = 1
    """Parts a batch is cut into to save memory; the result is the same but for rounding."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """bf16 runs the networks in bfloat16 where that is safe, unless a CPU has no instructions for
    it; weights stay in float32."""
    muon: str = ""
    """Names, as a regular expression, of the matrices that Muon trains instead of AdamW; a small
    transformer learns about twice as much in a step."""
    slow: str = ""
    """Names, as a regular expression, of parameters that AdamW trains at a tenth of the learning
    rate, such as those of a text encoder that is trained along."""
    seed: int = 0
    """Seed of every random draw."""
    log_every: int = 20
    """Steps between two lines of log.jsonl."""
    sample_every: int = 500
    """Steps between two previews in samples/; 0 leaves them out."""
    measure_every: int = 250
    """Steps between two measurements of the distance; 0 leaves them out."""
    checkpoint_every: int = 250
    """Steps between two checkpoints."""
    keep_weights: int = 0
    """Of how many of the last checkpoints to keep the student's weights, which genkit search lcsc
    combines."""
    max_minutes: float | None = None
    """Stop early, with the best student so far, after this many minutes of this session."""

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "accumulate", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        for name in ("sample_every", "measure_every", "keep_weights"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 (never) or more")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise ValueError(
                f"max_minutes is {self.max_minutes}; give more than 0, or leave it out"
            )
        for name in ("muon", "slow"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise ValueError(
                    f"{name} is no regular expression ({error}); see Python's re"
                ) from error
        check_precision("mixed_precision", self.mixed_precision)
