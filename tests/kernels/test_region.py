"""Tests of kernels/genkit_kernels/region.py."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_toys import layouts, seen_by_hand

from genkit_kernels import GroupLayout, criss_cross, full, reference, sliding_tile, surround
from genkit_kernels.region import Region, Window, compile_region


def clamped(i, n, size):
    size = min(size, n)
    start = min(max(i - size // 2, 0), n - size)
    return range(start, start + size)


def token_mask(layout, region):
    return reference.token_mask(layout, region, layout.lens(None, 1))[0, 0]


@settings(max_examples=40, deadline=None)
@given(layouts(), st.integers(0, 2))
def test_surround_is_the_box_written_out(layout, radius):
    def boxed(a, b):
        pairs = zip(a, b, layout.counts, strict=True)
        return all(j in clamped(i, n, 2 * radius + 1) for i, j, n in pairs)

    def near(a, b):
        return all(abs(i - j) <= radius for i, j in zip(a, b, strict=True))

    assert torch.equal(token_mask(layout, surround(radius)), seen_by_hand(layout, boxed))
    assert torch.equal(token_mask(layout, surround(radius, "truncate")), seen_by_hand(layout, near))


@settings(max_examples=40, deadline=None)
@given(layouts())
def test_criss_cross_and_unions_are_what_they_say(layout):
    def crossed(a, b):
        return any(i == j for i, j in zip(a, b, strict=True))

    def either(a, b):
        return crossed(a, b) or all(abs(i - j) <= 1 for i, j in zip(a, b, strict=True))

    both = criss_cross() | surround(1, "truncate")
    assert torch.equal(token_mask(layout, criss_cross()), seen_by_hand(layout, crossed))
    assert torch.equal(token_mask(layout, both), seen_by_hand(layout, either))
    assert token_mask(layout, full()).all()


def test_every_query_sees_a_full_window_at_the_border():
    lists = compile_region(surround(1), GroupLayout((8, 8), (2, 2)))
    assert lists.offsets.diff().eq(9).all()
    lists = compile_region(surround(1, "truncate"), GroupLayout((8, 8), (2, 2)))
    assert lists.offsets.diff().tolist() == [4, 6, 6, 4, 6, 9, 9, 6, 6, 9, 9, 6, 4, 6, 6, 4]


def test_three_planes_have_the_density_of_the_release():
    lists = compile_region(criss_cross(), GroupLayout((32, 48, 80), (4, 8, 8)))
    density = lists.blocks.numel() / 480**2
    assert density == pytest.approx(1 - 7 / 8 * 5 / 6 * 9 / 10)


def test_lists_are_sorted_unique_and_cached():
    layout = GroupLayout((6, 6), (2, 2), 5)
    lists = compile_region(surround(1) | surround(1), layout)
    for row in lists.blocks.tensor_split(lists.offsets[1:-1]):
        assert row.diff().gt(0).all()
    assert compile_region(surround(1) | surround(1), GroupLayout((6, 6), (2, 2), 5)) is lists


def test_a_window_per_axis():
    assert surround((0, 1, 2)) == sliding_tile((1, 3, 5)) == Window((1, 3, 5))
    lists = compile_region(sliding_tile((1, 3, 5)), GroupLayout((4, 6, 7), (1, 1, 1)))
    assert lists.offsets.diff().eq(15).all()


@pytest.mark.parametrize("window", [2, 0, (3, 4), ()])
def test_bad_windows_are_named(window):
    with pytest.raises(ValueError, match="window"):
        sliding_tile(window)


def test_bad_radius_border_and_axes_are_named():
    with pytest.raises(ValueError, match="radius"):
        surround(-1)
    with pytest.raises(ValueError, match="border"):
        surround(1, "wrap")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="axis"):
        compile_region(sliding_tile((3, 3, 3)), GroupLayout((4, 4), (2, 2)))


def test_a_query_without_keys_is_an_error():
    @dataclass(frozen=True)
    class Others(Region):
        def pairs(self, counts):
            return torch.tensor([1, 2])

    with pytest.raises(
        ValueError, match=r"region .*Others.* without keys \(3 of \(2, 2\) groups\)"
    ):
        compile_region(Others(), GroupLayout((4, 4), (2, 2)))
