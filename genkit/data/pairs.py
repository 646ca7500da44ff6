"""Teacher pairs (eps, x_0) on disk: safetensors shards, made once and resumed after a kill.

A cache folder belongs to one key (the teacher's weights, steps, guidance, seed and the conditions);
a shard is written aside and renamed, so a shard that is there is whole. It holds what it cost, so
that a method can be charged for pairs that another one has made.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genkit.data.streams import Cost, TensorStream
from genkit.rng import sample_generators, sample_noise

# (noise, cond, one generator per sample) -> {"x_0", and whatever else a pair keeps}
Make = Callable[[Tensor, dict[str, Tensor], list[torch.Generator]], dict[str, Tensor]]


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
    evaluations: Callable[[], int] = lambda: 0,
    mask: Any | None = None,
    prior: Callable[[Tensor], Tensor] = lambda gaussian: gaussian,
) -> TensorStream:
    """The stream of pairs {"eps", "x_0", "cond", ...} of `key`, one for each row of `cond`, and
    "mask" where one is given.

    Pair i has the noise of sample i of `seed`, whatever the shard, as `prior` (`Path.prior`) of the
    teacher's path makes it of Gaussian noise. Only missing shards are made.
    evaluations: how many there were so far, by which a shard's own are counted; the stream's cost
    is that of all shards, those found on the disk included. ValueError for a shard that cannot be
    read.
    """
    n = len(next(iter(cond.values())))
    home = folder / key
    home.mkdir(parents=True, exist_ok=True)
    parts, cost = [], Cost()
    for number in progress(range(-(-n // shard)), "teacher pairs"):
        file = home / f"pairs-{number:05d}.safetensors"
        rows = slice(number * shard, min(n, (number + 1) * shard))
        part = _read(file) if file.exists() else None
        if part is None:
            before, began = evaluations(), time.perf_counter()
            part_cond = {name: value[rows] for name, value in cond.items()}
            generators = sample_generators(seed, rows.stop - rows.start, rows.start)
            eps = prior(sample_noise(latent, generators))
            made = make(eps, part_cond, generators)
            tensors = {"eps": eps} | {k: each.float().contiguous() for k, each in made.items()}
            part = tensors, Cost(evaluations() - before, time.perf_counter() - began)
            _write(file, *part)
        parts.append(part[0])
        cost += part[1]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    masked = {} if mask is None else {"mask": mask}
    return TensorStream({**tensors, "cond": dict(cond), **masked}, cost)


def _write(file: Path, tensors: dict[str, Tensor], cost: Cost) -> None:
    from safetensors.torch import save_file

    aside = file.with_suffix(f".{os.getpid()}.part")
    save_file(tensors, aside, {name: repr(value) for name, value in asdict(cost).items()})
    os.replace(aside, file)


def _read(file: Path) -> tuple[dict[str, Tensor], Cost] | None:
    """A shard and what it cost; None for one of before costs were kept, which is made anew."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as stored:
            held = stored.metadata()
            if not held or "evaluations" not in held:
                return None
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}
            return tensors, Cost(int(held["evaluations"]), float(held["seconds"]))
    except SafetensorError as error:
        raise ValueError(
            f"{file} cannot be read ({error}); delete it and it is made anew"
        ) from error
