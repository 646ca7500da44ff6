"""Figures of clips that follow actions: features of their own, obedience, sharpness, endurance.

The features are fixed sums, not a trained network: colours, edges and motion on a coarse grid, in
units of their deviation on real clips. A Frechet distance of them sees wrong colours, blur and a
river that does not move; it does not see a boat that disobeys or is lost, which `obeys` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genkit.data.river import BALLOON
from genkit.metrics.frechet import frechet_distance
from genkit.metrics.tracker import obeyed, track

GRID, PART = 2, 64


def gradient_kurtosis(frames: Tensor) -> float:
    """Kurtosis E[g^4] / E[g^2]^2 of the differences g of neighbouring pixels, (..., h, w): edges
    give a large one, and averages of sharp pictures a smaller one than each of them. It can be
    larger for a blurred picture in which a few edges are left: see `edge_energy`."""
    g = _differences(frames)
    return float(g.pow(4).mean() / g.pow(2).mean().square().clamp(min=1e-24))


def edge_energy(frames: Tensor) -> float:
    """Mean square of the same differences: less in a blurred picture, more in a noisy one."""
    return float(_differences(frames).square().mean())


def _differences(frames: Tensor) -> Tensor:
    across, down = frames.diff(dim=-1), frames.diff(dim=-2)
    return torch.cat([across.flatten(), down.flatten()]).double()


class ClipFeatures:
    """Features (n, d) of clips (n, f, 3, h, w), standardised on real ones."""

    def __init__(self, real: Tensor) -> None:
        sums = self._sums(real)
        self.mean, self.scale = sums.mean(0), sums.std(0).clamp(min=1e-6)

    def features(self, x: Tensor) -> Tensor:
        """Standardised features, (n, d) float32."""
        return (self._sums(x) - self.mean) / self.scale

    def _sums(self, clips: Tensor) -> Tensor:
        return torch.cat([self._coarse(part.float()) for part in clips.split(PART)])

    def _coarse(self, clips: Tensor) -> Tensor:
        """(n, d) sums of a few clips: colours and edges of the middle frame, motion of all."""
        moved = clips.diff(dim=1).square().mean((1, 2)).unsqueeze(1)
        return torch.cat([_still(clips[:, clips.shape[1] // 2]), _grid(moved)], 1)


def _still(frames: Tensor) -> Tensor:
    """Colours and edges of frames (n, 3, h, w): (n, d)."""
    # Squares: the sum of absolute differences stays what it is where an edge is blurred.
    edges = frames.diff(dim=-1).square().mean(1, keepdim=True)
    return torch.cat([_grid(frames), _grid(edges)], 1)


def _grid(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, GRID).flatten(1)


class ClipFigures:
    """Of clips asked for by actions (n, f).

    obeys: share of frames whose boat went where the action said, boat and balloon: shares of frames
    where one is to be found; edges: `edge_energy` as a share of real clips'; kurtosis: of
    gradients, kurtosis_real: that of real clips.
    """

    def __init__(self, real: Tensor) -> None:
        self.energy, self.kurtosis = edge_energy(real), gradient_kurtosis(real)

    def __call__(self, samples: Tensor, features: Tensor, asked: Any) -> dict[str, float]:
        told = asked if isinstance(asked, Tensor) else torch.tensor(asked)
        obeys, boat = obeyed(samples, told)
        balloon = track(samples.flatten(0, 1), BALLOON)[1].float().mean()
        return {
            "obeys": obeys,
            "boat": boat,
            "balloon": float(balloon),
            "edges": edge_energy(samples) / self.energy,
            "kurtosis": gradient_kurtosis(samples),
            "kurtosis_real": self.kurtosis,
        }


def endurance(
    frames: Tensor, actions: Sequence[int], real: Tensor, parts: int = 4
) -> dict[str, float]:
    """How one long clip (f, 3, h, w) that followed `actions` (f,) holds, by `parts` equal parts.

    Of the first and the last part: obeys, boat and kurtosis as in `ClipFigures`, and drift, the
    Frechet distance of coarse features of its frames to those of real frames (m, 3, h, w); worst:
    the largest drift of all parts.
    """
    size = len(frames) // parts
    net = _FrameFeatures(real)
    seen = net.features(real)
    told = torch.tensor(list(actions))
    rows = []
    for first in range(0, parts * size, size):
        part = slice(first, first + size)
        obeys, boat = obeyed(frames[None, part], told[None, part])
        rows.append(
            {
                "obeys": obeys,
                "boat": boat,
                "kurtosis": gradient_kurtosis(frames[part]),
                "drift": frechet_distance(net.features(frames[part]), seen),
            }
        )
    ends = {"first": rows[0], "last": rows[-1]}
    found = {f"{name}_{end}": value for end, row in ends.items() for name, value in row.items()}
    return found | {"frames": float(len(frames)), "worst": max(row["drift"] for row in rows)}


class _FrameFeatures(ClipFeatures):
    """The same of single frames (n, 3, h, w), without motion."""

    def _coarse(self, clips: Tensor) -> Tensor:
        return _still(clips)
