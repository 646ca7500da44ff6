"""Teacher pairs (eps, x_0) on disk: safetensors shards, made once and resumed after a kill.

A cache folder belongs to one key (the teacher's weights, steps, guidance, seed and the conditions);
a shard is written aside and renamed, so a shard that is there is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genkit.data.streams import TensorStream
from genkit.rng import sample_generators, sample_noise

# (noise, cond, one generator per sample) -> x_0
Make = Callable[[Tensor, dict[str, Tensor], list[torch.Generator]], Tensor]


def pairs_key(**parts: Any) -> str:
    """A short hash of what determines the pairs; give everything that does."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cached_pairs(
    folder: Path,
    key: str,
    make: Make,
    cond: Mapping[str, Any],
    latent: tuple[int, ...],
    seed: int,
    shard: int = 2048,
    progress: Callable[[range, str], Any] = lambda shards, what: shards,
) -> TensorStream:
    """The stream of pairs {"eps", "x_0", "cond"} of `key`, one for each row of `cond` (n, ...).

    Pair i has the noise of sample i of `seed`, whatever the shard. Only missing shards are made.
    ValueError for a shard that cannot be read.
    """
    from safetensors.torch import save_file

    n = len(next(iter(cond.values())))
    home = folder / key
    home.mkdir(parents=True, exist_ok=True)
    parts = []
    for number in progress(range(-(-n // shard)), "teacher pairs"):
        file = home / f"pairs-{number:05d}.safetensors"
        rows = slice(number * shard, min(n, (number + 1) * shard))
        if not file.exists():
            part_cond = {name: value[rows] for name, value in cond.items()}
            generators = sample_generators(seed, rows.stop - rows.start, rows.start)
            eps = sample_noise(latent, generators)
            x_0 = make(eps, part_cond, generators)
            tensors = {"eps": eps, "x_0": x_0.float().contiguous()}
            aside = file.with_suffix(f".{os.getpid()}.part")
            save_file(tensors, aside)
            os.replace(aside, file)
        parts.append(_read(file))
    tensors = {name: torch.cat([part[name] for part in parts]) for name in ("eps", "x_0")}
    return TensorStream({**tensors, "cond": dict(cond)})


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(
            f"{file} cannot be read ({error}); delete it and it is made anew"
        ) from error
