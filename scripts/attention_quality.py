"""What grouped attention costs in quality, and what a short training with its pattern wins back.

The shipped emoji teacher is taken to a grid four times as large (64x64 pictures, 16x16 tokens) by
a short dense training; then, at equal seeds, its dense samples stand beside those under each
pattern, with steps or layers left dense; then both are trained on for as long again, dense (the
control) and with the pattern.

    python scripts/attention_quality.py --out docs/figures      about an hour on two cores

Judged at 32x32 (pictures averaged 2x2) by the detector of the emoji scenes, on validation prompts:
the pictures at 64x64 are the same scenes, drawn larger. `apart`: root mean square difference to the
dense network's samples of the same noise (pictures are in [-1, 1]).
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from genkit import hub, terms
from genkit.acceleration.attention import using_grouped_attention
from genkit.data import emoji_scenes, load
from genkit.denoisers.base import Denoiser, Guided
from genkit.denoisers.diffusers import Loaded, as_denoiser
from genkit.metrics import floor, measure, reference
from genkit.modalities import modality
from genkit.modalities.sheet import write_sheet
from genkit.rng import Rng, sample_generators, sample_noise
from genkit.training.precision import autocast
from genkit_kernels import criss_cross, surround
from genkit_kernels.region import Region

GROUP, SIZE = (2, 2), 64
REGIONS: dict[str, Region] = {"surround": surround(1), "criss_cross": criss_cross()}
SHOWN = ("follows", "attributes", "fd")


class Scenes:
    """The scenes at 64x64 that are trained on, the prompts asked for, how samples are judged."""

    def __init__(self, teacher: Loaded, n: int) -> None:
        self.data = emoji_scenes.load("train", n=8000, size=SIZE)
        self.cond = modality(self.data, teacher).training_cond(len(self.data))
        asked = modality(load("emoji-scenes", "validation"), teacher)
        self.asked, self.asked_cond = asked.asked(n), asked.cond(n)
        self.noise = sample_noise((3, SIZE, SIZE), sample_generators(0, n))
        self.reference = reference("emoji-scenes", "validation")

    def figures(self, samples: Tensor, dense: Tensor | None = None) -> dict[str, float]:
        told = measure(F.avg_pool2d(samples, 2), self.asked, self.reference)
        row = {name: told[name] for name in SHOWN}
        if dense is not None:
            row["apart"] = float((samples - dense).square().mean().sqrt())
        return row


def train(who: Denoiser, scenes: Scenes, steps: int, batch: int, lr: float, seed: int) -> None:
    """Flow matching for `steps`, the learning rate falling to 0; conditions are dropped never."""
    who.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(who.parameters(), lr, weight_decay=0.0)
    for step in tqdm(range(steps), desc="training", mininterval=10):
        rng = Rng(seed, "quality", step)
        rows = rng.integers(0, len(scenes.data), (batch,))
        x_0, cond = scenes.data.x_0[rows], {k: v[rows] for k, v in scenes.cond.items()}
        eps, t = rng.normal(x_0.shape), rng.uniform((batch,)).clamp(min=1e-4)
        t = 3 * t / (1 + 2 * t)  # the teacher's own shift; twice the side asks for more of it
        with autocast(torch.device("cpu"), "bf16"):
            velocity = who.predict(who.path.add_noise(x_0, eps, t), t, cond, "velocity")
        loss = terms.flow_matching(velocity.float(), x_0, eps, who.path, t, kind=who.kind).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(who.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 50) * (1 - step / steps)
        optimizer.step()
    who.requires_grad_(False).eval()


def sample(who: Denoiser, teacher: Loaded, scenes: Scenes, steps: int, guidance: float) -> Tensor:
    """Samples of the asked prompts by the teacher's own scheduler."""
    guided = Guided(who, guidance, teacher.uncond)
    scheduler, parts = teacher.pipeline.scheduler, []
    with torch.no_grad(), autocast(torch.device("cpu"), "bf16"):
        for rows in torch.arange(len(scenes.noise)).split(64):
            cond = {k: v[rows] for k, v in scenes.asked_cond.items()}
            parts.append(guided.sample(scenes.noise[rows], cond, scheduler, steps))
    return torch.cat(parts).float()


def settings(region: str) -> list[tuple[str, dict[str, Any]]]:
    """(what is left dense, the arguments that say so) of one pattern."""
    rows: list[tuple[str, dict[str, Any]]] = [
        ("nothing", {}),
        ("the first 30% of time", {"dense_steps": 0.3}),
        ("the first 60% of time", {"dense_steps": 0.6}),
        ("the first and last layer", {"dense_layers": (0, -1)}),
        ("four of six layers", {"dense_layers": (0, 1, 4, 5)}),
    ]
    return rows if region == "surround" else rows[:2]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--teacher", default="emoji-teacher")
    parser.add_argument("--steps", type=int, default=500, help="of each training")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--sampling-steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("-n", type=int, default=192)
    given = parser.parse_args()
    began = time.monotonic()
    teacher = as_denoiser(hub.Pipeline.from_pretrained(given.teacher))
    who, scenes = teacher.denoiser, Scenes(teacher, given.n)
    train(who, scenes, given.steps, given.batch, given.lr, 0)

    def drawn(model: Any) -> Tensor:
        return sample(model, teacher, scenes, given.sampling_steps, given.guidance)

    dense = drawn(who)
    pictures = {"dense": dense[:12]}
    rows = [{"attention": "dense", "left dense": "all", **scenes.figures(dense)}]
    for name, region in REGIONS.items():
        for left, arguments in settings(name):
            with using_grouped_attention(who.network, region, GROUP, **arguments):
                x = drawn(who)
            rows.append({"attention": name, "left dense": left, **scenes.figures(x, dense)})
            print(rows[-1], flush=True)
            if not arguments:
                pictures[name] = x[:12]
    for name in ("dense", *REGIONS):
        further = copy.deepcopy(who)
        if name == "dense":
            train(further, scenes, given.steps, given.batch, given.lr, 1)
            x = drawn(further)
        else:
            with using_grouped_attention(further.network, REGIONS[name], GROUP):
                train(further, scenes, given.steps, given.batch, given.lr, 1)
                x = drawn(further)
        rows.append({"attention": name, "left dense": "trained on", **scenes.figures(x)})
        print(rows[-1], flush=True)
        pictures[f"{name}, trained on"] = x[:12]
    given.out.mkdir(parents=True, exist_ok=True)
    ceiling = floor(scenes.reference, given.n)
    told = {key: value for key, value in vars(given).items() if key != "out"}
    result = {
        "settings": told,
        "minutes": (time.monotonic() - began) / 60,
        "floor": {name: ceiling[name] for name in SHOWN},
        "rows": rows,
    }
    text = json.dumps(result, indent=1)
    (given.out / "attention-quality.json").write_text(text + "\n", encoding="utf-8")
    write_sheet(pictures, given.out / "attention-quality")


if __name__ == "__main__":
    main()
