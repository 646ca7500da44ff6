"""Settings that were found to serve the densities known exactly, chosen on seed 100."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genkit.data.short import SHORT, SHORT_ON_DIGITS

# The share on seed 0 of the digits: a regression step costs a tenth of a matching one, so half of
# the steps would leave it all but untrained. Rates on one of conditional-variance.
_MATCHING = {"warmup_share": 0.85, "fake_turns": 2, "lr": 5e-4, "fake_lr": 1e-3}
KNOWN: dict[str, dict[str, Any]] = SHORT | {  # for all of them
    # Heun's rule costs a third more for no better students of a few hundred steps.
    "consistency": {"solver": "euler", "last_intervals": 32},
    "dmd2": _MATCHING,
    "f_distill": _MATCHING,
    "msd": _MATCHING,
    # Low-rank weights take a higher rate.
    "hipa": {"lr": 3e-3, "lora": 16},
    # Stages are of 150 steps. Fewer stages, from 16, end no better than 16 steps of DDIM.
    "progressive": {"lr": 2e-3, "warmup": 20},
    # Half of the samples teach the doublings, of which 16 steps would leave too few: a student is
    # no better than Euler's rule at so many.
    "shortcut": {"lr": 1e-3, "base_steps": 32, "long_share": 0.5},
    # Begun at less noise, where the teacher makes more than the mean: 500 steps are few.
    "sid": {"lr": 5e-4, "fake_lr": 1e-3, "alpha": 1.0, "start": 1.0},
    "uni_instruct": {"lr": 5e-4, "fake_lr": 1e-3, "start": 1.0},
    # Near gamma = 0 the released sigma_gamma is far from the noise there is, at pure noise most of
    # all; a thousand steps do not absorb it.
    "slam": {"gamma_low": 0.9},
    # A fresh network takes a higher rate, and a step of its flow costs a third of a later one.
    "slimflow": {"lr": 4e-3, "reflow_share": 0.7},
    "tcd": {"lr": 2e-3, "intervals": 20},
}
# Eight steps of the exact teacher are as good as 16 there, and make twice the pairs.
_PAIRS = {
    name: {"pair_steps": 8}
    for name in ("regression", "reflow", "hipa", "slimflow", "dmd2", "f_distill", "msd")
}
# Students of slimflow have half of the parameters.
OWN: dict[str, dict[str, dict[str, Any]]] = {
    "analytic-digits": _PAIRS
    | {
        "ladd": SHORT_ON_DIGITS["ladd"],
        "rcm": SHORT_ON_DIGITS["rcm"],
        "slimflow": {"student_size": ("width=192", "depth=3"), "pair_steps": 8},
    },
    "spectral-fields": _PAIRS
    | {
        # Not narrower: a width of 64 is what a patch's pixels need.
        "slimflow": {"student_size": ("depth=1",), "pair_steps": 8},
        "sid": {"alpha": 1.2},
        "ladd": {"lr": 1e-4},
    },
    "conditional-variance": {"slimflow": {"student_size": ("width=96", "depth=3")}},
}


def of(bench: str, method: str) -> Mapping[str, Any]:
    """The settings of a method on a bench."""
    return KNOWN.get(method, {}) | OWN.get(bench, {}).get(method, {})
