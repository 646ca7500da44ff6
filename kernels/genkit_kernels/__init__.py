"""Sparse attention over groups of tokens, each kernel with a slow reference beside it."""

from genkit_kernels.layout import GroupLayout
from genkit_kernels.ops import attention_jvp, block_sparse_attention, grouped_attention
from genkit_kernels.region import criss_cross, full, sliding_tile, surround
from genkit_kernels.resolve import use

__all__ = [
    "GroupLayout",
    "attention_jvp",
    "block_sparse_attention",
    "criss_cross",
    "full",
    "grouped_attention",
    "sliding_tile",
    "surround",
    "use",
]
