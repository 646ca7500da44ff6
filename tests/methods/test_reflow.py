"""Reflow on a Gaussian: the tied pairs make a straight flow whose loss is exactly 0 (card 1)."""

import pytest
import torch

from genkit.methods.base import Moment, Roles
from genkit.methods.reflow import Method
from genkit.rng import Rng


@pytest.mark.parametrize("stage, form", [(0, "coupled"), (1, "consistency")])
def test_both_stages_learn_the_flow_map(fit, learned, error, path, stage, form):
    method = Method(Method.Config(), path, (1,))
    assert error(fit(method, learned(path, form), stage=stage)) < 0.01


class Swapped(Method):
    """The broken twin: noise and data of a pair change places."""

    def loss(self, roles, batch, moment, rng):
        pairs = batch["pairs"]
        swapped = {**pairs, "eps": pairs["x_0"], "x_0": pairs["eps"]}
        return super().loss(roles, {"pairs": swapped}, moment, rng)


@pytest.mark.parametrize("stage, form", [(0, "coupled"), (1, "consistency")])
def test_the_broken_twin_fails(fit, learned, error, path, stage, form):
    method = Swapped(Swapped.Config(), path, (1,))
    assert error(fit(method, learned(path, form), stage=stage)) > 0.1


def test_loss_is_zero_at_the_optimum_and_not_for_independent_pairs(learned, path):
    method = Method(Method.Config(), path, (1,))
    rng, cond = Rng(0), {"label": torch.zeros(4096).long()}
    eps, other = rng.normal((4096, 1)).double(), rng.normal((4096, 1)).double()
    roles = Roles(student=learned(path, "coupled", 1.3, 0.5))
    moment = Moment(method.stages()[0], 0, 1)
    tied = {"eps": eps, "x_0": 1.3 + 0.5 * eps, "cond": cond}
    loose = {"eps": eps, "x_0": 1.3 + 0.5 * other, "cond": cond}
    assert method.loss(roles, {"pairs": tied}, moment, Rng(1))["total"] < 1e-6
    assert method.loss(roles, {"pairs": loose}, moment, Rng(1))["total"] > 0.1


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_that_leaves_a_stage_out_is_refused(path, share):
    with pytest.raises(ValueError, match="or use regression"):
        Method(Method.Config(reflow_share=share), path, (1,))


def test_stages_follow_the_paper():
    from genkit.paths import RectifiedFlow

    stages = Method(Method.Config(guidance=3.0, flow_guidance=1.5), RectifiedFlow(), (1,)).stages()
    assert [stage.name for stage in stages] == ["reflow", "distill"]
    assert stages[1].start == {"teacher": "student"} and stages[1].new_data
    assert (stages[0].guidance, stages[1].guidance) == (3.0, 1.5)
    assert sum(stage.share for stage in stages) == pytest.approx(1)
