"""Where the river world's boat and balloon are in a frame, by matching their templates.

The squared difference to a sprite's colours is taken at every place; the least one is where it is,
if it is small enough for the sprite to be there at all. Nothing is trained, so a blurred or faded
sprite is lost rather than guessed. On real frames the boat, which is drawn last, is always found at
its true pixel; the balloon may be hidden behind it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genkit.data.river import BOAT, HIGH, LOW, PALETTE, SIZE, STEPS

REACH = 5  # pixels of a sprite on either side of its centre
LOST = 0.2  # the mean squared difference, on pixels in [-1, 1], above which a sprite is not there
NEAR = 1.0  # pixels a boat may be from where it was sent
PART = 512  # frames at once


def _template(sprite: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
    """(where the sprite is (1, 1, k, k), its colours there (1, 3, k, k))."""
    side = 2 * REACH + 1
    mask, colours = torch.zeros(1, 1, side, side), torch.zeros(1, 3, side, side)
    for (x, y), place in zip(*sprite, strict=True):
        mask[..., y + REACH, x + REACH] = 1
        colours[0, :, y + REACH, x + REACH] = PALETTE[int(place)]
    return mask, colours


def track(frames: Tensor, sprite: tuple[np.ndarray, np.ndarray] = BOAT) -> tuple[Tensor, Tensor]:
    """(centres (n, 2) as x, y in pixels, whether each was found (n,)) in frames (n, 3, SIZE, SIZE)
    in [-1, 1]. Only places where a sprite can be are looked at. ValueError for another shape."""
    if tuple(frames.shape[1:]) != (3, SIZE, SIZE):
        raise ValueError(f"frames must be (n, 3, {SIZE}, {SIZE}), these are {tuple(frames.shape)}")
    mask, colours = _template(sprite)
    within = slice(LOW - REACH, HIGH - REACH + 1)
    found, least = [], []
    for part in frames.float().cpu().split(PART):
        squares = F.conv2d(part.square(), mask.expand(1, 3, -1, -1))
        error = squares - 2 * F.conv2d(part, colours) + colours.square().sum()
        error = error[:, 0, within, within] / (3 * mask.sum())
        value, place = error.flatten(1).min(1)
        side = error.shape[-1]
        found.append(torch.stack([place % side, place // side], 1) + LOW)
        least.append(value)
    return torch.cat(found), torch.cat(least) < LOST


def obeyed(clips: Tensor, actions: Tensor) -> tuple[float, float]:
    """(share of frames whose boat went where the action said, share of frames with a boat).

    clips (n, f, 3, SIZE, SIZE), actions (n, f); the first frame has no frame before it. A frame
    with no boat, or after one with none, did not obey.
    """
    n, f = actions.shape
    places, seen = track(clips.flatten(0, 1), BOAT)
    places, seen = places.view(n, f, 2).float(), seen.view(n, f)
    steps = torch.from_numpy(STEPS).float()[actions[:, 1:]]
    sent = (places[:, :-1] + steps).clamp(LOW, HIGH)
    near = ((places[:, 1:] - sent).abs() <= NEAR).all(-1)
    return float((near & seen[:, 1:] & seen[:, :-1]).float().mean()), float(seen.float().mean())
