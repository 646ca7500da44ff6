"""Sines and cosines of a number, for inputs that a network is given beside its first time."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor

WIDTH = 128


def embedded_time(timestep: Tensor, dtype: torch.dtype) -> Tensor:
    """(b,) timesteps in 0..1000 as (b, WIDTH), with periods from 2 pi to 2 pi 1e4 in units of
    timestep / 100: smooth in t, as a derivative along time needs, and fine enough to tell 1 from 0.
    """
    return get_timestep_embedding(timestep / 100, WIDTH, flip_sin_to_cos=True, scale=1.0).to(dtype)


def embedded_scale(w: Tensor, dtype: torch.dtype) -> Tensor:
    """(b,) guidance scales as (b, WIDTH), 0 where w = 1 (off), with the same periods in w."""
    both = (
        get_timestep_embedding(each, WIDTH, flip_sin_to_cos=True, scale=1.0)
        for each in (w.float(), torch.ones_like(w, dtype=torch.float32))
    )
    scale, off = both
    return (scale - off).to(dtype)
