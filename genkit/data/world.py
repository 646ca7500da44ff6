"""River world: clips of 10 frames, 64x64, with an action a frame; a boat obeys, the rest does not.

Made here from seeds and drawn where they are asked for; genkit.data.river has the rules and keeps
the true places. Actions are random and mostly kept for some frames. Splits differ in both, where a
boat begins and what it is told: a start cell belongs to "train" or to the two others, and a string
of actions, by a check sum, to one of the three. "train" has more of what is rare and hard: in
LATE of its clips the boat is not there from the beginning, as a network that never saw one come
goes on for ever without one it lost (frames without it are seen by later ones, not learned); in MET
of them the balloon is sent to meet the boat, as a boat is lost where a network does not know which
of the two is on top.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from genkit.data.base import Samples
from genkit.data.river import ACTIONS, HIGH, KEYS, LOW, SIZE, SPEED, States, draw, simulate

FRAMES = 10
KEPT = 0.7  # the chance that an action is kept
LATE, MET = 0.4, 0.4  # shares of the clips of "train", which do not overlap
SPLITS = {"train": 20_000, "validation": 500, "test": 500}
SEEDS = {"train": 0, "validation": 1_000_003, "test": 2_000_003}
CELLS = (HIGH - LOW) // SPEED + 1
# A teacher of about two hours on one core, students of 15 to 30 minutes.
_COMMON = {
    "batch_size": 8,
    "mixed_precision": "bf16",
    "measure_every": 0,
    "evaluate_n": 64,
    "evaluate_seeds": (0,),
    "evaluate_steps": (1, 2, 4, 16),
}
_MUON = {"muon": r"blocks\."}
_STUDENT = _COMMON | _MUON | {"max_steps": 300, "warmup": 20, "sample_every": 100}
_PAIRS = {"pairs": 500, "pair_steps": 6, "pair_precision": "bf16"}
PRESETS: dict[str, dict[str, Any]] = {
    # Always forced, as sampling is, but for first frames, which cost a quarter.
    "flow_matching": _COMMON
    | _MUON
    | {
        "max_steps": 4_500,
        "warmup": 200,
        "time": "shifted",
        "drop": 0.0,
        "forced": 1.0,
        "alone": 0.5,
        "steps": 20,
        "sample_every": 1000,
    },
    "consistency": _STUDENT | {"solver": "euler", "alone": 0.5, "max_steps": 400},
    "regression": _STUDENT | _PAIRS,
    # On its own roll-outs, from a regression's student (--student): 20 minutes on one core. Whether
    # there is a boat is decided where there is much noise, and in the first frame.
    "dmd2": _COMMON
    | {"warmup_share": 0.0, "fake_turns": 2, "alone": 0.5, "opening": 4, "shift": 6.0}
    | {"adversarial": 0.0, "max_steps": 150},
}


class Drawn:
    """Clips (n, f, 3, SIZE, SIZE) that are drawn where they are asked for."""

    def __init__(self, states: States) -> None:
        self.states = states
        self.shape = torch.Size([*states.actions.shape, 3, SIZE, SIZE])

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        return draw(self.states.take(rows if isinstance(rows, slice) else rows.numpy()))


@lru_cache(maxsize=4)
def states(split: str = "train", n: int | None = None, frames: int = FRAMES) -> States:
    """The first n worlds of a split, all by default: what is true of its clips."""
    if split not in SPLITS:
        raise ValueError(f"world has no split {split!r}; choose one of {', '.join(SPLITS)}")
    seed = SEEDS[split]
    draws = np.random.RandomState(seed + 1).random_sample((n or SPLITS[split], 3 + 2 * frames))
    starts, actions = _starts(split, draws[:, :2]), _actions(split, draws[:, 3:])
    if split != "train":
        return simulate(starts, actions, seed)
    late, met = _rare(draws[:, 2], frames)
    return replace(simulate(starts, actions, seed, met), since=late)


def _rare(draws: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """(the first frame with a boat (n,), the frame in which it is met (n,), or -1), from uniform
    draws (n,); both are any of a clip's frames, but that no boat is late for the first."""
    late = 1 + np.floor(draws / LATE * (frames - 1)).astype(np.int64)
    met = np.floor((draws - LATE) / MET * frames).astype(np.int64)
    none = (met < 0) | (met >= frames)
    return np.where(draws < LATE, late, 0), np.where(none, -1, met)


def load(split: str = "train", n: int | None = None, frames: int = FRAMES) -> Samples:
    """Clips x_0 (n, frames, 3, 64, 64) float32 in [-1, 1], drawn where they are indexed, and
    cond["action"] (n, frames) int64 in 0..4, which led to each frame; genkit.data.river.ACTIONS."""
    found = states(split, n, frames)
    cond = {"action": torch.from_numpy(found.actions)}
    drawn = cast(Any, Drawn(found))
    mask = torch.from_numpy(found.shown).float() if split == "train" else None
    return Samples(drawn, cond, "world", num_classes=len(ACTIONS), mask=mask)


def held_out_start(cells: np.ndarray) -> np.ndarray:
    """Whether cells (..., 2), counted from 0, are no start of "train"."""
    return (cells[..., 0] + 2 * cells[..., 1]) % 5 == 0


def split_of(actions: np.ndarray) -> np.ndarray:
    """The split (n,) that strings of actions (n, f) belong to."""
    sums = actions @ _weights(actions.shape[1]) % 5
    return np.array(["test", "validation", "train", "train", "train"])[sums]


def _weights(frames: int) -> np.ndarray:
    return 1 + np.arange(frames) % 4


def _starts(split: str, draws: np.ndarray) -> np.ndarray:
    """Centres of boats (n, 2) before the first action."""
    cells = np.floor(draws * CELLS).astype(np.int64)
    # A step to the right changes the residue by one: no more than four are needed.
    for _ in range(4):
        wrong = held_out_start(cells) == (split == "train")
        cells[wrong, 0] = (cells[wrong, 0] + 1) % CELLS
    wrong = held_out_start(cells) == (split == "train")
    cells[wrong] = (1, 0) if split == "train" else (0, 0)
    return LOW + SPEED * cells


def _actions(split: str, draws: np.ndarray) -> np.ndarray:
    """Strings (n, f) of the split; the last action is changed where another split's came out."""
    frames = draws.shape[1] // 2
    fresh = np.floor(draws[:, :frames] * len(ACTIONS)).astype(np.int64)
    actions = fresh.copy()
    for i in range(1, frames):
        kept = draws[:, frames + i] < KEPT
        actions[:, i] = np.where(kept, actions[:, i - 1], fresh[:, i])
    for _ in range(len(ACTIONS)):
        wrong = split_of(actions) != split
        actions[wrong, -1] = (actions[wrong, -1] + 1) % len(ACTIONS)
    assert (split_of(actions) == split).all(), "the last weight has an inverse modulo 5"
    return actions


def read_actions(text: str) -> list[int]:
    """Actions of a string such as "rrruu..ll"; ValueError for a letter that is none."""
    unknown = [letter for letter in text if letter not in KEYS]
    if unknown or not text:
        known = ", ".join(f"{key} ({name})" for key, name in zip(KEYS, ACTIONS, strict=True))
        said = f"called {unknown[0]!r}" if unknown else "given"
        raise ValueError(f"no action is {said}; there are: {known}")
    return [KEYS.index(letter) for letter in text]
