"""Small layouts, regions and tensors, and the mask of a layout written out token by token."""

import itertools

import pytest
import torch
from hypothesis import strategies as st

from genkit_kernels import GroupLayout, criss_cross, full, resolve, sliding_tile, surround

REGIONS = (
    surround(1),
    surround(1, "truncate"),
    sliding_tile(1) | criss_cross(),
    criss_cross(),
    full(),
)


@st.composite
def layouts(draw):
    """Layouts of at most 216 + 20 tokens, ragged or not, with text on either side or none."""
    grid = draw(st.lists(st.integers(1, 6), min_size=2, max_size=3))
    group = [draw(st.integers(1, min(n, 4))) for n in grid]
    text_len = draw(st.integers(0, 20))
    return GroupLayout(
        tuple(grid), tuple(group), text_len, draw(st.sampled_from(["first", "last"]))
    )


def implementation(name, dtype=torch.float32, head_dim=16):
    """Skip the test where an implementation cannot run; what to pass to `use`."""
    why = resolve.refusal(name, "cpu", dtype, head_dim)
    if why:
        pytest.skip(f"the {name} implementation cannot run here: {why}")
    return name


def randoms(layout, count, dtype=torch.float32, batch=2, heads=2, head_dim=16, seed=0):
    """`count` normal tensors (batch, tokens, heads, head dim)."""
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, layout.tokens, heads, head_dim)
    return [torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype) for _ in range(count)]


def seen_by_hand(layout, sees):
    """(tokens, tokens) booleans by a loop over tokens; sees(group a, group b) decides for two."""
    grid = [tuple(x) for x in itertools.product(*map(range, layout.grid))]
    groups = [tuple(i // g for i, g in zip(x, layout.group, strict=True)) for x in grid]
    image = torch.tensor([[sees(a, b) for b in groups] for a in groups])
    mask = torch.ones(layout.tokens, layout.tokens, dtype=torch.bool)
    first = layout.text_len if layout.text_side == "first" else 0
    inside = slice(first, first + len(groups))
    mask[inside, inside] = image
    return mask


def error(a, b):
    """Largest absolute difference."""
    return (a.double() - b.double()).abs().max().item()
