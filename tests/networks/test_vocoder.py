"""The vocoder: windows are the whole, counts are exact, and it learns a tone; its judges."""

import torch

from genkit.audio.spectra import SPEECH, log_mel
from genkit.networks.discriminators import (
    Discriminators,
    discriminator_loss,
    generator_loss,
    stft_loss,
)
from genkit.networks.vocoder import Vocoder
from genkit_pipelines.windows import windows


def small(window: int = 16) -> Vocoder:
    torch.manual_seed(0)
    return Vocoder(width=16, depth=2, window=window)


def test_windows_are_the_whole():
    mels = torch.randn(1, 50, 80)
    whole = small().decode(mels).detach()
    assert whole.shape == (1, 50 * 256)
    for window in (1, 7, 16, 64):
        with torch.no_grad():
            parts = list(windows(small(window), mels[0].split(9)))
        assert len(parts) == -(-50 // window)
        assert torch.allclose(torch.cat(parts), whole[0], atol=1e-5)


def test_the_context_is_what_a_window_needs():
    """A change just outside the context changes nothing, one just inside does."""
    vocoder, mels = small(), torch.randn(1, 60, 80)
    context = vocoder.context
    with torch.no_grad():
        far, near = mels.clone(), mels.clone()
        far[:, 30 - context - 1] += 5
        near[:, 30 - context] += 5
        one, other, third = (
            vocoder.decode(each)[0, 30 * 256 : 31 * 256] for each in (mels, far, near)
        )
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_it_learns_a_tone():
    torch.manual_seed(0)
    vocoder = Vocoder(width=32, depth=1)
    audio = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(16 * 256) / 16_000)[None]
    mels = SPEECH.normalise(log_mel(audio))
    optimizer = torch.optim.Adam(vocoder.parameters(), 2e-3)
    first = None
    for _ in range(60):
        loss = stft_loss(vocoder.decode(mels), audio).mean()
        first = float(loss) if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.6 * first


def test_losses_know_real_from_made():
    judges, real = Discriminators(4), torch.randn(2, 4096) * 0.1
    made = torch.randn(2, 4096, requires_grad=True)
    seen, fake = judges(real), judges(made)
    assert len(seen) == 7
    fooled, near = generator_loss(seen, fake)
    (fooled + near).sum().backward()
    assert made.grad.abs().sum() > 0 and discriminator_loss(seen, fake).shape == (2,)
    assert float(generator_loss(seen, judges(real))[1].sum()) < 1e-6
    assert float(stft_loss(real, real).sum()) < 1e-6 < float(stft_loss(made, real).sum())
