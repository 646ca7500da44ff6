"""Flow matching's optimum is the posterior of the data: mean and std of a Gaussian are found."""

import pytest

from genkit.methods.flow_matching import Method
from genkit.paths import RectifiedFlow


class Backwards(RectifiedFlow):
    """The broken twin: time derivatives of the reversed path."""

    def d_alpha(self, t):
        return -super().d_alpha(t)

    def d_sigma(self, t):
        return -super().d_sigma(t)


@pytest.mark.parametrize("broken", [False, True])
def test_learns_the_data_distribution(fit, learned, error, path, broken):
    method = Method(Method.Config(drop=0.0), Backwards() if broken else path, (1,))
    student = fit(method, learned(path, "posterior"))
    assert (error(student) < 0.03) is not broken


def test_drops_conditions_at_the_share_asked_for():
    import torch

    from genkit import guidance
    from genkit.rng import Rng

    cond, uncond = {"label": torch.arange(10_000) % 10}, {"label": torch.tensor([10])}
    dropped = guidance.drop(cond, uncond, 0.1, Rng(0))["label"]
    assert abs((dropped == 10).float().mean() - 0.1) < 0.01
    kept = dropped != 10
    assert (dropped[kept] == cond["label"][kept]).all()
