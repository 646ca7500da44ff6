"""What papers claim, each an entry that the bench's rows confirm, refute, or leave open.

A claim compares a row with another by one figure on one bench, at the number of steps of each,
seed by seed: it holds where the whole 95% interval of the difference lies on its side, is refuted
where it lies on the other, and is otherwise open. Nothing is left out because of how it fell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genkit.benchmarks.ranking import Found
from genkit.metrics.paired import Interval

# Settings over a method's preset for the bench, by which a claim's other side is made.
VARIANTS: dict[str, dict[str, Any]] = {
    "f_distill:reverse-kl": {"divergence": "reverse_kl"},
    "slimflow:full": {"student_size": ()},
    "msd:small": {"student_size": ("width=96",)},  # 42% fewer parameters, as the paper's
    # SLAM takes networks that predict eps on VP, so its claims are against an LCM there.
    "lcm:vp": {},
    "consistency:lcsc": {"keep_weights": 16},
    "flow_matching:pfgm": {"dimensions": 128.0, "drop": 0.0},
}

DIGITS, FIELDS, CONDITIONS = "analytic-digits", "spectral-fields", "conditional-variance"


@dataclass(frozen=True)
class Claim:
    """row (name, steps) is better than `than` by `figure` on `bench`; within: or no worse than it
    by more than this share of its own figure, so that "near" can be said. The name "best" is the
    winner's, on the seeds it was not chosen on."""

    says: str
    paper: str
    bench: str
    row: tuple[str, int]
    than: tuple[str, int]
    figure: str
    within: float = 0.0


CLAIMS = (
    Claim(
        "the best student of one step is as near as its teacher at 50 (within 10%)",
        "genkit's own goal",
        DIGITS,
        ("best", 1),
        ("teacher", 50),
        "fd",
        within=0.1,
    ),
    Claim(
        "and covers as much (within 1%)",
        "genkit's own goal",
        DIGITS,
        ("best", 1),
        ("teacher", 50),
        "cover",
        within=0.01,
    ),
    # The papers' teachers are networks with errors of their own, which an exact one has not.
    Claim(
        "the best student of one step is nearer than a network of its size at 50 steps",
        "genkit's own goal",
        DIGITS,
        ("best", 1),
        ("flow_matching", 50),
        "fd",
    ),
    Claim(
        "and covers as much (within 1%)",
        "genkit's own goal",
        DIGITS,
        ("best", 1),
        ("flow_matching", 50),
        "cover",
        within=0.01,
    ),
    Claim(
        "reflow before distillation beats distilling directly",
        "InstaFlow, 2309.06380",
        DIGITS,
        ("reflow", 1),
        ("regression", 1),
        "fd",
    ),
    Claim("SLAM is at or above LCM at 2 steps", "SLAM", DIGITS, ("slam", 2), ("lcm:vp", 2), "fd"),
    Claim("SLAM is at or above LCM at 4 steps", "SLAM", DIGITS, ("slam", 4), ("lcm:vp", 4), "fd"),
    Claim(
        "JS is above reverse KL in recall",
        "f-distill, 2502.15681",
        DIGITS,
        ("f_distill", 1),
        ("f_distill:reverse-kl", 1),
        "cover",
    ),
    Claim(
        "JS keeps more of the modes' masses than reverse KL",
        "f-distill, 2502.15681",
        CONDITIONS,
        ("f_distill", 1),
        ("f_distill:reverse-kl", 1),
        "modes_tv",
    ),
    Claim(
        "Uni-Instruct at 1 step is better than the teacher at 50",
        "Uni-Instruct",
        DIGITS,
        ("uni_instruct", 1),
        ("teacher", 50),
        "fd",
    ),
    Claim(
        "SiD at 1 step is better than the teacher at 50",
        "SiD, 2404.04057",
        DIGITS,
        ("sid", 1),
        ("teacher", 50),
        "fd",
    ),
    Claim(
        "Uni-Instruct at 1 step is better than a network of its size at 50",
        "Uni-Instruct",
        DIGITS,
        ("uni_instruct", 1),
        ("flow_matching", 50),
        "fd",
    ),
    Claim(
        "SiD at 1 step is better than a network of its size at 50",
        "SiD, 2404.04057",
        DIGITS,
        ("sid", 1),
        ("flow_matching", 50),
        "fd",
    ),
    Claim(
        "several students are above one of the same size",
        "MSD",
        CONDITIONS,
        ("msd", 1),
        ("dmd2", 1),
        "sw",
    ),
    Claim(
        "several smaller students are near one of full size (within 10%)",
        "MSD",
        CONDITIONS,
        ("msd:small", 1),
        ("dmd2", 1),
        "sw",
        within=0.1,
    ),
    Claim(
        "a combination of checkpoints at 1 step is above its base at 2",
        "LCSC",
        DIGITS,
        ("consistency:lcsc", 1),
        ("consistency", 2),
        "fd",
    ),
    Claim(
        "a student of half the parameters is within 10% of the full one",
        "SlimFlow, 2407.12718",
        DIGITS,
        ("slimflow", 1),
        ("slimflow:full", 1),
        "fd",
        within=0.1,
    ),
    Claim("rCM is above sCM in quality", "rCM, 2510.08431", DIGITS, ("rcm", 1), ("scm", 1), "fd"),
    Claim(
        "rCM is above DMD in diversity",
        "rCM, 2510.08431",
        DIGITS,
        ("rcm", 1),
        ("dmd2", 1),
        "cover",
    ),
    Claim(
        "HiPA keeps more of the high band than regression",
        "HiPA",
        FIELDS,
        ("hipa", 1),
        ("regression", 1),
        "high_leaves",
    ),
    Claim(
        "the PFGM++ prior makes a better teacher at 50 steps",
        "PFGM++",
        DIGITS,
        ("flow_matching:pfgm", 50),
        ("flow_matching", 50),
        "fd",
    ),
)


@dataclass(frozen=True)
class Verdict:
    """What the rows say of a claim: "holds", "refuted", "open" or "not measured"; the interval of
    the loss of its row less that of the other (and `within`), and the seeds it is over."""

    claim: Claim
    says: str
    interval: Interval | None = None
    seeds: int = 0


def verdict(claim: Claim, told: Mapping[str, Any]) -> Verdict:
    """The verdict of what a bench's file holds."""
    found = Found.of(told, claim.bench)
    if not any(row["name"] == "floor" for row in found.rows):
        return Verdict(claim, "not measured")
    difference = found.difference(claim.row, claim.than, claim.figure)
    if difference is None:
        return Verdict(claim, "not measured")
    (mean, low, high), seeds = difference
    allowed = 0.0
    if claim.within:
        theirs = found.figure(*claim.than, claim.figure).values()
        allowed = claim.within * abs(sum(theirs) / len(theirs))
    interval = Interval(mean - allowed, low - allowed, high - allowed)
    if seeds == 1:
        return Verdict(claim, "open", interval, seeds)
    says = "holds" if interval.high < 0 else "refuted" if interval.low > 0 else "open"
    return Verdict(claim, says, interval, seeds)
