"""Train the small autoencoder of music on a data set: sound to 21.5 latents a second, and back.

    python scripts/train_music_codec.py --data music --out runs/music-codec --steps 7000

DATA is a data set of music or a folder of it. First the STFT loss of several resolutions, up to
windows of 372 ms that tell semitones apart, and the L1 of log-mels (`--unjudged` of the steps),
then small discriminators with them; the encoder learns throughout, its latents held near a unit
Gaussian. Everything is drawn from (seed, step): a stopped run goes on from its last checkpoint. The
result, `OUT/codec`, goes to `genkit train --decoder OUT/codec`. The log-mel distance of held-out
pieces is printed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from train_vocoder import resume, save

from genkit.audio.spectra import MUSIC, log_mel
from genkit.data import load
from genkit.data.base import Samples
from genkit.networks.discriminators import (
    SIZES,
    Discriminators,
    discriminator_loss,
    generator_loss,
    stft_loss,
)
from genkit.networks.music_codec import LATENT, MusicCodec

# 5.4 and 2.7 Hz a bin: below 700 Hz, where chords are heard, semitones are 3 to 40 Hz apart.
LONG = (*SIZES, (4096, 1024), (8192, 2048))
MEL, FEATURE = 15.0, 2.0  # weights beside the STFT loss and the adversarial one
JUDGED = 8192  # samples of a crop that judges see, who cost more than all the rest


def crops(data: Samples, rng: np.random.RandomState, count: int, frames: int) -> Tensor:
    """(count, frames LATENT) samples of pieces, at varying loudness."""
    parts, lengths = [], data.cond["frames"].tolist()
    for _ in range(count):
        i = rng.randint(len(data))
        first = rng.randint(max(1, lengths[i] - frames + 1)) * LATENT + rng.randint(LATENT)
        part = data.x_0[i, first : first + frames * LATENT]
        parts.append(F.pad(part, (0, frames * LATENT - len(part))) * rng.uniform(0.5, 1.2))
    return torch.stack(parts)


def rebuilt(codec: MusicCodec, audio: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(samples made of drawn latents, the real ones they stand for, the divergence of the latents
    from a unit Gaussian)."""
    mean, log_variance = codec.posterior(audio)
    latents = mean + noise * (0.5 * log_variance).exp()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    edge = codec.context * LATENT
    return codec.synthesise(latents), audio[:, edge : audio.shape[1] - edge], divergence


def step_losses(
    codec: MusicCodec, judges: Discriminators, audio: Tensor, kl: float, judged: bool, rng: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """({name: the codec's losses}, made samples, real ones)."""
    made, real, divergence = rebuilt(codec, audio, rng)
    near = (log_mel(made, MUSIC) - log_mel(real, MUSIC)).abs().mean() / (2 * MUSIC.std)
    losses = {"stft": stft_loss(made, real, LONG).mean(), "mel": MEL * near, "kl": kl * divergence}
    if judged:
        fooled, features = generator_loss(judges(real[:, :JUDGED]), judges(made[:, :JUDGED]))
        losses |= {"adversarial": fooled.mean(), "features": FEATURE * features.mean()}
    return losses, made, real


@torch.no_grad()
def distance(codec: MusicCodec, clips: Tensor) -> float:
    """Mean absolute difference of log-mels of held-out pieces (n, samples), remade and real."""
    made = torch.cat([codec.decode(codec.encode(clip[None])) for clip in clips])
    return float((log_mel(made, MUSIC) - log_mel(clips, MUSIC)).abs().mean())


@torch.no_grad()
def settle(codec: MusicCodec, data: Samples, pieces: int = 64) -> None:
    """Measure the latents of some pieces, by which they are normalised."""
    rows = zip(data.x_0[:pieces], data.cond["frames"][:pieces].tolist(), strict=True)
    means = [codec.posterior(x[None, : n * LATENT])[0][0] for x, n in rows]
    every = torch.cat(means)
    codec.settle(every.mean(0), every.std(0))


def train(asked: argparse.Namespace) -> MusicCodec:
    """Train, with a checkpoint every so often, and return the codec."""
    torch.manual_seed(asked.seed)
    data, held_out = load(asked.data), load(asked.data, "validation").x_0[:8, : 256 * LATENT]
    codec, judges = MusicCodec(asked.channels, window=asked.window), Discriminators()
    optimizers = [
        torch.optim.AdamW(each.parameters(), asked.lr, (0.8, 0.99)) for each in (codec, judges)
    ]
    asked.out.mkdir(parents=True, exist_ok=True)
    file, frames = asked.out / "checkpoint.safetensors", asked.frames + 2 * codec.context
    begun, first = time.monotonic(), resume(file, codec, judges, optimizers)
    for step in range(first, asked.steps):
        rng = np.random.RandomState([asked.seed, step])
        audio = crops(data, rng, asked.batch, frames)
        shape = (asked.batch, frames, asked.channels)
        noise = torch.from_numpy(rng.standard_normal(shape)).float()
        judged = step >= asked.unjudged * asked.steps
        rate = min(1, (step + 1) / 100) * (1 - step / asked.steps)
        for group in optimizers:
            group.param_groups[0]["lr"] = asked.lr * rate
        losses, made, real = step_losses(codec, judges, audio, asked.kl, judged, noise)
        optimizers[0].zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizers[0].step()
        if judged:
            optimizers[1].zero_grad(set_to_none=True)
            shown = real[:, :JUDGED], made.detach()[:, :JUDGED]
            discriminator_loss(*(judges(each) for each in shown)).mean().backward()
            optimizers[1].step()
        if (step + 1) % asked.every == 0 or step + 1 == asked.steps:
            settle(codec, data)
            save(file, codec, judges, optimizers, step + 1)
            told = {name: round(value.item(), 4) for name, value in losses.items()}
            told |= {"step": step + 1, "seconds": round(time.monotonic() - begun, 1)}
            print(json.dumps(told | {"held_out": round(distance(codec, held_out), 4)}), flush=True)
            codec.save_pretrained(asked.out / "codec")
    return codec


def main() -> None:
    """Read the flags and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="music", help="a data set of music, or a folder")
    parser.add_argument("--out", type=Path, default=Path("runs/music-codec"))
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--unjudged", type=float, default=0.9, help="share without discriminators")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--frames", type=int, default=32, help="latents of a crop, but for edges")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--window", type=int, default=128, help="latents decoded at once")
    parser.add_argument("--kl", type=float, default=0.01, help="weight of the divergence")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    try:
        train(parser.parse_args())
    except ValueError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
