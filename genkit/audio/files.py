"""Sound files: WAV by scipy, everything else (FLAC, Ogg, MP3) by the extra soundfile; resampling.

Inside genkit sound is mono float32 in [-1, 1] at the rate of what reads it.
"""

from __future__ import annotations

import io
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SOUNDS = (".wav", ".flac", ".ogg", ".mp3")


def resample(audio: Tensor, rate: int, wanted: int) -> Tensor:
    """Samples (..., n) at `rate` as (..., ceil(n wanted / rate)) at `wanted`, by scipy's polyphase
    filter."""
    if rate < 1 or wanted < 1:
        raise ValueError(f"sample rates are {rate} and {wanted}; give whole numbers from 1 on")
    if rate == wanted:
        return audio
    from scipy.signal import resample_poly

    factor = gcd(rate, wanted)
    made = resample_poly(audio.double().numpy(), wanted // factor, rate // factor, axis=-1)
    return torch.from_numpy(np.ascontiguousarray(made)).to(audio.dtype)


def read(file: Path | str, sample_rate: int) -> Tensor:
    """A sound file as (n,) float32 at `sample_rate`, its channels averaged.

    ValueError for a file that is missing, broken, empty or silent, or needs a package.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no sound file {path}")
    samples, rate = _wav(path) if path.suffix.lower() == ".wav" else _by_soundfile(path)
    if samples.ndim == 2:
        samples = samples.mean(1)
    if len(samples) == 0 or not np.isfinite(samples).all() or np.abs(samples).max() < 1e-4:
        raise ValueError(f"{path} holds no sound: it is empty, silent or broken")
    return resample(torch.from_numpy(samples.astype(np.float32)), rate, sample_rate)


def _wav(path: Path) -> tuple[np.ndarray, int]:
    import struct
    import warnings

    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks it does not know
            rate, samples = wavfile.read(path)
    except (ValueError, EOFError, OSError, struct.error) as error:  # the last where it is cut off
        raise ValueError(f"{path} cannot be read as a WAV file ({error})") from error
    if samples.dtype == np.uint8:
        return samples.astype(np.float32) / 128 - 1, rate
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float64) / (np.iinfo(samples.dtype).max + 1), rate
    return samples, rate


def _soundfile(path: Path) -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise ValueError(
            f"{path.suffix} files need the package soundfile: pip install soundfile"
        ) from error
    return soundfile


def _by_soundfile(path: Path) -> tuple[np.ndarray, int]:
    package = _soundfile(path)
    try:
        return package.read(path, dtype="float32")
    except package.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read as sound ({error})") from error


def wav_bytes(audio: Tensor, sample_rate: int) -> bytes:
    """Samples (n,), clipped to [-1, 1], as a 16-bit WAV file in memory."""
    from scipy.io import wavfile

    held = io.BytesIO()
    whole = audio.detach().float().cpu().clamp(-1, 1).mul(32767).round().to(torch.int16)
    wavfile.write(held, sample_rate, whole.numpy())
    return held.getvalue()


def write(file: Path | str, audio: Tensor, sample_rate: int) -> Path:
    """Write samples (n,) to a new file, in the format its name ends with, and return it.

    ValueError for a file that is there already, or an ending that no format has.
    """
    path = Path(file)
    if path.exists():
        raise ValueError(f"{path} is there already; choose another name")
    if path.suffix.lower() not in SOUNDS:
        raise ValueError(f"{path} ends in none of {', '.join(SOUNDS)}")
    if path.suffix.lower() == ".wav":
        path.write_bytes(wav_bytes(audio, sample_rate))
    else:
        _soundfile(path).write(path, audio.detach().float().cpu().clamp(-1, 1).numpy(), sample_rate)
    return path
