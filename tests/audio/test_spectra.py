"""Spectra: exact counts, perfect reconstruction, batch equals singles, librosa's own values."""

import json
from pathlib import Path

import pytest
import torch

from genkit.audio.spectra import (
    SPEECH,
    Mels,
    griffin_lim,
    istft,
    log_mel,
    mel_filters,
    overlap_add,
    stft,
)

GOLDEN = Path(__file__).parent / "librosa_log_mel.json"


def sweep(n: int = 8000) -> torch.Tensor:
    """A rising tone with harmonics on a floor of noise, in float64 so that all machines agree."""
    i = torch.arange(n, dtype=torch.float64)
    phase = 2 * torch.pi * (120 * i / 16_000 + 400 * (i / 16_000) ** 2)
    tone = sum(torch.sin(k * phase) / k for k in range(1, 12))
    return (0.2 * tone + 0.01 * torch.frac(torch.sin(i * 12.9898) * 43758.5453)).float()[None]


@pytest.mark.parametrize("n", [1, 255, 256, 257, 1000, 4096, 5001])
def test_counts_are_exact_and_the_inverse_is_perfect(n):
    audio = torch.randn(2, n, generator=torch.Generator().manual_seed(0))
    spectra = stft(audio, 1024, 256)
    assert spectra.shape == (2, -(-n // 256), 513)
    assert torch.allclose(istft(spectra, n, 1024, 256), audio, atol=1e-5)


def test_a_padded_batch_has_the_frames_of_its_singles():
    long, short = sweep(5000), sweep(3000)
    both = torch.zeros(2, 5000)
    both[0], both[1, :3000] = long[0], short[0]
    mels = log_mel(both)
    assert torch.equal(mels[0], log_mel(long)[0])
    single = log_mel(short)[0]
    assert torch.allclose(mels[1, : len(single)], single, atol=1e-6)


def test_overlap_add_adds():
    frames = torch.arange(12.0).reshape(1, 3, 4)
    assert overlap_add(frames, 2).tolist() == [[0, 1, 6, 8, 14, 16, 10, 11]]


def test_log_mels_are_librosas():
    held = json.loads(GOLDEN.read_text())
    golden = torch.tensor(held["log_mel"])
    ours = log_mel(sweep())[0, held["frames"]]
    assert (ours - golden).abs().max() < 1e-4
    # HTK's scale is the commonest mistake: it must not pass.
    edges = torch.linspace(0, 2595 * torch.log10(torch.tensor(1 + 8000 / 700)).item(), 82)
    centre = (700 * (10 ** (edges[1:-1] / 2595) - 1) / 15.625).round().long()
    filters = mel_filters(16_000, 1024, 80, 0.0, 8000.0)
    assert not torch.equal(filters.argmax(0), centre)


def test_log_mels_are_librosas_here():
    librosa = pytest.importorskip("librosa", reason="librosa is in the extra metrics only")
    import numpy as np

    audio = sweep()[0].numpy()
    count = -(-len(audio) // 256)
    padded = np.pad(audio, (384, (count - 1) * 256 + 1024 - 384 - len(audio)))
    mel = librosa.feature.melspectrogram(
        y=padded, sr=16_000, n_fft=1024, hop_length=256, n_mels=80, power=1, center=False
    )
    theirs = torch.from_numpy(np.log(np.maximum(mel, 1e-5)).T)
    assert (log_mel(sweep())[0] - theirs).abs().max() < 1e-4


def test_normalising_is_undone_and_silence_is_the_floor():
    x = torch.randn(3, 80)
    assert torch.allclose(SPEECH.restore(SPEECH.normalise(x)), x, atol=1e-5)
    quiet = SPEECH.normalise(log_mel(torch.zeros(1, 512)))
    assert torch.allclose(quiet, torch.full_like(quiet, SPEECH.silence))
    assert SPEECH.frames(1.0) == 62 and Mels(hop=200).frames(1.0) == 80


def test_griffin_lim_keeps_the_mel():
    mels = log_mel(sweep())
    audio = griffin_lim(mels)
    assert audio.shape == (1, mels.shape[1] * 256)
    loud = mels > -4
    assert (log_mel(audio)[:, : mels.shape[1]] - mels)[loud].abs().mean() < 0.35
