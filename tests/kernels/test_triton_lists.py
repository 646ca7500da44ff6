"""Tests of kernels/genkit_kernels/triton_lists.py: who is where, seen by whom, what is kept."""

import torch

from genkit_kernels import GroupLayout, criss_cross, surround
from genkit_kernels.problem import Problem
from genkit_kernels.region import compile_region
from genkit_kernels.triton_lists import KEPT, lists, turn, turned

CPU = torch.device("cpu")


def problem(layout, region, key_lens=None):
    """A problem of two batch rows."""
    found = compile_region(region, layout)
    return Problem(layout.order(), layout.lens(key_lens, 2), found.offsets, found.blocks, 1.0)


def test_lists_are_turned():
    offsets, blocks = turn(torch.tensor([0, 2, 3, 6]), torch.tensor([0, 2, 2, 0, 1, 2]))
    assert offsets.tolist() == [0, 2, 3, 6] and blocks.tolist() == [0, 2, 2, 0, 1, 2]
    # Block 1 is seen by nobody but 2, and 0 sees 1 but not the other way round.
    offsets, blocks = turn(torch.tensor([0, 2, 3, 5]), torch.tensor([0, 1, 0, 0, 2]))
    assert offsets.tolist() == [0, 3, 4, 5] and blocks.tolist() == [0, 1, 2, 0, 2]
    offsets, blocks = turn(torch.tensor([0, 1, 2]), torch.tensor([0, 0]))
    assert offsets.tolist() == [0, 2, 2] and blocks.tolist() == [0, 1]


def test_places_are_tokens_of_valid_slots():
    layout = GroupLayout((1, 3), (1, 2), 3, "first")
    one = problem(layout, surround(0))
    places, stride, offsets, blocks, n = lists(one, CPU)
    assert (places.tolist(), stride, n) == ([[3, 4, 5, -1, 0, 1, 2, -1]], 0, 4)
    assert offsets.dtype == blocks.dtype == places.dtype == torch.int32
    assert torch.equal(offsets, one.offsets) and torch.equal(blocks, one.blocks)
    places, stride, *_ = lists(problem(layout, surround(0), torch.tensor([3, 1])), CPU)
    assert stride == 8
    assert places.tolist() == [[3, 4, 5, -1, 0, 1, 2, -1], [3, 4, 5, -1, 0, -1, -1, -1]]


def test_what_was_made_is_kept():
    layout = GroupLayout((6, 6), (2, 2), 3)
    first, second = (lists(problem(layout, criss_cross()), CPU) for _ in range(2))
    assert first[0] is second[0] and first[2] is second[2] and first[3] is second[3]
    other = lists(problem(layout, surround(1)), CPU)
    assert other[0] is first[0] and other[3] is not first[3]
    assert turned(problem(layout, criss_cross()), CPU)[3] is not first[3]
    held = compile_region(criss_cross(), layout)
    equal = Problem(layout.order(), layout.lens(None, 2), held.offsets.clone(), held.blocks, 1.0)
    assert lists(equal, CPU)[3] is first[3]


def test_lists_that_were_changed_are_made_again():
    layout = GroupLayout((2, 4), (2, 2))
    found = compile_region(criss_cross(), layout)
    offsets, blocks = found.offsets.clone(), found.blocks.clone()
    own = Problem(layout.order(), layout.lens(None, 1), offsets, blocks, 1.0)
    assert lists(own, CPU)[3].tolist() == [0, 1, 0, 1]
    blocks[2:] = torch.tensor([1, 0])
    assert lists(own, CPU)[3].tolist() == [0, 1, 1, 0]
    offsets[1] = 1
    assert lists(own, CPU)[2].tolist() == [0, 1, 4]
    assert turned(own, CPU)[3].tolist() == [0, 1, 1, 1]


def test_only_so_many_are_kept():
    layout = GroupLayout((2, 2), (2, 2), 20)
    for n in range(KEPT + 2):
        places = lists(problem(layout, surround(0), torch.tensor([n, 20])), CPU)[0]
        assert (places >= 0).sum(1).tolist() == [4 + n, 24]
        assert lists(problem(layout, surround(0), torch.tensor([n, 20])), CPU)[0] is places


def test_lists_made_in_inference_mode_serve():
    with torch.inference_mode():
        layout = GroupLayout((2, 6), (2, 2))
        inside = lists(problem(layout, surround(0)), CPU)
    assert lists(problem(layout, surround(0)), CPU)[0].tolist() == inside[0].tolist()
