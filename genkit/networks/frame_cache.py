"""Keys and values of past frames: a rolling cache that can be taken back, exactly.

One pair of buffers a layer, with room for more frames than are ever seen. New frames stand behind
the kept ones, where attention reads both as one slice without a copy; they stay only if they are
committed, so an evaluation leaves nothing behind by itself. When the room is full the last frames
are moved to the front, once in many frames. A frame's keys never change, so taking frames back is
forgetting them.
"""

from __future__ import annotations

import torch
from torch import Tensor


class FrameCache:
    """The past of a batch of clips.

    context: frames that a new one may see. slack: how many may be taken back besides. tokens: of a
    frame. length: frames there have been; held: how many of them are still kept.
    """

    def __init__(
        self,
        depth: int,
        shape: tuple[int, int, int],
        tokens: int,
        context: int,
        slack: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """shape: (batch, heads, features of a head)."""
        batch, heads, width = shape
        self.tokens, self.context, self.keep = tokens, context, context + slack
        self.room = 2 * self.keep + 8
        size = (2, batch, heads, self.room * tokens, width)
        self.layers = [torch.empty(size, dtype=dtype, device=device) for _ in range(depth)]
        self.length = self.held = 0

    @property
    def seen(self) -> int:
        """Frames of the past that the next one sees."""
        return min(self.held, self.context)

    def make_room(self, frames: int) -> None:
        """Let `frames` new ones have a place behind those kept."""
        assert frames + self.keep <= self.room, f"{frames} frames at once; there is room for fewer"
        if self.held + frames <= self.room:
            return
        first = (self.held - self.keep) * self.tokens
        size = self.keep * self.tokens
        for layer in self.layers:
            # Copied first: source and target may overlap.
            layer[..., :size, :] = layer[..., first : first + size, :].clone()
        self.held = self.keep

    def beside(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """(key, value) (b, heads, n, d) of new frames behind those of the frames they may see."""
        buffer = self.layers[layer]
        first, end = (self.held - self.seen) * self.tokens, self.held * self.tokens
        past = buffer[..., first:end, :]
        if torch.is_grad_enabled():
            both = (torch.cat([old, new], -2) for old, new in zip(past, (key, value), strict=True))
            return next(both), next(both)
        last = end + key.shape[-2]
        buffer[0, :, :, end:last], buffer[1, :, :, end:last] = key, value
        return buffer[0, :, :, first:last], buffer[1, :, :, first:last]

    def commit(self, frames: int) -> None:
        """Keep the frames that the last evaluation, without gradient, was of."""
        self.length, self.held = self.length + frames, self.held + frames

    def back(self, length: int) -> None:
        """Forget all frames but the first `length` there have been.

        The next frame then sees what it would have seen, bit for bit. ValueError where those it
        would see are no longer kept.
        """
        gone = self.length - length
        assert gone >= 0, f"{length} frames of {self.length}: there is nothing to take back"
        if self.held - gone < min(length, self.context):
            raise ValueError(
                f"{gone} frames cannot be taken back: the last {self.held} are kept, of which the "
                f"next frame sees {self.context}"
            )
        self.length, self.held = length, self.held - gone
