"""The codec of music: exact counts, windows equal the whole, silence outside, its losses."""

import sys
from pathlib import Path

import pytest
import torch

from genkit.networks.music_codec import LATENT, MusicCodec, bands, open_codec
from genkit.networks.size import parameters
from genkit_pipelines.windows import windows


def small(window: int = 16, depth: int = 2) -> MusicCodec:
    torch.manual_seed(0)
    made = MusicCodec(4, 16, 2, 16, 1, depth, window).eval()
    made.settle(torch.randn(4), torch.rand(4) + 0.5)
    return made


def test_the_default_is_small():
    assert parameters(MusicCodec()) < 4e6


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("window", [5, 16, 100])
def test_windows_are_the_whole(window, depth):
    """To rounding, as matrix shapes differ; the parts they come in change no bit."""
    codec, latents = small(window, depth), torch.randn(1, 37, 4)
    with torch.no_grad():
        whole = codec.decode(latents)
        tiled = torch.cat(list(windows(codec, [latents[0]])))
        pieces = torch.cat(list(windows(codec, latents[0].split(9))))
    assert whole.shape == (1, 37 * LATENT)
    assert torch.allclose(tiled, whole[0], atol=1e-5)
    assert torch.equal(pieces, tiled)


def test_windows_with_less_context_are_not():
    """The broken twin: three latents less on either side (the last of them hardly matters)."""
    codec, latents = small(), torch.randn(1, 37, 4)
    with torch.no_grad():
        whole = codec.decode(latents)
        least = codec.context - 3
        part = codec(torch.nn.functional.pad(latents[:, 10 - least : 26 + least], (0, 0, 3, 3)))
        right = codec(latents[:, 10 - codec.context : 26 + codec.context])
    inside = whole[:, 10 * LATENT : 26 * LATENT]
    assert torch.allclose(right, inside, atol=1e-5)
    assert not torch.allclose(part, inside, atol=1e-5)


@pytest.mark.parametrize("samples", [1, LATENT, LATENT + 1, 10 * LATENT - 3])
def test_counts_are_exact(samples):
    codec = small()
    assert codec.encode(torch.randn(2, samples)).shape == (2, -(-samples // LATENT), 4)
    assert codec.samples_per_frame == LATENT and codec.sample_rate == 22_050


def test_a_clip_has_the_latents_that_it_has_within_silence():
    codec, audio = small(), torch.randn(1, 6 * LATENT)
    alone = codec.encode(audio)
    padded = codec.encode(torch.nn.functional.pad(audio, (0, 9 * LATENT)))
    assert torch.allclose(alone, padded[:, :6], atol=1e-5)
    assert torch.allclose(padded[:, -1], codec.outside, atol=1e-4)


def test_latents_are_normalised():
    codec, audio = small(), torch.randn(1, 40 * LATENT)
    with torch.no_grad():
        raw = codec.posterior(audio)[0]
        codec.settle(raw[0].mean(0), raw[0].std(0))
        latents = codec.encode(audio)[0]
    assert latents.mean(0).abs().max() < 1e-5 and (latents.std(0) - 1).abs().max() < 1e-4
    assert torch.allclose(latents * codec.deviation + codec.mean, raw[0], atol=1e-5)


def test_semitones_are_told_apart():
    """Neighbouring notes of a bass are different bands."""
    time = torch.arange(8 * LATENT) / 22_050
    tones = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (110.0, 116.54, 880.0)])
    seen = bands(tones)[:, 4]
    assert (seen[0] - seen[1]).abs().max() > 0.1 and (seen[0] - seen[2]).abs().max() > 0.5
    assert seen.abs().max() < 4


def test_saved_and_opened_it_is_the_same(tmp_path):
    codec, latents = small(), torch.randn(1, 12, 4)
    codec.save_pretrained(tmp_path / "codec")
    opened = open_codec(tmp_path / "codec")
    with torch.no_grad():
        assert torch.equal(opened.decode(latents), codec.decode(latents))
    assert torch.equal(opened.outside, codec.outside)
    with pytest.raises(ValueError, match="holds no codec"):
        open_codec(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "Vocoder"}')
    with pytest.raises(ValueError, match="holds a Vocoder"):
        open_codec(tmp_path)


def test_it_learns_a_tone(monkeypatch):
    """The script's own loss falls, with and without judges."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import train_music_codec as script

    from genkit.networks.discriminators import Discriminators

    torch.manual_seed(0)
    codec, judges = MusicCodec(4, 16, 1, 16, 1, 1), Discriminators(2)
    time = torch.arange((2 * codec.context + 8) * LATENT) / 22_050
    audio, found = 0.3 * torch.sin(2 * torch.pi * 440 * time)[None], []
    optimizer = torch.optim.AdamW(codec.parameters(), 3e-3)
    for _ in range(20):
        noise = torch.randn(1, audio.shape[1] // LATENT, 4)
        losses, made, real = script.step_losses(codec, judges, audio, 0.01, False, noise)
        assert made.shape == real.shape
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        found.append(float(losses["mel"].detach()))
    assert found[-1] < 0.7 * found[0]
    losses, *_ = script.step_losses(codec, judges, audio, 0.01, True, noise)
    assert {"adversarial", "features"} <= losses.keys()
    sys.modules.pop("train_music_codec")
