"""Tests of kernels/genkit_kernels/layout.py."""

import pytest
import torch
from hypothesis import given, settings
from kernel_toys import layouts

from genkit_kernels import GroupLayout


def test_groups_become_blocks():
    layout = GroupLayout((2, 4), (2, 2))
    assert layout.order().tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert (layout.counts, layout.block_size, layout.blocks, layout.slots) == ((1, 2), 4, 2, 8)


def test_ragged_groups_are_padded_at_their_end():
    layout = GroupLayout((3, 3), (2, 2))
    assert layout.order().view(4, 4).tolist() == [
        [0, 1, 3, 4],
        [2, 5, -1, -1],
        [6, 7, -1, -1],
        [8, -1, -1, -1],
    ]
    assert layout.sizes().tolist() == [4, 2, 2, 1]


@pytest.mark.parametrize(("side", "text", "image"), [("first", 0, 3), ("last", 4, 0)])
def test_text_comes_last_in_blocks_of_its_own(side, text, image):
    layout = GroupLayout((2, 2), (1, 2), 3, side)
    text, image = torch.arange(text, text + 3).tolist(), torch.arange(image, image + 4).tolist()
    assert layout.order().tolist() == [*image, *text, -1]
    assert layout.text_blocks == 2 and layout.tokens == 7


@settings(max_examples=40, deadline=None)
@given(layouts())
def test_clustering_and_back_is_the_identity(layout):
    x = torch.arange(1.0, 1 + 2 * layout.tokens * 3).view(2, layout.tokens, 3)
    clustered = layout.cluster(x)
    assert torch.equal(layout.uncluster(clustered), x)
    order = layout.order()
    assert torch.equal(clustered[:, order >= 0], x[:, order[order >= 0]])
    assert not clustered[:, order < 0].any()
    first = torch.arange(layout.block_size) < layout.sizes()[:, None]
    assert torch.equal(first, (order >= 0).view(layout.blocks, -1))


def test_reshape_and_index_agree():
    layout = GroupLayout((4, 6, 4), (2, 3, 1))
    x = torch.randn(2, layout.tokens, 2, 3)
    assert torch.equal(layout.cluster(x), x[:, layout.order()])


def test_lens_count_valid_text():
    layout = GroupLayout((3, 3), (2, 2), 6, "first")
    lens = layout.lens(torch.tensor([6, 5, 4, 0]), 4)
    assert lens.tolist() == [[4, 2, 2, 1, *tail] for tail in ([4, 2], [4, 1], [4, 0], [0, 0])]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (((4,), (2,)), "grid"),
        (((4, 4), (2,)), "group"),
        (((4, 4), (2, 5)), r"group \(2, 5\) is larger than the grid \(4, 4\)"),
        (((4, 0), (1, 1)), "grid"),
        (((4, 4), (0, 1)), "group"),
        (((4, 4), (2, 2), -1), "text_len"),
        (((4, 4), (2, 2), 3, "none"), "text_len"),
        (((4, 4), (2, 2), 3, "middle"), "text_side"),
    ],
)
def test_bad_layouts_are_named(arguments, names):
    with pytest.raises(ValueError, match=names):
        GroupLayout(*arguments)


@pytest.mark.parametrize(
    "key_lens",
    [torch.tensor([1]), torch.tensor([1.0, 2.0]), torch.tensor([-1, 2]), torch.tensor([1, 7])],
)
def test_bad_key_lens_are_named(key_lens):
    with pytest.raises(ValueError, match="key_lens"):
        GroupLayout((2, 2), (1, 1), 6).lens(key_lens, 2)


def test_wrong_token_counts_are_named():
    layout = GroupLayout((3, 3), (2, 2))
    with pytest.raises(ValueError, match="9 tokens"):
        layout.cluster(torch.zeros(1, 16))
    with pytest.raises(ValueError, match="16 slots"):
        layout.uncluster(torch.zeros(1, 9))
