"""Utterances as samples: log-mels of one length, how much of each is speech, and who speaks.

Shared by every data set of speech. x_0 (n, FRAMES, bands) are normalised log-mels, 0 beyond an
utterance's own frames; cond["frames"] (n,) says how many those are, cond["speaker"] (n,) who.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genkit.audio.spectra import SPEECH, istft, log_mel, stft
from genkit.data.base import Samples

FRAMES = 256  # 4.1 s
# By the time of a step: on one core a teacher is about 75 minutes, a student with its pairs 20. In
# the first 100 steps of a teacher Muon is no better than AdamW, and dearer. Measuring while
# training costs more than so few samples tell.
_ALL: dict[str, Any] = {
    "batch_size": 16,
    "mixed_precision": "bf16",
    "measure_every": 0,
    "sample_every": 500,
    "checkpoint_every": 500,
    "evaluate_n": 100,
    "evaluate_seeds": (0,),
}
# At more guidance than the teacher's own 1.3 words are heard better, by 1 to 3 in 100.
_GUIDED = {"guidance": 1.5}
_PAIRS = {"pairs": 2000, "pair_steps": 8, "pair_precision": "bf16"}
SPOKEN: dict[str, dict[str, Any]] = {
    "edm": _ALL | {"max_steps": 6_000, "warmup": 200, "sample_every": 1000},
    "consistency": _ALL | _GUIDED | {"max_steps": 1000, "solver": "euler"},
    "reflow": _ALL | _GUIDED | _PAIRS | {"max_steps": 1200},
    "regression": _ALL | _GUIDED | _PAIRS | {"max_steps": 1200},
    # Compared where a sound is decided: half of the draws lie below the deviation of the data.
    "dmd2": _ALL
    | _PAIRS
    | {
        "max_steps": 800,
        "warmup_share": 0.6,
        "lr": 3e-4,
        "fake_lr": 6e-4,
        "fake_turns": 2,
        "adversarial": 0.0,
        "shift": 0.5,
    },
}
Utterance = tuple[Tensor, str, int]  # samples (n,), what is said, number of the speaker


def gather(
    utterances: Iterable[Utterance], name: str, speakers: Sequence[str], frames: int = FRAMES
) -> Samples:
    """Utterances as samples of one length; longer ones are left out, and that is said.

    ValueError where none is left.
    """
    mels, lengths, who, said, long = [], [], [], [], 0
    for audio, text, speaker in utterances:
        mel = SPEECH.normalise(log_mel(audio[None])[0])
        if len(mel) > frames:
            long += 1
            continue
        mels.append(torch.nn.functional.pad(mel, (0, 0, 0, frames - len(mel))))
        lengths.append(len(mel))
        who.append(speaker)
        said.append(text)
    if long:
        seconds = frames * SPEECH.hop / SPEECH.sample_rate
        print(f"{name}: {long} utterances above {seconds:.1f} s left out", file=sys.stderr)
    if not mels:
        raise ValueError(f"{name} holds no utterance of at most {frames} frames")
    cond = {"frames": torch.tensor(lengths), "speaker": torch.tensor(who)}
    return Samples(
        torch.stack(mels), cond, name, len(speakers), tuple(said), classes=tuple(speakers)
    )


def equalised(audio: Tensor, rng: np.random.RandomState, decibels: float = 5.0) -> Tensor:
    """Samples (n,) through a smooth random equaliser of +-`decibels`: how a microphone or a room
    colours a voice, which no text tells."""
    knots = rng.uniform(-decibels, decibels, 6)
    curve = np.interp(np.linspace(0, 5, SPEECH.n_fft // 2 + 1), np.arange(6), knots)
    gain = torch.from_numpy(10 ** (curve / 20)).float()
    spectra = stft(audio[None], SPEECH.n_fft, SPEECH.hop) * gain
    made = istft(spectra, len(audio), SPEECH.n_fft, SPEECH.hop)[0]
    return made / made.abs().max().clamp(min=1.0)
