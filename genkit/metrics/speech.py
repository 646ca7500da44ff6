"""Figures of speech: mel-cepstral distortion, its global variance, lengths, features, word errors.

Mel-cepstral distortion after Kubichek 1993, on the cosine transform of log-mels (orthonormal, 1st
to 13th coefficient) along the best dynamic time warping; comparable only among figures of this
file. Distortion alone rewards blur, so the global variance of the same coefficients (Toda & Tokuda
2007), relative to real speech of the same sentence, always stands beside it. Word errors are by
pocketsphinx with a loop over the words there are (the extra `metrics`), left out without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genkit.audio.files import wav_bytes
from genkit.audio.spectra import SPEECH
from genkit.data.base import Samples
from genkit.metrics.suite import Reference

COEFFICIENTS = 13
WORD_WEIGHT = 3.0  # of a word's probability beside its sound's
RECOGNISED = 100  # sentences whose words are recognised: half a second of a core each
Said = tuple[str, int]
Sound = Callable[[Tensor], Tensor]


def frames_of(mels: Tensor) -> Tensor:
    """The frames (n,) of padded mels (n, frames, bands), at least 1: beyond a sound all is 0, but
    for what a solver's rounding leaves."""
    there = (mels.abs() > 1e-6).any(-1)
    place = torch.arange(1, there.shape[1] + 1, device=mels.device)
    return (there * place).amax(1).clamp(min=1)


def cepstra(mel: Tensor) -> np.ndarray:
    """(frames, COEFFICIENTS) of a normalised log-mel (frames, bands)."""
    from scipy.fft import dct

    whole: Any = dct(SPEECH.restore(mel.double()).numpy(), type=2, norm="ortho", axis=-1)
    return whole[:, 1 : COEFFICIENTS + 1]


def warped_mean(cost: np.ndarray) -> float:
    """The mean of cost (n, m) along the path from corner to corner of the least sum, steps right,
    down and diagonal, one anti-diagonal at a time."""
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    steps = np.zeros((n + 1, m + 1))
    total[0, 0] = 0
    for diagonal in range(2, n + m + 1):
        i = np.arange(max(1, diagonal - m), min(n, diagonal - 1) + 1)
        j = diagonal - i
        before = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        counts = np.stack([steps[i - 1, j - 1], steps[i - 1, j], steps[i, j - 1]])
        best = before.argmin(0)
        total[i, j] = before[best, np.arange(len(i))] + cost[i - 1, j - 1]
        steps[i, j] = counts[best, np.arange(len(i))] + 1
    return float(total[n, m] / steps[n, m])


def distortion(made: np.ndarray, real: np.ndarray) -> float:
    """Mel-cepstral distortion in decibels between cepstra (n, c) and (m, c): the root mean square
    difference of band levels that these coefficients make."""
    far = np.sqrt(((made[:, None] - real[None]) ** 2).sum(-1) / SPEECH.bands)
    return 20 / math.log(10) * warped_mean(far)


def variance_ratio(made: np.ndarray, real: np.ndarray) -> float:
    """The variance of cepstra over time, of made ones to real ones, the mean over coefficients."""
    return float((made.var(0) / np.maximum(real.var(0), 1e-8)).mean())


class MelFeatures:
    """What a Frechet distance of log-mels compares: mean, deviation and movement of 20 bands over
    each sound's own frames; no network."""

    def features(self, x: Tensor) -> Tensor:
        """Mels (n, frames, bands) as (n, 60)."""
        return torch.stack(
            [self._one(mel[: int(k)]) for mel, k in zip(x, frames_of(x), strict=True)]
        )

    def _one(self, mel: Tensor) -> Tensor:
        bands = mel.float().unflatten(-1, (20, -1)).mean(-1)
        moved = torch.diff(bands, dim=0) if len(bands) > 1 else torch.zeros_like(bands)
        parts = (bands.mean(0), bands.std(0, correction=0), moved.std(0, correction=0))
        return torch.cat(parts)


def heard_here() -> bool:
    """Whether the recogniser's package is there."""
    return importlib.util.find_spec("pocketsphinx") is not None


class WordLoop:
    """pocketsphinx listening for any sequence of `words`, all equally likely; ValueError without
    the package.

    The loop is a unigram model: as a grammar, a loop of 400 words took minutes for a sentence.
    """

    def __init__(self, words: Sequence[str]) -> None:
        try:
            decoder: Any = importlib.import_module("pocketsphinx").Decoder
        except ImportError as error:
            raise ValueError("word errors need pocketsphinx: pip install pocketsphinx") from error
        dictionary = decoder(lm=None, loglevel="FATAL")
        known = [word for word in words if dictionary.lookup_word(word) is not None]
        share = -math.log10(len(known) + 1)
        lines = [f"{share:.6f} {word}" for word in ("</s>", *known)]
        head = f"\\data\\\nngram 1={len(lines) + 1}\n\n\\1-grams:\n-99 <s>\n"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "loop.lm"
            file.write_text(head + "\n".join(lines) + "\n\n\\end\\\n")
            self.decoder: Any = decoder(lm=str(file), loglevel="FATAL", lw=WORD_WEIGHT)

    def hear(self, audio: Tensor) -> list[str]:
        """The words of samples (n,) at 16 kHz."""
        self.decoder.start_utt()
        self.decoder.process_raw(wav_bytes(audio, SPEECH.sample_rate)[44:], full_utt=True)
        self.decoder.end_utt()
        heard = self.decoder.hyp()
        return [] if heard is None else heard.hypstr.split()


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """Words to insert, drop or change to make one of the other."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        above, row[0] = row[:], i
        for j, other in enumerate(heard, 1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other))
    return row[-1]


def words_of(text: str) -> list[str]:
    """A text's words, lower case, without marks."""
    return "".join(each if each.isalpha() or each == "'" else " " for each in text.lower()).split()


class SpeechFigures:
    """A data set's own figures of speech, against real speech of the same text and speaker."""

    def __init__(self, real: Samples, sound: Sound) -> None:
        self.sound = sound
        lengths = frames_of(real.x_0)
        who = real.cond["speaker"].tolist()
        self.real = {
            said: cepstra(mel[: int(k)])
            for said, mel, k in zip(
                zip(real.captions, who, strict=True), real.x_0, lengths, strict=True
            )
        }
        self.vocabulary = sorted({word for text in real.captions for word in words_of(text)})

    def __call__(self, samples: Tensor, features: Tensor, asked: Any) -> dict[str, float]:
        """mcd: decibels; gv_ratio: 1 for real; length_error: mean share by which a sound is longer
        or shorter; word_error: where pocketsphinx is."""
        rows = []
        for mel, k, said in zip(samples, frames_of(samples), asked, strict=True):
            if tuple(said) not in self.real:
                raise ValueError(f"no real speech of {said[0]!r} by speaker {said[1]} is known")
            made, real = cepstra(mel[: int(k)]), self.real[tuple(said)]
            off = abs(len(made) - len(real)) / len(real)
            rows.append((distortion(made, real), variance_ratio(made, real), off))
        names = ("mcd", "gv_ratio", "length_error")
        figures: dict[str, float] = dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))
        if heard_here():
            figures["word_error"] = self._word_error(samples, asked)
        return figures

    @cached_property
    def loop(self) -> WordLoop:
        """The recogniser of this vocabulary, which takes seconds to make."""
        return WordLoop(self.vocabulary)

    def _word_error(self, samples: Tensor, asked: Sequence[Said]) -> float:
        wrong, total = 0, 0
        for mel, (text, _) in zip(samples[:RECOGNISED], asked, strict=False):
            said = words_of(text)
            wrong += edits(said, self.loop.hear(self.sound(mel)))
            total += len(said)
        return wrong / max(total, 1)


def speech_reference(real: Samples, train: Samples, sound: Sound) -> Reference:
    """The reference of a data set of speech; its floor is the real speech itself, through `sound`:
    what the vocoder costs."""
    seen = train.x_0[: len(real)]
    who = real.cond["speaker"].tolist()
    asked = tuple(zip(real.captions, who, strict=True))
    figures = SpeechFigures(real, sound)
    return Reference.of(real.name, real.x_0, seen, MelFeatures(), figures, (real.x_0, asked))
