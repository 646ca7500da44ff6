"""Settings of methods in short trainings, some hundred to a thousand steps, found on the densities
known exactly (genkit.benchmarks, seed 100); the benches and small data sets share them.

SHORT is {method: settings}. A paper's own settings are for hundreds of thousands of steps.
"""

from typing import Any

SHORT: dict[str, dict[str, Any]] = {
    # A short chain from the teacher's step to the whole: steps of training are a thousand.
    "flow_map": {"lr": 2e-3, "intervals": 8, "whole": 0.4, "instant": 0.2},
    # A student that learns as fast as the heads outruns them, to nine times the variance.
    "ladd": {"lr": 2e-4, "head_lr": 2e-3, "time_mean": 0.0, "penalty": 0.1},
    # Nearly even times, most of them two: the paper's, which suit a long training, hold few steps
    # that are nearly as long as the whole. Nor does an error weigh less for being large.
    "meanflow": {"lr": 1e-3, "instant": 0.25, "time_mean": 0.0, "time_std": 1.7, "power": 0.0},
    # A step with matching costs 3.5 times one of consistency alone (by the defaults, 6.5), so most
    # are of that. Times of matching are even: small pictures have no need of a shift.
    "rcm": {"tangent_warmup": 0.75, "fake_turns": 1, "lr": 1e-3, "fake_lr": 1e-3, "shift": 1.0},
}
# On pictures of digits, theirs or the analytic ones, two need a lower rate.
SHORT_ON_DIGITS = SHORT | {
    "ladd": SHORT["ladd"] | {"lr": 1e-4},
    "rcm": SHORT["rcm"] | {"lr": 3e-4, "fake_lr": 3e-4},
}
