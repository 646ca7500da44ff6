"""The rules and pictures of the river world: a boat that obeys, a balloon and banks that do not.

A boat goes where the action says, SPEED pixels a frame, and stays inside the picture. Nothing else
hears the actions: the river comes down by SCROLL pixels a frame with banks that wander, and a
balloon is carried by a wind that nobody sees, which changes slowly, and by its own whims. All are
vectors over worlds: no world is simulated or drawn alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

ACTIONS = ("stay", "left", "right", "up", "down")
KEYS = ".lrud"  # one letter for each, of which strings of actions are made
SIZE, SPEED, SCROLL = 64, 3, 2
LOW, HIGH = 6, 57  # where the boat's centre may be, both included
STEPS = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]]) * SPEED
BANK_LOW, BANK_HIGH = 4, 20  # pixels of either bank
WIND, GUST, MEMORY = 2.0, 0.6, 0.95  # the wind's deviation, the balloon's own, the wind's memory

# What the pictures are drawn with, in [-1, 1]: water, ripple, bank, tuft, balloon, its light, boat,
# its deck, its rim.
PALETTE = torch.tensor(
    [
        [70, 130, 200],
        [110, 165, 225],
        [80, 150, 70],
        [50, 110, 50],
        [215, 45, 60],
        [255, 190, 190],
        [255, 150, 20],
        [255, 245, 150],
        [60, 30, 10],
    ],
    dtype=torch.float32,
).div(127.5).sub(1)  # fmt: skip


def _disc(radius: float) -> np.ndarray:
    """(k, 2) offsets (x, y) within `radius` of the centre."""
    reach = range(-int(radius), int(radius) + 1)
    return np.array([(x, y) for y in reach for x in reach if x * x + y * y <= radius * radius])


def _sprite(*layers: tuple[np.ndarray, int]) -> tuple[np.ndarray, np.ndarray]:
    """(offsets (k, 2), colours (k,)) of layers drawn over each other."""
    drawn = {tuple(place): colour for places, colour in layers for place in places.tolist()}
    return np.array(list(drawn)), np.array(list(drawn.values()), dtype=np.uint8)


_REACH = [(x, y) for y in range(-5, 6) for x in range(-5, 6)]
_RIM, _HULL = (
    np.array([(x, y) for x, y in _REACH if abs(x) + abs(y) <= reach]) for reach in (5, 4)
)
BOAT = _sprite((_RIM, 8), (_HULL, 6), (_disc(1.5), 7))
BALLOON = _sprite((_disc(5), 4), (_disc(1.5) - 2, 5))


@dataclass(frozen=True)
class States:
    """What n worlds are in f frames: everything that is drawn, and the wind, which is not.

    actions (n, f) int64: action i leads to frame i. boat, balloon (n, f, 2): centres (x, y) int64.
    wind (n, f) in pixels a frame. banks (n, SIZE + SCROLL (f - 1), 2) int64: pixels of land on the
    left and on the right, by rows of the river; frame i shows rows SCROLL i .. SCROLL i + SIZE - 1,
    the last of them at the top. since (n,) int64: the first frame in which the boat is drawn.
    """

    actions: np.ndarray
    boat: np.ndarray
    balloon: np.ndarray
    wind: np.ndarray
    banks: np.ndarray
    since: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def shown(self) -> np.ndarray:
        """Frames (n, f) in which the boat is drawn."""
        return np.arange(self.actions.shape[1]) >= self.since[:, None]

    def take(self, rows: np.ndarray | slice) -> States:
        """The worlds at `rows`."""
        return replace(self, **{name: value[rows] for name, value in vars(self).items()})


def simulate(
    starts: np.ndarray, actions: np.ndarray, seed: int, met: np.ndarray | None = None
) -> States:
    """Worlds whose boats begin at starts (n, 2) before the first of actions (n, f).

    met (n,): the frame in which the balloon is to be where the boat is, as far as its first wind
    and climb say, or -1 for a balloon that begins anywhere; none is met by default. World i is the
    same whatever n: it draws row i of one table of `seed`.
    """
    n, f = actions.shape
    rows = SIZE + SCROLL * (f - 1)
    rng = np.random.RandomState(seed)
    draws = rng.random_sample((n, 5 * f + 2 * rows + 6))
    own, river, first = np.split(draws, [5 * f, 5 * f + 2 * rows], axis=1)
    boat, met = _boat(starts, actions), np.full(n, -1) if met is None else met
    balloon, wind = _balloon(own.reshape(n, 5, f), first, boat[np.arange(n), met], met)
    banks, since = _banks(river, first, rows), np.zeros(n, dtype=np.int64)
    return States(actions, boat, balloon, wind, banks, since)


def _boat(starts: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Centres after every action, from starts (n, 2) on."""
    place, places = starts, []
    for i in range(actions.shape[1]):
        place = np.clip(place + STEPS[actions[:, i]], LOW, HIGH)
        places.append(place)
    return np.stack(places, 1)


def _normal(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Unit normal draws of two uniform ones (Box and Muller 1958)."""
    return np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)


def _balloon(
    own: np.ndarray, first: np.ndarray, goal: np.ndarray, met: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(centres (n, f, 2), wind (n, f)); walls throw the balloon and the wind back. Where met (n,)
    is a frame, the balloon begins where it would come from to be at goal (n, 2) by then."""
    noise, f = _normal(own[:, 0], own[:, 1]), own.shape[2]
    gusts = GUST * _normal(own[:, 2], own[:, 3])
    wind = WIND * _normal(first[:, 0], first[:, 1])
    place = LOW + (HIGH - LOW) * first[:, 2:4]
    climb = np.where(first[:, 4] < 0.5, 1.0, -1.0)
    away = (met + 1)[:, None] * np.stack([wind, climb], 1)
    place = np.where(met[:, None] < 0, place, np.clip(goal - away, LOW, HIGH))
    places, winds = [], []
    for i in range(f):
        wind = MEMORY * wind + WIND * np.sqrt(1 - MEMORY**2) * noise[:, i]
        climb = np.where(own[:, 4, i] < 0.1, -climb, climb)
        moved = place + np.stack([wind + gusts[:, i], climb], 1)
        beyond = (moved < LOW) | (moved > HIGH)
        wind, climb = np.where(beyond[:, 0], -wind, wind), np.where(beyond[:, 1], -climb, climb)
        place = np.where(moved < LOW, 2 * LOW - moved, np.minimum(moved, 2 * HIGH - moved))
        place = np.clip(place, LOW, HIGH)
        places.append(place)
        winds.append(wind)
    return np.rint(np.stack(places, 1)).astype(np.int64), np.stack(winds, 1)


def _banks(river: np.ndarray, first: np.ndarray, rows: int) -> np.ndarray:
    """Two random walks by rows, (n, rows, 2), kept between BANK_LOW and BANK_HIGH."""
    moves = np.digitize(river.reshape(len(river), rows, 2), [0.3, 0.7]) - 1
    width = BANK_HIGH - BANK_LOW
    start = np.floor(first[:, 5:6] * (width + 1)) * np.array([[1, 0]])
    start[:, 1] = width - start[:, 0]
    # Folded back at both ends: the walk mirrors there.
    walk = (start[:, None] + np.cumsum(moves, 1)) % (2 * width)
    return (BANK_LOW + np.minimum(walk, 2 * width - walk)).astype(np.int64)


def draw(states: States) -> Tensor:
    """Frames (n, f, 3, SIZE, SIZE) float32 in [-1, 1]."""
    n, f = states.actions.shape
    index = _terrain(states, n, f)
    there = states.shown.reshape(n * f)
    drawn = ((BALLOON, states.balloon, np.ones_like(there)), (BOAT, states.boat, there))
    for (offsets, colours), centres, shown in drawn:
        place = centres.reshape(n * f, 1, 2)[shown] + offsets
        index[np.flatnonzero(shown)[:, None], place[..., 1], place[..., 0]] = colours
    pixels = PALETTE[torch.from_numpy(index).long()]
    return pixels.view(n, f, SIZE, SIZE, 3).permute(0, 1, 4, 2, 3).contiguous()


def _terrain(states: States, n: int, f: int) -> np.ndarray:
    """Places of the palette (n f, SIZE, SIZE) uint8 of water and banks."""
    row = SCROLL * np.arange(f)[:, None] + np.arange(SIZE)[::-1]
    banks = states.banks[:, row].reshape(n * f, SIZE, 1, 2)
    x = np.arange(SIZE)
    land = (x < banks[..., 0]) | (x >= SIZE - banks[..., 1])
    tufts = ((row[..., None] // 4 + x // 4) % 2).astype(np.uint8)
    ripples = ((row[..., None] % 16 == 0) & ((x + 5 * row[..., None]) % 12 < 5)).astype(np.uint8)
    water, bank = (np.broadcast_to(each, (n, f, SIZE, SIZE)) for each in (ripples, 2 + tufts))
    shape = (n * f, SIZE, SIZE)
    return np.where(land, bank.reshape(shape), water.reshape(shape))
