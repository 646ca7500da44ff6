"""Mels as they come, decoded in windows that begin at the clip's beginning.

The whole and the stream run exactly this, so they are the same bits. Without a vocoder all is
decoded at the end, by Griffin-Lim.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genkit.audio.spectra import SPEECH, griffin_lim


def windows(vocoder: Any | None, mels: Iterable[Tensor]) -> Iterator[Tensor]:
    """Samples (n,) of one clip, window by window, from its normalised mels (frames, bands)."""
    if vocoder is None:
        whole = torch.cat(list(mels))
        yield griffin_lim(SPEECH.restore(whole.float().cpu())[None])[0]
        return
    context, width, hop = vocoder.context, vocoder.config["window"], vocoder.config["hop"]
    held, done, total = None, 0, 0
    for part in mels:
        held = _silence(part, context) if held is None else held
        held = torch.cat([held, part])
        total += len(part)
        # Another window only when more frames follow it than it looks ahead.
        while len(held) > width + 2 * context:
            yield vocoder(held[None, : width + 2 * context])[0].float()
            held, done = held[width:], done + width
    assert held is not None, "a clip has at least one piece"
    while done < total:
        missing = max(0, width + 2 * context - len(held))
        padded = F.pad(held, (0, 0, 0, missing), value=SPEECH.silence)
        made = vocoder(padded[None, : width + 2 * context])[0].float()
        yield made[: (total - done) * hop]
        held, done = held[width:], done + width


def _silence(like: Tensor, frames: int) -> Tensor:
    return torch.full_like(like[:1], SPEECH.silence).expand(frames, -1)
