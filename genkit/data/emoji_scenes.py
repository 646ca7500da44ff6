"""Emoji scenes: 24 objects, counted or in a relation, on coloured backgrounds, with captions.

Pictures of Noto Color Emoji (SIL Open Font License 1.1, see emoji/LICENSE.txt) composed into 32x32
scenes by the grammar of `genkit.data.scenes`. Objects are 12 or 16 pixels long, placed at random
without hiding each other, on every fourth pixel; the background's shade varies. A share of the
captions leaves size or background open. "validation" and "test" hold combinations that "train" has
never shown. Everything is made from fixed seeds while it is loaded, in a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from genkit.data.base import Samples
from genkit.data.scenes import BACKGROUNDS, SIZES, SPLITS, Asked, caption, draw
from genkit.data.short import SHORT

HOME = Path(__file__).parent / "emoji"
TILE = 64
LENGTHS = {"small": 12, "large": 16}  # pixels of an object's longer side in a scene of 32
COUNT = {"train": 30_000, "validation": 4000, "test": 4000}
GRID = 4  # pixels between two places: a small model learns a sprite per place it has seen
OPEN = 0.15  # share of captions that leave the size, and the background, open
_STUDENT = {
    "batch_size": 64,
    "muon": r"blocks?\.",
    "mixed_precision": "bf16",
    "measure_every": 0,
    "evaluate_n": 500,
    "evaluate_seeds": (0,),
    "evaluate_precision": "bf16",
}
_MATCHING = _STUDENT | {
    "warmup_share": 0.85,
    "lr": 1e-3,
    "fake_lr": 2e-3,
    "guidance": 1.0,
    "fake_turns": 2,
    "adversarial": 0.0,
    "shift": 3.0,
    "max_steps": 360,
    "sample_every": 150,
    "pairs": 6400,
    "pair_steps": 6,
    "pair_precision": "bf16",
}
PRESETS = {
    # A transformer of 4M parameters. Chosen on runs of 1,500 steps: Muon does in 1,500 what AdamW
    # does in 3,300, and 2e-3 is better than 1e-3. At that rate the text encoder forgets the order
    # of words before the network has a use for it; at a tenth it does not. No measuring: the
    # distance of few samples is noisier than what the last tenth changes.
    "flow_matching": {
        "max_steps": 8_000,
        "batch_size": 64,
        "lr": 2e-3,
        "warmup": 300,
        "weight_decay": 0.01,
        "time": "shifted",
        "muon": r"blocks?\.",
        "slow": r"text_encoder\.",
        "mixed_precision": "bf16",
        "sample_every": 1000,
        "measure_every": 0,
        "checkpoint_every": 500,
    },
    # The quickstart: within six minutes on two cores. Without guidance the teacher is twice as
    # fast, and its distance to the data the same. scripts/ship_emoji.sh trains for an hour.
    "dmd2": _MATCHING,
    "msd": _MATCHING,  # untuned
    "consistency": _STUDENT | {"guidance": 1.5, "max_steps": 2000},
    "reflow": _STUDENT
    | {
        "guidance": 1.5,
        "max_steps": 2000,
        "pairs": 12_000,
        "pair_steps": 8,
        "pair_precision": "bf16",
    },
    # Untuned: with the settings of their kin, or those found on the benches.
    "drifting": _STUDENT,
    "f_distill": _MATCHING | {"adversarial": 3e-3},
    "flow_map": _STUDENT | SHORT["flow_map"] | {"guidance": 1.5},
    "lcm": _STUDENT,
    "meanflow": _STUDENT | SHORT["meanflow"],
    "scm": _STUDENT,
}
Box = tuple[int, int]  # left, top


@cache
def names() -> list[tuple[str, str]]:
    """(singular, plural) of the objects, in the sheet's order."""
    lines = (HOME / "objects.txt").read_text(encoding="utf-8").splitlines()
    return [(line.split()[1], line.split()[2]) for line in lines]


@cache
def sprites(length: int) -> np.ndarray:
    """(objects, length, length, 4) premultiplied RGBA in [0, 1]."""
    from PIL import Image

    with Image.open(HOME / "sheet.png") as sheet:
        tiles = [sheet.crop((TILE * i, 0, TILE * i + TILE, TILE)) for i in range(len(names()))]
    small = [tile.resize((length, length), Image.Resampling.LANCZOS) for tile in tiles]
    rgba = np.stack([np.asarray(each) for each in small]).astype(np.float32) / 255
    rgba[..., :3] *= rgba[..., 3:]
    return rgba


@dataclass(frozen=True)
class Scene:
    """A scene with everything decided. boxes: left and top of each object, in pixels of a scene of
    32; shade: RGB of the background."""

    asked: Asked
    boxes: tuple[Box, ...]
    shade: tuple[float, float, float]

    @property
    def objects(self) -> tuple[int, ...]:
        """The object in each box."""
        return self.asked.objects if self.asked.relation else self.asked.objects * self.asked.count

    def render(self, size: int = 32) -> np.ndarray:
        """(size, size, 3) float32 in [-1, 1]; size is a multiple of 32."""
        scale = size // 32
        assert scale * 32 == size and self.asked.size is not None
        length = LENGTHS[self.asked.size] * scale
        pictures = sprites(length)
        shade = np.array(self.shade, dtype=np.float32)
        picture = np.broadcast_to(shade, (size, size, 3)).copy()
        for which, (left, top) in zip(self.objects, self.boxes, strict=True):
            sprite = pictures[which]
            paste(picture, sprite, left * scale, top * scale)
        return picture * 2 - 1


def paste(picture: np.ndarray, sprite: np.ndarray, left: int, top: int) -> None:
    """Lay a sprite (h, w, 4), premultiplied RGBA, over a picture (size, size, 3) in [0, 1]."""
    there = picture[top : top + sprite.shape[0], left : left + sprite.shape[1]]
    there *= 1 - sprite[..., 3:]
    there += sprite[..., :3]


def _places(rng: np.random.RandomState, asked: Asked) -> tuple[Box, ...]:
    """Places where no object hides another and a relation is plain to see."""
    assert asked.size is not None
    length = LENGTHS[asked.size]
    apart = length - 2

    def anywhere(*shape: int) -> np.ndarray:
        return GRID * rng.randint((32 - length) // GRID + 1, size=shape)

    if asked.relation is not None:
        while True:
            near, far = sorted(anywhere(2))
            across = anywhere(2)
            if far - near >= apart and abs(int(across[0]) - int(across[1])) <= length // 2:
                break
        first, second = (int(near), int(across[0])), (int(far), int(across[1]))
        if asked.relation in ("above", "below"):
            first, second = (first[1], first[0]), (second[1], second[0])
        swapped = asked.relation in ("right of", "below")
        return (second, first) if swapped else (first, second)
    if asked.count == 3:
        quarters = rng.choice(4, 3, replace=False)
        slack = (16 - length) // GRID + 1
        return tuple(
            (
                int(16 * (q % 2) + GRID * rng.randint(slack)),
                int(16 * (q // 2) + GRID * rng.randint(slack)),
            )
            for q in quarters
        )
    while True:
        boxes = [(int(x), int(y)) for x, y in anywhere(asked.count, 2)]
        if asked.count == 1 or max(abs(a - b) for a, b in zip(*boxes, strict=True)) >= apart:
            return tuple(boxes)


def scene(rng: np.random.RandomState, split: str) -> Scene:
    """A random scene of a split."""
    return _staged(rng, draw(rng, split, len(names())))


def _staged(rng: np.random.RandomState, asked: Asked) -> Scene:
    """A scene of attributes that are all given: places and the shade."""
    boxes = _places(rng, asked)
    assert asked.background is not None
    base = np.array(BACKGROUNDS[asked.background]) / 255
    shade = np.clip(base * (1 + 0.06 * rng.uniform(-1, 1)) + 0.02 * rng.uniform(-1, 1, 3), 0, 1)
    return Scene(asked, boxes, (float(shade[0]), float(shade[1]), float(shade[2])))


def scenes(split: str, n: int, seed: int = 0) -> list[Scene]:
    """n scenes of a split; the first of them are the same for any larger n."""
    if split not in SPLITS:
        raise ValueError(f"emoji-scenes have no split {split!r}; choose one of {', '.join(SPLITS)}")
    rng = np.random.RandomState([SPLITS.index(split), seed])
    return [scene(rng, split) for _ in range(n)]


def scenes_of(asked: Asked, n: int, seed: int = 0) -> list[Scene]:
    """n scenes that a caption asks for, of any split; what it leaves open is drawn at random."""
    rng = np.random.RandomState([len(SPLITS), seed])
    colours = list(BACKGROUNDS)
    found = []
    for _ in range(n):
        size = asked.size or SIZES[rng.randint(len(SIZES))]
        background = asked.background or colours[rng.randint(len(colours))]
        found.append(_staged(rng, replace(asked, size=size, background=background)))
    return found


def rendered(made: Iterable[Scene], size: int = 32) -> torch.Tensor:
    """The pictures of scenes, (n, 3, size, size) float32 in [-1, 1]."""
    x = torch.from_numpy(np.stack([each.render(size) for each in made]))
    return x.permute(0, 3, 1, 2).contiguous()


def captions(made: list[Scene], split: str, seed: int = 0) -> tuple[str, ...]:
    """The captions of `scenes(split, n, seed)`."""
    rng = np.random.RandomState([SPLITS.index(split), seed, 1])
    return tuple(_said(each, rng) for each in made)


def _said(each: Scene, rng: np.random.RandomState) -> str:
    """A caption of a scene, which may leave its size or its background open."""
    asked = each.asked
    size = None if rng.uniform() < OPEN else asked.size
    background = None if rng.uniform() < OPEN else asked.background
    return caption(replace(asked, size=size, background=background), names(), rng)


def load(split: str = "train", size: int = 32, n: int | None = None, seed: int = 0) -> Samples:
    """The scenes of a split: x_0 (n, 3, size, size) float32 in [-1, 1], and a caption each."""
    made = scenes(split, COUNT.get(split, 0) if n is None else n, seed)
    held_out = captions(scenes("test", COUNT["test"]), "test") if split == "train" else ()
    name = "emoji-scenes" if size == 32 else f"emoji-scenes-{size}"
    said = captions(made, split, seed)
    return Samples(rendered(made, size), {}, name, captions=said, held_out=held_out)
