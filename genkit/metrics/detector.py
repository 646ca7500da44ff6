"""The detector of emoji scenes: what is seen in a 32x32 scene, and where; and its features.

After CenterNet (Zhou et al. 2019, arXiv 1904.07850): on a grid of 16x16 places, every second pixel,
one channel regresses a Gaussian bump at each object's centre, others say which object is there and
whether it is large. Count and relation come from the detections by geometry, so no combination is
learnt by heart; the net is convolutional, and half of its training scenes mix objects and sizes as
no caption does, so that it names each object by what is seen of it, not by its neighbour. Little
noise, blur and bending is forgiven; objects blended to less than a third, in pieces, melted or two
at once count as none in training, or a blot of the right colour would pass for what was asked. Not
faithful: bumps are regressed by cross-entropy instead of the focal loss, and there are no offsets
(a place is the mean of its bump).

Its 64 features are a linear map of the grid averaged to 4x4, trained to tell the objects of each
quarter, the count, the background, and how noisy, blurred and broken a picture is; shifted and
scaled to mean 0 and variance 1 over real training scenes.

Trained by scripts/train_scene_detector.py on fresh scenes of all splits (it is a measuring device).
On 4,000 real test scenes of a seed it never saw, objects, count, relation, size and background are
each right in 0.999 or more, all at once in 0.999 (scene_detector.json has the figures).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "scene_detector.safetensors"
RECORD = WEIGHTS.with_suffix(".json")
SIZE, CELL = 32, 2  # pixels of a scene, and of a cell of the grid
GRID = SIZE // CELL
FOUND = 0.5  # the least height of a bump that is an object; those of real scenes are above 0.75
MOST = 6  # places looked at in a scene
OBJECTS, BACKGROUNDS = 24, 8


class Maps(NamedTuple):
    """Logits. heat (n, 16, 16): an object's centre; object (n, 24, 16, 16) and large (n, 16, 16):
    which object lies there, and whether it is large; background (n, 8); summary: see `Summary`."""

    heat: Tensor
    object: Tensor
    large: Tensor
    background: Tensor


class Summary(NamedTuple):
    """What the features are trained to tell, logits but for the flaws. quarters (n, 24 * 4):
    whether an object has its centre in a quarter; count (n, 5); large (n,): the share of large
    objects; background (n, 8); layout (n, 16): heat of the 4x4 blocks; flaws (n, 3): noise, blur,
    pieces of rubbish."""

    quarters: Tensor
    count: Tensor
    large: Tensor
    background: Tensor
    layout: Tensor
    flaws: Tensor


@dataclass(frozen=True)
class Seen:
    """What was seen in n scenes, at `MOST` places each, the surest first.

    score (n, k) in [0, 1]; object (n, k) int64; large (n, k) bool; place (n, k, 2): x and y of the
    centre in pixels; background (n,) int64, in the order of the data's `BACKGROUNDS`.
    """

    score: Tensor
    object: Tensor
    large: Tensor
    place: Tensor
    background: Tensor

    def __len__(self) -> int:
        return len(self.score)

    @property
    def count(self) -> Tensor:
        """Objects seen in each scene, (n,) int64; they are the first of its places."""
        return (self.score >= FOUND).sum(1)


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.enter = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) to the same."""
        return x + self.leave(F.relu(self.enter(F.relu(x))))


class SceneDetector(nn.Module):
    """Takes scenes (n, 3, 32, 32) in [-1, 1]; what lies outside is clamped, as in a picture."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int = 48, dim: int = 64):
        super().__init__()
        self.enter = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.fine = Residual(width)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.coarse = Residual(2 * width)
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.leave = nn.Conv2d(width, width, 3, padding=1)
        self.maps = nn.Conv2d(width, 2 + OBJECTS + BACKGROUNDS, 1)
        self.project = nn.Linear(16 * width, dim)
        told = OBJECTS * 4 + 5 + 1 + BACKGROUNDS + 16 + 3
        self.summary = nn.Sequential(nn.GELU(), nn.Linear(dim, 2 * dim), nn.GELU())
        self.tell = nn.Linear(2 * dim, told)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def trunk(self, x: Tensor) -> Tensor:
        """(n, 3, 32, 32) to (n, width, 16, 16)."""
        fine = self.fine(self.enter(x))
        coarse = self.coarse(self.down(F.relu(fine)))
        return F.relu(self.leave(F.relu(fine + F.pixel_shuffle(self.up(F.relu(coarse)), 2))))

    def hidden(self, trunk: Tensor) -> Tensor:
        """The features before they are standardised, (n, dim)."""
        return self.project(F.avg_pool2d(trunk, GRID // 4).flatten(1))

    def read(self, trunk: Tensor) -> Maps:
        """What each cell says."""
        heat, large, which, background = self.maps(trunk).split([1, 1, OBJECTS, BACKGROUNDS], 1)
        return Maps(heat[:, 0], which, large[:, 0], background.mean((2, 3)))

    def forward(self, x: Tensor) -> tuple[Maps, Summary]:
        """What cells and features tell, for training."""
        trunk = self.trunk(x)
        told = self.tell(self.summary(self.hidden(trunk)))
        quarters, count, large, background, layout, flaws = told.split(
            [OBJECTS * 4, 5, 1, BACKGROUNDS, 16, 3], 1
        )
        return self.read(trunk), Summary(quarters, count, large[:, 0], background, layout, flaws)

    @torch.no_grad()
    def standardise_on(self, x: Tensor) -> None:
        """Make `features` have mean 0 and variance 1 on these scenes."""
        self.mean.zero_()
        self.std.fill_(1)
        hidden = self.features(x)
        self.mean.copy_(hidden.mean(0))
        self.std.copy_(hidden.std(0))

    def features(self, x: Tensor) -> Tensor:
        """Standardised features, (n, dim) float32, no gradient."""
        return self._in_parts(
            x, lambda part: (self.hidden(self.trunk(part)) - self.mean) / self.std
        )

    def see(self, x: Tensor) -> Seen:
        """The objects and the background of each scene."""
        found: list[Seen] = []

        def look(part: Tensor) -> Tensor:
            found.append(_peaks(self.read(self.trunk(part))))
            return part[:0]

        self._in_parts(x, look)
        return Seen(
            *(torch.cat([getattr(seen, field.name) for seen in found]) for field in fields(Seen))
        )

    @torch.no_grad()
    def _in_parts(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        if tuple(x.shape[1:]) != (3, SIZE, SIZE):
            raise ValueError(f"scenes must be (n, 3, {SIZE}, {SIZE}), these are {tuple(x.shape)}")
        x = x.to(self.mean.device, self.mean.dtype)
        return torch.cat([function(part.clamp(-1, 1)) for part in x.split(256)])


def _peaks(maps: Maps) -> Seen:
    """The highest bumps no two of which are within two cells, which lie at their means."""
    heat = maps.heat.sigmoid()
    top = F.max_pool2d(heat[:, None], 5, stride=1, padding=2)[:, 0]
    score, place = (heat * (heat == top)).flatten(1).topk(MOST)
    x, y = place % GRID, place // GRID

    def at(values: Tensor) -> Tensor:
        """(n, c, 16, 16) at the places: (n, c, k)."""
        return values.flatten(2).gather(2, place[:, None].expand(-1, values.shape[1], -1))

    # The mean place of the 3x3 cells about a bump's top, weighted by its height there.
    around = F.unfold(F.pad(heat[:, None], (1, 1, 1, 1)), 3).unflatten(2, (GRID, GRID))
    weights = at(around).transpose(1, 2)
    step = torch.arange(3, dtype=heat.dtype, device=heat.device) - 1
    steps = torch.stack([step.repeat(3), step.repeat_interleave(3)], 1)
    moved = weights @ steps / weights.sum(2, keepdim=True).clamp(min=1e-6)
    places = (torch.stack([x, y], 2) + moved) * CELL
    return Seen(
        score=score,
        object=at(maps.object).argmax(1),
        large=at(maps.large[:, None])[:, 0] > 0,
        place=places,
        background=maps.background.argmax(1),
    )


@cache
def scene_detector() -> SceneDetector:
    """The detector that ships with genkit, frozen, in eval mode."""
    from safetensors.torch import load_file

    net = SceneDetector()
    net.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return net.eval().requires_grad_(False)


def scene_detector_record() -> dict:
    """How the detector was made: command, seed, accuracy of each attribute on real test scenes."""
    return json.loads(RECORD.read_text(encoding="utf-8"))
