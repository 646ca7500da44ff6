"""Pieces of music as samples: sound of one length, and what each piece is asked to be.

Shared by every data set of music. x_0 (n, samples) is mono sound at RATE, silence beyond a piece's
own end. cond["frames"] (n,): frames of HOP samples that are the piece's. cond["bpm"] (n,): 0 where
it is not known. cond["key"] (n,): of genkit.harmony.KEYS, 24 where not known. cond["instrument"]
(n,): of the data set's `classes`, their number where not known. cond["bars"] (n, BARS, 2): chord
and section of every bar, -1 beyond the last, and everywhere where they are not known.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genkit.data.base import Samples
from genkit.harmony import KEYS, Plan

RATE, HOP = 22_050, 1024
FRAMES = 768  # 35.7 s
LEAST = 192  # frames below which a piece is left out
BARS = 40
# Settings of the methods: a codec of 65 minutes on one core, a teacher of 60 to 75, students of 10
# to 20, and 12 minutes for the pairs that reflow and regression share.
_ALL: dict[str, Any] = {
    "batch_size": 8,
    "muon": r"blocks\..*(qkv|out|up|down)\.weight",
    "mixed_precision": "bf16",
    "measure_every": 0,
    "evaluate_n": 64,
    "evaluate_seeds": (0,),
}
_STUDENT = _ALL | {"guidance": 2.0, "evaluate_steps": (1, 4, 20)}
_PAIRED = _STUDENT | {"pairs": 1500, "pair_steps": 12, "pair_precision": "bf16"}
PLAYED: dict[str, dict[str, Any]] = {
    "flow_matching": _ALL
    | {
        "max_steps": 6000,
        "warmup": 200,
        "weight_decay": 0.01,
        "time": "shifted",
        "slow": r"text_encoder\.",
        "steps": 20,
        "sample_every": 1500,
        "checkpoint_every": 500,
        "evaluate_steps": (1, 4, 20),
    },
    "reflow": _PAIRED | {"max_steps": 900, "renew": False},
    "regression": _PAIRED | {"max_steps": 700},
    "consistency": _STUDENT | {"max_steps": 800},
}


@dataclass(frozen=True)
class Piece:
    """Samples (n,) at RATE, a caption, and where they are known: the number of the key, the name of
    the lead instrument, the tempo, and the plan of a piece that begins with its first sample."""

    audio: Tensor
    text: str
    key: int | None = None
    instrument: str | None = None
    bpm: float = 0.0
    plan: Plan | None = None


def bars_of(plan: Plan | None) -> Tensor:
    """(BARS, 2) chords and sections, -1 beyond the last bar."""
    found = torch.full((BARS, 2), -1)
    if plan is not None:
        rows = list(zip(plan.chords, plan.sections, strict=True))[:BARS]
        found[: len(rows)] = torch.tensor(rows)
    return found


def plan_of(bpm: float, bars: Tensor) -> Plan:
    """The plan of a sample's tempo and bars (BARS, 2); one without bars where none are known."""
    rows = [tuple(row) for row in bars.tolist() if row[0] >= 0]
    return Plan(bpm, tuple(row[0] for row in rows), tuple(row[1] for row in rows))


def gather(
    pieces: Iterable[Piece], name: str, instruments: Sequence[str], frames: int = FRAMES
) -> Samples:
    """Pieces as samples of one length; shorter ones are padded with silence, and those shorter
    than LEAST frames are left out, which is said.

    ValueError where none is left.
    """
    sounds, said, short = [], [], 0
    cond: dict[str, list] = {"frames": [], "bpm": [], "key": [], "instrument": [], "bars": []}
    for piece in pieces:
        audio = piece.audio[: frames * HOP]
        if len(audio) < LEAST * HOP:
            short += 1
            continue
        sounds.append(F.pad(audio, (0, frames * HOP - len(audio))))
        said.append(piece.text)
        cond["frames"].append(len(audio) // HOP)
        cond["bpm"].append(piece.bpm)
        cond["key"].append(len(KEYS) if piece.key is None else piece.key)
        known = piece.instrument in instruments
        cond["instrument"].append(
            instruments.index(str(piece.instrument)) if known else len(instruments)
        )
        cond["bars"].append(bars_of(piece.plan))
    if short:
        print(f"{name}: {short} pieces under {LEAST * HOP / RATE:.1f} s left out", file=sys.stderr)
    if not sounds:
        raise ValueError(f"{name} holds no piece of at least {LEAST * HOP / RATE:.1f} s")
    held = {key: torch.tensor(rows) for key, rows in cond.items() if key != "bars"}
    held["bpm"], held["bars"] = held["bpm"].float(), torch.stack(cond["bars"])
    return Samples(torch.stack(sounds), held, name, 0, tuple(said), classes=tuple(instruments))
