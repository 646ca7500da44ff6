"""What a data set hands over: samples and their conditions, in memory; or prompts alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """Samples of one split.

    x_0: (n, ...) float32, scaled to [-1, 1].
    cond: {name: (n, ...)}, row i belongs to x_0[i]; class labels are "label", (n,) int64.
    num_classes: how many classes "label" counts, 0 where there are none. captions: a sentence for
    each sample, or none at all. held_out: captions of what is in no training sample, where there
    are such; students are shown and measured on them. held_out_cond: the conditions that belong to
    those. classes: the names of the classes, where they have some. mask: (n, ...), a prefix of
    x_0's shape, 1 where a sample is learned; None is everywhere. What it leaves out is still seen
    by the rest, as earlier frames are by later ones.
    """

    x_0: Tensor
    cond: Mapping[str, Tensor]
    name: str
    num_classes: int = 0
    captions: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    held_out_cond: Mapping[str, Tensor] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    mask: Tensor | None = None

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
        mask = None if self.mask is None else self.mask[index]
        return replace(self, x_0=self.x_0[index], cond=cond, captions=said, mask=mask)


@dataclass(frozen=True)
class Prompts:
    """Prompts without samples: a teacher makes what a method needs of data."""

    prompts: tuple[str, ...]
    name: str


class Gathered:
    """Rows of a table, (n, ...) in all, that are copied only where they are asked for: conditions
    of many samples of which few differ, or which are large."""

    def __init__(self, table: Tensor, index: Tensor) -> None:
        self.table, self.index = table, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        return self.table[self.index[rows]]
