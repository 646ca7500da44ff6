"""Files: what is written is read back, rates are exact, and bad files are told in a sentence."""

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from genkit.audio.files import read, resample, wav_bytes, write


def tone(n: int = 1600, rate: int = 16_000) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * 220 * torch.arange(n) / rate)


def test_a_wav_comes_back_and_is_never_written_over(tmp_path):
    file = write(tmp_path / "a.wav", tone(), 16_000)
    assert torch.allclose(read(file, 16_000), tone(), atol=1e-4)
    with pytest.raises(ValueError, match="there already"):
        write(file, tone(), 16_000)
    with pytest.raises(ValueError, match="ends in none"):
        write(tmp_path / "a.xyz", tone(), 16_000)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_resampling_has_exact_counts_and_keeps_a_tone(rate):
    there = resample(tone(rate, rate), rate, 16_000)
    assert len(there) == 16_000
    assert (there - tone(16_000))[500:-500].abs().max() < 5e-3
    assert len(resample(tone(rate + 1, rate), rate, 16_000)) == -(-(rate + 1) * 16_000 // rate)
    with pytest.raises(ValueError, match="sample rates"):
        resample(tone(), 0, 16_000)


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint8, np.float32])
def test_every_kind_of_wav_is_read(tmp_path, kind):
    stereo = np.stack([tone().numpy(), tone().numpy()], 1)
    scaled = {np.int16: 32767, np.int32: 2**31 - 1, np.uint8: 127, np.float32: 1}[kind]
    held = (stereo * scaled + (128 if kind is np.uint8 else 0)).astype(kind)
    wavfile.write(tmp_path / "b.wav", 16_000, held)
    assert torch.allclose(read(tmp_path / "b.wav", 16_000), tone(), atol=0.02)


def test_what_is_no_sound_is_told(tmp_path):
    with pytest.raises(ValueError, match="no sound file"):
        read(tmp_path / "none.wav", 16_000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF....WAVE")
    with pytest.raises(ValueError, match="cannot be read"):
        read(tmp_path / "broken.wav", 16_000)
    (tmp_path / "silent.wav").write_bytes(wav_bytes(torch.zeros(100), 16_000))
    with pytest.raises(ValueError, match="holds no sound"):
        read(tmp_path / "silent.wav", 16_000)


def test_flac_needs_soundfile_and_says_so(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ValueError, match="pip install soundfile"):
        write(tmp_path / "a.flac", tone(), 16_000)


def test_flac_comes_back(tmp_path):
    pytest.importorskip("soundfile", reason="soundfile is in the extra speech")
    file = write(tmp_path / "a.flac", tone(), 16_000)
    assert torch.allclose(read(file, 16_000), tone(), atol=1e-3)
    (tmp_path / "b.flac").write_bytes(b"no flac")
    with pytest.raises(ValueError, match="cannot be read as sound"):
        read(tmp_path / "b.flac", 16_000)
