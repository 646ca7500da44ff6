"""Shares of a run as whole steps."""

import pytest

from genkit.methods.base import Stage
from genkit.training.plan import plan


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 101])
def test_spans_cover_every_step_once(steps):
    spans = plan([Stage("a", 0.3), Stage("b", 0.3), Stage("c", 0.4)], steps)
    covered = [step for span in spans for step in range(span.first, span.last)]
    assert covered == list(range(steps))


def test_shares_are_kept():
    spans = plan([Stage("a", 0.25), Stage("b", 0.75)], 100)
    assert [(span.first, span.last) for span in spans] == [(0, 25), (25, 100)]
    assert spans[1].moment(30).step == 5 and spans[1].moment(30).steps == 75
    assert spans[1].progress(100) == 1


def test_shares_that_do_not_add_up_are_a_bug():
    with pytest.raises(AssertionError, match="shares"):
        plan([Stage("a", 0.5)], 10)
