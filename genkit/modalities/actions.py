"""Clips of small pictures with an action for every frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genkit import terms
from genkit.data import load
from genkit.data.base import Samples
from genkit.modalities.base import Modality
from genkit.modalities.film import write_strips
from genkit.rng import sample_generators

PART = 32  # clips made at once, whose past is kept
CONTINUED = 128  # held-out clips that are gone on with; of 32 the share had a deviation of .026
LASTING = 1000  # frames of the long clip in which a few-step pipeline shows whether it drifts
LASTING_STEPS = 4  # the most evaluations a frame may take for that


@dataclass(frozen=True)
class ActionClips(Modality):
    """Clips (f, c, s, s) in [-1, 1], to each frame of which an action led. actions: what held-out
    clips are asked to follow, (m, f)."""

    num_actions: int = 5
    actions: Tensor | None = None

    @classmethod
    def of(cls, data: Samples) -> ActionClips:
        """The modality of a data set of clips with actions, which has a test split."""
        latent = tuple(data.x_0.shape[1:])
        none = {"action": torch.full((1, latent[0]), data.num_classes)}
        held_out = load(data.name, "test").cond["action"]
        distance = terms.pseudo_huber_by_frame
        asked = {"num_actions": data.num_classes, "actions": held_out}
        return cls(data.name, latent, none, distance, "x_0", **asked)

    def asked(self, n: int) -> Tensor:
        assert self.actions is not None, "the modality of a data set has its actions"
        return self.actions[torch.arange(n) % len(self.actions)]

    def cond(self, n: int) -> dict[str, Tensor]:
        return {"action": self.asked(n)}

    @property
    def preview_n(self) -> int:
        return 6

    def preview_cond(self) -> dict[str, Tensor]:
        # Two clips of each string of actions.
        return {"action": self.asked(self.preview_n // 2).repeat_interleave(2, 0)}

    def training_cond(self, n: int) -> dict[str, Tensor]:
        known = load(self.name).cond["action"]
        return {"action": known[torch.arange(n) % len(known)]}

    def network(self) -> Any:
        from genkit.networks.causal_video import CausalVideoTransformer

        frames, channels, size, _ = self.latent
        return CausalVideoTransformer(channels, size, frames, self.num_actions)

    def pipeline(self, network: Any, scheduler: Any) -> Any:
        from genkit_pipelines.video.interactive import InteractiveVideoPipeline

        return InteractiveVideoPipeline(network, scheduler)

    def generate(
        self,
        pipeline: Any,
        asked: Any,
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
    ) -> Tensor:
        if guidance != 1:
            raise ValueError(f"guidance is {guidance:g}; clips are made without, give 1")
        return follow(pipeline, asked, generators, steps)

    def further(self, pipeline: Any, steps: int, seed: int) -> dict[str, float]:
        """How held-out clips are continued, and, for a pipeline of few steps, how one of LASTING
        frames holds."""
        from genkit.metrics.clips import endurance

        real = load(self.name, "test")
        found = self._continued(real, pipeline, steps, seed)
        if steps > LASTING_STEPS:
            return found
        actions = long_actions(self.asked(LASTING // self.latent[0] + 1), LASTING)
        pipeline.reset(seed, _shown(real.x_0[:1]), real.cond["action"][0].tolist())
        frames = pipeline.rollout(actions, steps, output_type="latent").frames[0].clamp(-1, 1)
        held = endurance(frames, actions, real.x_0[:50].flatten(0, 1))
        return found | {f"lasting_{name}": value for name, value in held.items()}

    def _continued(self, real: Samples, pipeline: Any, steps: int, seed: int) -> dict[str, float]:
        """Obedience in the first frames after held-out clips: what a frame does with what there
        was, whatever a pipeline makes of a beginning."""
        from genkit.metrics.tracker import obeyed

        begun, led = real.x_0[:CONTINUED], real.cond["action"][:CONTINUED]
        told, generators = self.asked(2 * CONTINUED)[CONTINUED:], sample_generators(seed, CONTINUED)
        made = follow(pipeline, told, generators, steps, (begun, led))
        clips = torch.cat([begun[:, -1:], made.float().cpu()], 1)
        obeys, boat = obeyed(clips, torch.cat([led[:, -1:], told], 1))
        return {"continued_obeys": obeys, "continued_boat": boat}

    def render(self, rows: Mapping[str, Tensor], stem: Path) -> Path:
        return write_strips(rows, stem)


def follow(
    pipeline: Any,
    actions: Tensor,
    generators: list[torch.Generator],
    steps: int,
    past: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Clips (n, f, ...) that follow actions (n, f), PART at once. past: clips in [-1, 1] that they
    go on from, and their actions."""
    made = []
    for first in range(0, len(actions), PART):
        part = slice(first, first + PART)
        given: dict[str, Any] = {}
        if past is not None:
            given = {"frames": _shown(past[0][part]), "frame_actions": past[1][part].tolist()}
        given |= {"generator": generators[part], "output_type": "latent"}
        made.append(pipeline(actions[part].tolist(), steps, **given).frames)
    return torch.cat(made)


def _shown(frames: Tensor) -> Tensor:
    """Frames in [-1, 1] as a pipeline is given them."""
    return (frames + 1) / 2


def long_actions(strings: Tensor, frames: int) -> list[int]:
    """`frames` actions: the strings (n, f) one after the other."""
    return strings.flatten()[:frames].tolist()
