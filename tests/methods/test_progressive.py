"""Progressive distillation: k halvings compose 2^k Euler steps exactly, no better and no worse."""

import pytest
import torch

from genkit.denoisers.analytic import Gaussian
from genkit.denoisers.base import Denoiser
from genkit.hub import make_scheduler
from genkit.methods.progressive import Method
from genkit.paths import EDM, VP, RectifiedFlow, TrigFlow
from genkit.sampling import Sampler


class Perfect(Denoiser):
    """The student that has learned its stage: it predicts the target itself."""

    def __init__(self, method, teacher, n):
        super().__init__(method.path, "x_0")
        self.method, self.teacher, self.n = method, teacher, n
        self.grid = method.path.time(torch.arange(n + 1).double() / n)

    def raw(self, x_t, timestep, cond, s=None):
        index = (timestep.double()[:, None] - self.grid).abs().argmin(1)
        return self.method.target(self.teacher, x_t, index, self.n, cond)


def drawn(path, denoiser, n):
    """Samples of n DDIM steps from five points of noise."""
    noise = torch.linspace(-2, 2, 5).double()[:, None]
    scheduler = make_scheduler(Sampler(n), path, denoiser.kind, 1.0)
    with torch.no_grad():
        return denoiser.sample(noise, {}, scheduler, n)


@pytest.mark.parametrize("path", [RectifiedFlow(), TrigFlow(), VP(), EDM()])
@pytest.mark.parametrize("steps", [1, 2])
def test_halvings_compose_the_teacher_s_steps(path, steps):
    method = Method(Method.Config(base_steps=8, steps=steps), path, (1,))
    teacher = student = Gaussian(path, 1.3, 0.5)
    for stage in method.stages():
        student = Perfect(method, student, stage.steps)
    want = drawn(path, teacher, 8)
    assert torch.allclose(drawn(path, student, steps), want, atol=1e-4)
    assert (drawn(path, teacher, steps) - want).abs().max() > 0.05


class Lazy(Method):
    """The broken twin: the teacher takes its second step from where the first began."""

    def _ddim(self, teacher, x, t, s, cond):
        return x


# From t = 1, x = z: D = 1.3, x at 1/2 is .5 z + .65, and D there 1.3 + .4 (.5 z).
@pytest.mark.parametrize("cls", [Method, Lazy])
def test_learns_two_steps_as_one(fit, learned, path, cls):
    method = cls(cls.Config(base_steps=2), path, (1,))
    student = fit(method, learned(path, "consistency"), steps=300)
    got = (student.mean.item(), student.std.item())
    assert (got == pytest.approx((1.3, 0.2), abs=0.01)) is (cls is Method)


def test_stages_halve_the_steps_and_hand_the_student_on(path):
    stages = Method(Method.Config(base_steps=16, steps=2, guidance=3.0), path, (1,)).stages()
    assert [stage.steps for stage in stages] == [8, 4, 2]
    assert [stage.name for stage in stages] == ["8 steps", "4 steps", "2 steps"]
    assert [stage.guidance for stage in stages] == [3.0, 1.0, 1.0], "folded in once"
    assert all(stage.fresh_optimizer for stage in stages) and stages[0].start == {}
    # In this order: the student's average becomes the teacher, and the student begins as it.
    assert list(stages[1].start.items()) == [("teacher", "student"), ("student", "teacher")]


@pytest.mark.parametrize("weighting", ["truncated_snr", "snr_plus_one"])
def test_weights_are_those_of_the_paper(path, weighting):
    method = Method(Method.Config(weighting=weighting), path, (1,))
    got = method._weight(torch.tensor([0.25, 0.8, 1.0]))
    snr = torch.tensor([9.0, 0.0625, 0.0])
    want = snr.clamp(min=1) if weighting == "truncated_snr" else snr + 1
    assert torch.allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("config", [{"base_steps": 12}, {"base_steps": 4, "steps": 4}])
def test_steps_that_do_not_halve_are_refused(path, config):
    with pytest.raises(ValueError, match="doubled once or more"):
        Method(Method.Config(**config), path, (1,))
