"""What a data set hands over: samples and what they are conditioned on, in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """Samples of one split.

    x_0: (n, ...) float32, scaled to [-1, 1].
    cond: {name: (n, ...)}, row i belongs to x_0[i]; class labels are "label", (n,) int64.
    num_classes: how many classes "label" counts, 0 where there are none. captions: a sentence for
    each sample, or none at all.
    """

    x_0: Tensor
    cond: Mapping[str, Tensor]
    name: str
    num_classes: int = 0
    captions: tuple[str, ...] = ()

    def __post_init__(self):
        assert len(self.captions) in (0, len(self.x_0)), "one caption for each sample, or none"
        for key, value in self.cond.items():
            assert len(value) == len(self.x_0), f"{len(value)} {key!r} for {len(self.x_0)} samples"

    def __len__(self) -> int:
        return len(self.x_0)

    def take(self, index: Tensor) -> "Samples":
        """The samples at `index` (indices or a mask), their conditions with them."""
        cond = {key: value[index] for key, value in self.cond.items()}
        rows = torch.arange(len(self.x_0))[index].tolist()
        said = tuple(self.captions[i] for i in rows) if self.captions else ()
        return replace(self, x_0=self.x_0[index], cond=cond, captions=said)
