"""Train the small vocoder on a data set of speech: mels to samples.

    python scripts/train_vocoder.py --data PATH --out runs/vocoder

PATH is a folder in LJSpeech's layout, which scripts/make_speech.py makes. First the STFT loss of
several resolutions and the L1 of log-mels alone (`--alone` of the steps), then small discriminators
with them, in bfloat16 on a half of each crop; 7,000 steps are about 50 minutes on one core.
Everything is drawn from (seed, step): a stopped run goes on from its last checkpoint.
The result, `OUT/vocoder`, goes to `genkit train edm --decoder OUT/vocoder`. Held-out log-mel
distance is printed beside Griffin-Lim's on the same mels.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from genkit.audio.files import read
from genkit.audio.spectra import SPEECH, griffin_lim, log_mel
from genkit.data.cache import cache_folder
from genkit.data.speech_folder import WAVS, read_table
from genkit.networks.discriminators import (
    Discriminators,
    discriminator_loss,
    generator_loss,
    stft_loss,
)
from genkit.networks.vocoder import Vocoder
from genkit.training.precision import autocast

MEL, FEATURE = 15.0, 2.0  # weights beside the STFT loss and the adversarial one


def sounds(folder: Path, held_out: bool) -> list[Tensor]:
    """The sounds of a folder, those of held-out sentences apart."""
    lines = [x for x in read_table(folder) if x.id.startswith("test-") == held_out]
    return [read(folder / WAVS / f"{x.id}.wav", SPEECH.sample_rate) for x in lines]


def crops(
    clips: list[Tensor], rng: np.random.RandomState, count: int, frames: int, context: int
) -> tuple[Tensor, Tensor]:
    """(mels (count, frames + 2 context, bands), the samples of their middle (count, n))."""
    hop, parts = SPEECH.hop, []
    length = (frames + 2 * context) * hop
    for _ in range(count):
        clip = clips[rng.randint(len(clips))]
        clip = F.pad(clip, (context * hop, context * hop + length))
        first = hop * rng.randint(max(1, (len(clip) - 2 * length) // hop + 1))
        parts.append(clip[first : first + length] * rng.uniform(0.3, 1.0))
    audio = torch.stack(parts)
    return SPEECH.normalise(log_mel(audio)), audio[:, context * hop : (context + frames) * hop]


def save(
    file: Path, vocoder: nn.Module, judges: nn.Module, optimizers: list[Any], step: int
) -> None:
    """Weights and moments, written aside and renamed."""
    held = {f"vocoder/{k}": v for k, v in vocoder.state_dict().items()}
    held |= {f"judges/{k}": v for k, v in judges.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        for row, moments in optimizer.state_dict()["state"].items():
            held |= {f"moments{i}/{row}/{k}": v for k, v in moments.items()}
    aside = file.with_suffix(".part")
    save_file({k: v.contiguous().clone() for k, v in held.items()}, aside, {"step": str(step)})
    os.replace(aside, file)


def resume(file: Path, vocoder: nn.Module, judges: nn.Module, optimizers: list[Any]) -> int:
    """Take up a checkpoint; its step, 0 without one."""
    if not file.exists():
        return 0
    from safetensors import safe_open

    held = load_file(file)
    with safe_open(file, "pt") as stored:
        step = int(stored.metadata()["step"])
    part = lambda name: {k.removeprefix(name): v for k, v in held.items() if k.startswith(name)}  # noqa: E731
    vocoder.load_state_dict(part("vocoder/"))
    judges.load_state_dict(part("judges/"))
    for i, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part(f"moments{i}/").items():
            row, name = key.split("/")
            state.setdefault(int(row), {})[name] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    return step


def distance(vocoder: Vocoder | None, clips: list[Tensor]) -> float:
    """Mean absolute difference of log-mels of held-out clips, remade and real."""
    found = []
    for clip in clips:
        mel = log_mel(clip[None])
        with torch.no_grad():
            made = griffin_lim(mel) if vocoder is None else vocoder.decode(SPEECH.normalise(mel))
        found.append(float((log_mel(made)[:, : mel.shape[1]] - mel).abs().mean()))
    return sum(found) / len(found)


def step_losses(vocoder: Vocoder, mels: Tensor, real: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """({name: the vocoder's losses}, the made samples)."""
    made = vocoder(mels)
    near = (SPEECH.normalise(log_mel(made)) - SPEECH.normalise(log_mel(real))).abs().mean()
    return {"stft": stft_loss(made, real).mean(), "mel": MEL * near}, made


def judged_losses(judges: Discriminators, made: Tensor, real: Tensor) -> dict[str, Tensor]:
    """The vocoder's losses against discriminators, which are left as they are."""
    judges.requires_grad_(False)
    with autocast(torch.device("cpu"), "bf16"):
        with torch.no_grad():
            known = judges(real)
        fooled, features = generator_loss(known, judges(made))
    judges.requires_grad_(True)
    return {"adversarial": fooled.float().mean(), "features": FEATURE * features.float().mean()}


def part(frames: int, wanted: int, rng: np.random.RandomState) -> slice:
    """The samples of so many frames of a crop that are judged: judging is most of a step."""
    first = SPEECH.hop * rng.randint(max(1, frames - wanted + 1))
    return slice(first, first + wanted * SPEECH.hop)


def train(asked: argparse.Namespace) -> Vocoder:
    """Train, with a checkpoint every so often, and return the vocoder."""
    torch.manual_seed(asked.seed)
    clips, held_out = sounds(asked.data, False), sounds(asked.data, True)[:20]
    vocoder, judges = Vocoder(width=asked.width, depth=asked.depth), Discriminators()
    optimizers = [
        torch.optim.AdamW(each.parameters(), asked.lr, (0.8, 0.99)) for each in (vocoder, judges)
    ]
    asked.out.mkdir(parents=True, exist_ok=True)
    file = asked.out / "checkpoint.safetensors"
    begun, first = time.monotonic(), resume(file, vocoder, judges, optimizers)
    for step in range(first, asked.steps):
        rng = np.random.RandomState([asked.seed, step])
        mels, real = crops(clips, rng, asked.batch, asked.frames, vocoder.context)
        judged = step >= asked.alone * asked.steps
        for group in optimizers:
            group.param_groups[0]["lr"] = asked.lr * (1 - step / asked.steps)
        losses, made = step_losses(vocoder, mels, real)
        seen = part(asked.frames, asked.judged, rng)
        if judged:
            losses |= judged_losses(judges, made[:, seen], real[:, seen])
        optimizers[0].zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(vocoder.parameters(), 1.0)
        optimizers[0].step()
        if judged:
            optimizers[1].zero_grad(set_to_none=True)
            with autocast(torch.device("cpu"), "bf16"):
                shown = judges(real[:, seen]), judges(made[:, seen].detach())
            discriminator_loss(*shown).float().mean().backward()
            optimizers[1].step()
        if (step + 1) % asked.every == 0 or step + 1 == asked.steps:
            save(file, vocoder, judges, optimizers, step + 1)
            told = {name: round(value.item(), 4) for name, value in losses.items()}
            told |= {"step": step + 1, "seconds": round(time.monotonic() - begun, 1)}
            if held_out:
                told["held_out"] = round(distance(vocoder, held_out), 4)
            print(json.dumps(told), flush=True)
    if held_out:
        print(json.dumps({"griffin_lim_held_out": round(distance(None, held_out), 4)}))
    vocoder.save_pretrained(asked.out / "vocoder")
    return vocoder


def main() -> None:
    """Read the flags and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=cache_folder() / "speech-flite")
    parser.add_argument("--out", type=Path, default=Path("runs/vocoder"))
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--alone", type=float, default=0.3, help="share without discriminators")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=48, help="of a crop")
    parser.add_argument("--judged", type=int, default=24, help="of them, what is judged")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if not (asked.data / "metadata.csv").is_file():
        raise SystemExit(f"{asked.data} holds no speech; run python scripts/make_speech.py first")
    train(asked)


if __name__ == "__main__":
    main()
