"""Collapse is seen where it is, and not where a student merely begins badly."""

import pytest
import torch

from genkit.training.health import Collapse, Health, same_condition

LABEL = {"label": torch.arange(4).repeat_interleave(8)}
CENTRE = torch.linspace(-1, 1, 4).repeat_interleave(8)[:, None]


def samples(variety: float, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    """32 samples of 4 conditions, spread by `variety` around each condition's centre."""
    torch.manual_seed(seed)
    return scale * (CENTRE + variety * torch.randn(32, 64))


def health(start: torch.Tensor | None = None) -> Health:
    made = Health(samples(0.5), LABEL, 32)
    made.start(samples(0.4, seed=1) if start is None else start)
    return made


def test_a_good_student_is_left_alone():
    figures = health().judge(samples(0.4, 1.1, seed=2), 1.0)
    assert figures["samples/variety"] == pytest.approx(0.4 * 1.1, rel=0.1)


@pytest.mark.parametrize("progress", [0.0, 0.05, 1.0])
def test_values_that_are_not_finite_stop_at_once(progress):
    bad = samples(0.4)
    bad[3, 5] = float("nan")
    with pytest.raises(Collapse, match="1 of 32 samples"):
        health().judge(bad, progress)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (samples(0.001), "hardly depend on the noise"),
        (samples(0.5, 4.0), "deviation"),
        (samples(0.5, 0.2), "deviation"),
        (samples(0.5).sign() * 3.5, "saturated|deviation"),
        (samples(0.5).sign() * samples(0.5).abs().max(), "saturated"),
    ],
)
def test_collapse_is_named_after_a_tenth_of_the_stage(bad, said):
    made = health()
    made.judge(bad, 0.09)
    with pytest.raises(Collapse, match=said):
        made.judge(bad, 0.11)


def test_following_the_condition_alone_is_constant_output():
    """Over all samples there is much variety; at one condition there is none."""
    assert samples(0.0).std() > 0.5
    with pytest.raises(Collapse, match="noise"):
        health().judge(samples(0.0), 0.2)


def test_a_constant_start_is_given_half_of_the_stage():
    made = health(start=samples(0.004))
    made.judge(samples(0.004, seed=3), 0.4)
    with pytest.raises(Collapse, match="noise"):
        made.judge(samples(0.004, seed=3), 0.5)


def test_a_trial_too_short_to_learn_in_is_not_stopped_for_its_start():
    """As a student of a barely trained teacher: near the mean at first, and a little better."""
    made = health(start=samples(0.4, 0.25))
    made.judge(samples(0.4, 0.27), 0.6, steps=24)
    with pytest.raises(Collapse, match="deviation"):
        made.judge(samples(0.4, 0.27), 0.6, steps=240)
    with pytest.raises(Collapse, match="noise"):
        health().judge(samples(0.001), 0.6, steps=24)


def test_a_start_just_within_the_limit_may_cross_it():
    made = health(start=samples(0.4, 0.34))
    made.judge(samples(0.4, 0.33), 0.2)
    with pytest.raises(Collapse, match="deviation"):
        made.judge(samples(0.4, 0.2), 0.2)


def test_a_bad_start_that_gets_worse_stops_early():
    made = health(start=samples(0.02))
    with pytest.raises(Collapse, match="noise"):
        made.judge(samples(0.001), 0.2)


def test_without_a_reference_variety_is_judged_by_the_start():
    made = Health(None, {}, 32)
    made.start(torch.randn(32, 4))
    made.judge(10 * torch.randn(32, 4), 1.0)
    with pytest.raises(Collapse, match="at the stage's start"):
        made.judge(torch.ones(32, 4), 0.5)


def test_the_start_is_remembered_over_a_resume():
    made, again = health(start=samples(0.004)), Health(samples(0.5), LABEL, 32)
    again.load(made.state())
    again.judge(samples(0.004), 0.3)
    assert again.state() == made.state()


def test_rows_are_grouped_by_condition_where_some_share_one():
    assert [len(each) for each in same_condition(LABEL, 32)] == [8] * 4
    assert [len(each) for each in same_condition({"label": torch.arange(5)}, 5)] == [5]
    assert [len(each) for each in same_condition({}, 6)] == [6]
