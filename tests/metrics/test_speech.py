"""Figures of speech: distortion and variance on known cases, warping, words, the reference."""

import numpy as np
import pytest
import torch

from genkit.data.base import Samples
from genkit.metrics import floor, measure
from genkit.metrics.speech import (
    MelFeatures,
    WordLoop,
    cepstra,
    distortion,
    edits,
    frames_of,
    speech_reference,
    variance_ratio,
    warped_mean,
    words_of,
)


def mels(n: int = 1, frames: int = 40, seed: int = 0) -> torch.Tensor:
    """Smooth random mels."""
    rng = torch.Generator().manual_seed(seed)
    slow = torch.nn.functional.avg_pool1d(torch.randn(n, 80, frames + 8, generator=rng), 9, 1)
    return slow.transpose(1, 2).contiguous()


def test_distortion_is_nothing_for_the_same_and_for_a_slower_one():
    one = cepstra(mels()[0])
    assert distortion(one, one) == 0
    assert distortion(one.repeat(2, 0), one) == 0  # warped
    wanted = 20 / np.log(10) * np.sqrt(13 * 0.01 / 80)
    assert distortion(one + 0.1, one) == pytest.approx(wanted, rel=0.05)


def test_warping_takes_the_cheapest_path():
    cost = np.array([[0.0, 9, 9], [0, 9, 9], [9, 0, 0]])
    assert warped_mean(cost) == 0
    assert warped_mean(np.ones((3, 5))) == 1


def test_blur_has_little_distortion_and_too_little_variance():
    real = mels(seed=1)[0]
    blurred = torch.nn.functional.avg_pool1d(real.T[None], 15, 1, 7)[0].T
    noisy = real + 0.5 * (real - blurred)
    a, b, c = (cepstra(each) for each in (real, blurred, noisy))
    assert variance_ratio(a, a) == pytest.approx(1)
    assert variance_ratio(b, a) < 0.8 < 1.2 < variance_ratio(c, a)


def test_frames_are_counted_to_the_last_that_is_not_zero():
    x = torch.zeros(3, 5, 80)
    x[0, :4] = 1
    x[1, 2] = 1
    assert frames_of(x).tolist() == [4, 3, 1]
    assert MelFeatures().features(x).shape == (3, 60)


def test_edits_and_words():
    assert words_of("The cat, it's 'ere.") == ["the", "cat", "it's", "'ere"]
    assert edits("a b c".split(), "a c".split()) == 1
    assert edits("a b".split(), "c d e".split()) == 3 and edits([], ["x"]) == 1


def samples(seed: int) -> Samples:
    x_0 = mels(24, 30, seed)
    x_0[::2, 25:] = 0
    said = tuple(f"word{i}." for i in range(24))
    cond = {"frames": frames_of(x_0), "speaker": torch.zeros(24, dtype=torch.long)}
    return Samples(x_0, cond, "toy", 1, said, classes=("x",))


def test_the_floor_is_the_best_and_blur_is_found_out(monkeypatch):
    monkeypatch.setattr("genkit.metrics.speech.heard_here", lambda: False)
    real = samples(0)
    reference = speech_reference(real, samples(1), lambda mel: torch.zeros(256))
    asked = [(text, 0) for text in real.captions]
    best = floor(reference, 24)
    assert best["mcd"] == 0 and best["gv_ratio"] == pytest.approx(1)
    blurred = torch.nn.functional.avg_pool1d(real.x_0.transpose(1, 2), 9, 1, 4).transpose(1, 2)
    found = measure(blurred * (real.x_0 != 0), asked, reference)
    assert found["gv_ratio"] < 0.9 and found["fd"] > best["fd"] and found["mcd"] > 0
    assert "word_error" not in found
    with pytest.raises(ValueError, match="no real speech"):
        measure(real.x_0, [("other.", 0)] * 24, reference)


def test_a_recogniser_hears_words():
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is in the extra metrics")
    loop = WordLoop(["cat", "dog", "qqzzx"])
    assert isinstance(loop.hear(torch.zeros(16_000)), list)


def test_a_missing_recogniser_is_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ValueError, match="pip install pocketsphinx"):
        WordLoop(["cat"])
