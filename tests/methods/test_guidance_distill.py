"""Guidance of Gaussians of one width is a Gaussian, moved: what the student must become.

With D(x; m) = m + k (x - alpha m), which is affine in m, uncond + w (cond - uncond) is the
posterior mean of N(m_0 + w (m_1 - m_0), c^2), exactly and at every noise level.
"""

import pytest
import torch
from torch import nn

from genkit.denoisers.base import Denoiser, Guided
from genkit.guidance import drop
from genkit.hub import make_scheduler
from genkit.methods.base import Moment, Roles
from genkit.methods.guidance_distill import STEPS, Method
from genkit.paths import EDM, VP, RectifiedFlow, TrigFlow, expand, wide
from genkit.rng import Rng
from genkit.settings import Settings

STD, NONE, W = 0.5, 1, 3.0
MEANS = (1.3, 0.3)  # of the condition, and of none
GUIDED = 0.3 + W * (1.3 - 0.3)


class Conditional(Denoiser):
    """The posterior mean of N(means[label], STD^2), means learned."""

    def __init__(self, path, means):
        super().__init__(path, "x_0")
        self.means = nn.Parameter(torch.tensor(means, dtype=torch.float64))

    def raw(self, x_t, timestep, cond, s=None):
        t, mean = expand(wide(timestep), x_t), expand(self.means[cond["label"]], x_t)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return (mean + gain * (x_t.double() - alpha * mean)).to(x_t.dtype)


def method_of(cls, path, **config):
    return cls(cls.Config(guidance=W, **config), path, (1,), uncond={"label": torch.tensor([NONE])})


def taught(method, steps=200):
    """The means of a student that begins as the teacher does."""
    path = method.path
    uncond = {"label": torch.tensor([NONE])}
    student = Conditional(path, MEANS)
    roles = Roles(teacher=Guided(Conditional(path, MEANS), W, uncond), student=student)
    adam, stage = torch.optim.Adam(student.parameters(), lr=0.1), method.stages()[0]
    for step in range(steps):
        rng = Rng(0, step)
        x_0 = MEANS[0] + STD * rng.normal((128, 1), torch.float64)
        batch = {"data": {"x_0": x_0, "cond": {"label": torch.zeros(128).long()}}}
        adam.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        method.loss(roles, batch, Moment(stage, step, steps), rng)["total"].backward()
        adam.step()
        adam.zero_grad()
    return student.means.tolist()


@pytest.mark.parametrize("path", [RectifiedFlow(), TrigFlow(), VP(), EDM()])
def test_guidance_is_folded_in_and_no_condition_left_as_it_was(path):
    assert taught(method_of(Method, path)) == pytest.approx([GUIDED, MEANS[1]], abs=0.01)


class Undropped(Method):
    """The broken twin: the teacher is asked with the conditions that the student is not shown."""

    def loss(self, roles, batch, moment, rng):
        teacher, cond = roles["teacher"], batch["data"]["cond"]

        class Asked:
            def predict(self, x_t, t, _, kind):
                return teacher.predict(x_t, t, cond, kind)

        return super().loss(Roles({**roles, "teacher": Asked()}), batch, moment, rng)


def test_the_broken_twin_loses_the_unconditional_branch():
    means = taught(method_of(Undropped, RectifiedFlow()))
    assert means == pytest.approx([GUIDED, GUIDED], abs=0.05)


def test_without_drop_the_unconditional_branch_is_not_taught():
    means = taught(method_of(Method, RectifiedFlow(), drop=0.0))
    assert means == pytest.approx([GUIDED, MEANS[1]], abs=0.01) and means[1] == MEANS[1]
    label = {"label": torch.zeros(4).long()}
    assert drop(label, {"label": torch.tensor([NONE])}, 1.0, Rng(0))["label"].tolist() == [NONE] * 4


def test_the_student_samples_as_the_guided_teacher_at_half_the_cost():
    path, seen = RectifiedFlow(), []
    method = method_of(Method, path, steps=6)
    scheduler = make_scheduler(method.sampler(), path, "x_0", 1.0)
    noise, label = torch.randn(5, 1).double(), {"label": torch.zeros(5).long()}

    def samples(denoiser, inner):
        raw = inner.raw
        inner.raw = lambda x, *given: (seen.append(len(x)), raw(x, *given))[1]
        with torch.no_grad():
            x = denoiser.sample(noise, label, scheduler, method.sampler().steps)
        count = sum(seen)
        seen.clear()
        return x, count

    teacher, student = Conditional(path, MEANS), Conditional(path, (GUIDED, MEANS[1]))
    theirs, dear = samples(Guided(teacher, W, {"label": torch.tensor([NONE])}), teacher)
    ours, cheap = samples(student, student)
    assert torch.allclose(ours, theirs, atol=1e-12) and (cheap, dear) == (5 * 6, 2 * 5 * 6)


def test_steps_and_their_grid_are_the_teachers_unless_given():
    class Sampled:
        guidance = 4.0

        class sampler:
            steps, times = 3, (1.0, 0.8, 0.5)

    settings = Settings.of(Method, {})
    assert method_of(Method, RectifiedFlow()).sampler().steps == STEPS
    settings.take_teacher(Sampled.guidance, Sampled.sampler)  # type: ignore[arg-type]
    assert settings.method == Method.Config(guidance=4.0, steps=3, times=(1.0, 0.8, 0.5))
    given = Settings.of(Method, {"guidance": 2.0, "steps": 8})
    given.take_teacher(Sampled.guidance, Sampled.sampler)  # type: ignore[arg-type]
    assert given.method == Method.Config(guidance=2.0, steps=8)


class OfScale(Denoiser):
    """The posterior mean of N(base + slope w, STD^2) where conditioned, of N(none, STD^2) else."""

    def __init__(self, path):
        super().__init__(path, "x_0")
        self.base, self.slope, self.none = (
            nn.Parameter(torch.tensor(each, dtype=torch.float64)) for each in (1.3, 0.0, 0.0)
        )

    def raw(self, x_t, timestep, cond, s=None):
        t, w = expand(wide(timestep), x_t), expand(cond["w"].double(), x_t)
        conditioned = expand(cond["label"] != NONE, x_t)
        mean = torch.where(conditioned, self.base + self.slope * w, self.none)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return (mean + gain * (x_t.double() - alpha * mean)).to(x_t.dtype)


class Unmatched(Method):
    """The broken twin of the range: the teacher is guided with another sample's scale."""

    def guided(self, teacher, w):
        return super().guided(teacher, w.flip(0))


@pytest.mark.parametrize("cls", [Method, Unmatched])
def test_a_range_of_scales_is_learned_as_an_input(cls):
    """m_0 + w (m_1 - m_0) for every w, and none where the condition is dropped, whatever w."""
    method, path = method_of(cls, RectifiedFlow(), guidance_low=1.0), RectifiedFlow()
    assert method.scales == (1.0, 5.0) and method.embedded_guidance == W
    student, uncond = OfScale(path), {"label": torch.tensor([NONE])}
    roles = Roles(teacher=Guided(Conditional(path, MEANS), W, uncond), student=student)
    adam, stage = torch.optim.Adam(student.parameters(), lr=0.1), method.stages()[0]
    for step in range(300):
        rng = Rng(0, step)
        x_0 = MEANS[0] + STD * rng.normal((128, 1), torch.float64)
        batch = {"data": {"x_0": x_0, "cond": {"label": torch.zeros(128).long()}}}
        adam.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        method.loss(roles, batch, Moment(stage, step, 300), rng)["total"].backward()
        adam.step()
        adam.zero_grad()
    got = [student.base.item(), student.slope.item(), student.none.item()]
    right = got == pytest.approx([MEANS[1], MEANS[0] - MEANS[1], MEANS[1]], abs=0.03)
    assert right is (cls is Method), got


def test_without_a_range_the_network_is_the_teacher_s():
    method = method_of(Method, RectifiedFlow())
    assert method.embedded_guidance is None and method.nets()["student"].change is None
    wide_range = method_of(Method, RectifiedFlow(), guidance_high=8.0)
    assert wide_range.scales == (1.0, 8.0) and wide_range.nets()["student"].change is not None
    with pytest.raises(ValueError, match="outside the range 1 to 2"):
        method_of(Method, RectifiedFlow(), guidance_high=2.0)


@pytest.mark.parametrize(
    ("config", "uncond", "says"),
    [({"guidance": 1.0}, {"label": torch.tensor([1])}, "folds nothing in"), ({}, {}, "no cond")],
)
def test_what_has_no_guidance_is_refused(config, uncond, says):
    with pytest.raises(ValueError, match=says):
        Method(Method.Config(**config), RectifiedFlow(), (1,), uncond=uncond)
