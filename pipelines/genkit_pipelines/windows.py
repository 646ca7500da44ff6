"""Frames as they come, decoded to sound in windows that begin at the clip's beginning.

`chunks` are of them, for whoever listens meanwhile. The whole and the stream run exactly this, so
they are the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from genkit_pipelines.audio_output import AudioChunk


def windows(decoder: Any, parts: Iterable[Tensor]) -> Iterator[Tensor]:
    """Samples (n,) of one clip, window by window, from its frames (frames, c), in parts.

    decoder: makes samples of `config["window"]` frames, `samples_per_frame` each, between
    `context` frames on either side; `outside` (c,) is a frame of what is before and after a clip.
    """
    context, width = decoder.context, decoder.config["window"]
    held, done, total = None, 0, 0
    for part in parts:
        held = _outside(decoder, part, context) if held is None else held
        held = torch.cat([held, part])
        total += len(part)
        # Another window only when more frames follow it than it looks ahead.
        while len(held) > width + 2 * context:
            yield decoder(held[None, : width + 2 * context])[0].float()
            held, done = held[width:], done + width
    assert held is not None, "a clip has at least one part"
    while done < total:
        missing = max(0, width + 2 * context - len(held))
        padded = torch.cat([held, _outside(decoder, held, missing)])
        made = decoder(padded[None, : width + 2 * context])[0].float()
        yield made[: (total - done) * decoder.samples_per_frame]
        held, done = held[width:], done + width


def chunks(
    made: Iterable[Tensor], samples: int, sample_rate: int, least_in_s: float
) -> Iterator[AudioChunk]:
    """The first `samples` of a clip, whose samples (n,) come in pieces, in chunks of at least
    least_in_s but for the last."""
    held, start = [], 0
    for piece in made:
        held.append(piece[: samples - start - sum(len(each) for each in held)])
        size = sum(len(each) for each in held)
        last = start + size >= samples
        if last or size >= least_in_s * sample_rate:
            yield AudioChunk(torch.cat(held)[None], sample_rate, start / sample_rate, last)
            held, start = [], start + size
        if last:
            return


def _outside(decoder: Any, like: Tensor, frames: int) -> Tensor:
    return decoder.outside.to(like).expand(frames, -1)
