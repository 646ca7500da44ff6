"""The plots of the page: who is on the front, and where things are drawn."""

import pytest

from genkit.comparison.page import GAP, REACH, Axis, Point, apart, front, scatter

POINTS = [
    Point("slow and best", 50, 0.4, True),
    Point("quick and good", 1, 0.5),
    Point("quick and bad", 1, 0.9),
    Point("in between", 4, 0.45),
    Point("dearer, no better", 8, 0.45),
]


def test_the_front_is_what_nothing_else_beats():
    assert {each.name for each in front(POINTS)} == {
        "slow and best",
        "quick and good",
        "in between",
    }


def test_equal_points_are_both_on_the_front():
    assert len(front([Point("a", 1, 1), Point("b", 1, 1)])) == 2


def test_axes_run_from_the_least_to_the_largest():
    axis = Axis((2.0, 4.0), 0, 100)
    assert not axis.log and [axis.place(v) for v in (2, 3, 4)] == [5, 50, 95]
    wide = Axis((1.0, 100.0), 100, 0)
    assert wide.log and [round(wide.place(v)) for v in (1, 10, 100)] == [95, 50, 5]
    assert Axis((3.0,), 0, 100).place(3.0) == 50


def test_names_do_not_lie_on_each_other():
    assert apart([(0, 10), (0, 50), (0, 11)]) == [10, 50, 10 + GAP]
    assert apart([(0, 1)] * 3) == [1, 1 + GAP, 1 + 2 * GAP]
    assert apart([(0, 1), (REACH, 1)]) == [1, 1], "beside each other there is room"


def test_better_is_lower_and_the_front_filled():
    svg = scatter(POINTS, "sampling_evaluations", "fd", 0.3)
    assert svg.count("<circle") == 5 and svg.count('best"') == 3 and "floor" in svg
    assert "x logarithmic" in svg and "Frechet distance" in svg

    def top(name: str) -> float:
        return float(svg.partition(f"<title>{name}:")[0].rpartition('cy="')[2].partition('"')[0])

    assert top("quick and bad") < top("quick and good") < top("slow and best")


@pytest.mark.parametrize("floor", [None, 0.1])
def test_a_single_point_is_drawn(floor: float | None):
    assert "<b>" not in scatter([Point("<b>", 1, 1)], "latency", "sw", floor)
