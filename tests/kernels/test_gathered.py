"""Tests of kernels/genkit_kernels/gathered.py: how queries are batched and keys gathered."""

import torch
from kernel_toys import error, randoms

import genkit_kernels as kernels
from genkit_kernels import GroupLayout, criss_cross, full, gathered, reference, surround, use
from genkit_kernels.problem import Problem
from genkit_kernels.region import compile_region


def batches(layout, region):
    lists = compile_region(region, layout)
    as_bytes = (x.contiguous().numpy().tobytes() for x in (lists.offsets, lists.blocks))
    return gathered.batches(*as_bytes, layout.sizes().numpy().tobytes(), layout.block_size)


def test_equal_lists_are_one_query():
    (only,) = batches(GroupLayout((8, 8), (2, 2)), full())
    assert only.queries.tolist() == [0] and only.width == 16


def test_text_is_one_query_and_a_tail_of_every_group():
    image, text = batches(GroupLayout((4, 4), (2, 2), 6), surround(0))
    assert image.queries.tolist() == [0, 1, 2, 3] and image.tails == (2,)
    assert image.keys.tolist() == [[i, 4, 5] for i in range(4)]
    assert (text.queries.tolist(), text.width, text.tails) == ([4], 2, (2,))


def test_clamped_neighbours_share_their_window():
    found = batches(GroupLayout((2, 12), (2, 2)), surround(1))
    assert {(batch.width, tuple(batch.queries.tolist())) for batch in found} == {
        (2, (0, 4)),
        (1, (2, 3)),
    }


def test_every_valid_query_is_covered_once():
    layout = GroupLayout((5, 7, 3), (2, 3, 2), 11, "first")
    q, *_ = randoms(layout, 1)
    lists = compile_region(criss_cross(), layout)
    problem = Problem(layout.order(), layout.lens(None, 2), lists.offsets, lists.blocks, 1.0)
    x = q.new_zeros(4, layout.blocks, layout.block_size, 16)
    seen = torch.zeros(4, layout.blocks, dtype=torch.int64)
    for call in gathered.calls(problem, layout.sizes(), x):
        seen[call.rows, call.queries.flatten()] += 1
    assert seen.eq(1).all()


def test_small_pieces_change_nothing(monkeypatch):
    layout, key_lens = GroupLayout((5, 7), (2, 3), 9), torch.tensor([9, 4])
    q, k, v, weight, *t = randoms(layout, 7, torch.float64)
    monkeypatch.setattr(gathered, "PIECE", 1)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    got, right = [], []
    for results, attend in ((got, kernels), (right, reference)):
        with use("torch"):
            o = attend.grouped_attention(*inputs, layout, surround(1), key_lens)
            results += [o, *torch.autograd.grad((o * weight).sum(), inputs)]
            plain = [x.detach() for x in inputs]
            results += attend.attention_jvp(*plain, *t, layout, surround(1), key_lens)
    assert all(error(a, b) < 1e-12 for a, b in zip(got, right, strict=True))
