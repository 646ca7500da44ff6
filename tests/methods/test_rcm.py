"""rCM on a Gaussian: the two terms, their sum, and where both are at rest (card 6)."""

import pytest
import torch

from genkit.denoisers.analytic import Gaussian
from genkit.hub import make_scheduler
from genkit.methods.base import Moment, Roles
from genkit.methods.rcm import Method
from genkit.paths import EDM, PATHS, RectifiedFlow
from genkit.rng import Rng

every_path = pytest.mark.parametrize("path", [p() for p in PATHS.values()], ids=list(PATHS))
WARM, BOTH = 0, 50


def fitted(fit, learned, path, cls, steps=300, **config):
    method = cls(cls.Config(fake_turns=2, **config), path, (1,))
    fake = learned(path, "posterior")
    return fit(method, learned(path, "consistency"), {"fake": fake}, steps=steps)


def losses_of(method, learned, teacher, step, student=(1.0, 0.7), fake=(1.2, 0.4)):
    """The student's losses at a step of 100, and the student."""
    path = method.path
    method.scheduler = make_scheduler(method.sampler(), path, "x_0", 1000.0)
    who = learned(path, "consistency", *student)
    roles = Roles(teacher=teacher, student=who, fake=learned(path, "posterior", *fake))
    x_0 = 1.3 + 0.5 * Rng(5).normal((256, 1), torch.float64)
    batch = {"data": {"x_0": x_0, "cond": {}}}
    return method.loss(roles, batch, Moment(method.stages()[0], step, 100), Rng(0)), who


@pytest.mark.parametrize("terms", [{}, {"matching": 0.0}, {"consistency": 0.0}])
def test_learns_the_teacher_s_distribution_by_both_terms_and_by_either(
    fit, learned, error, path, terms
):
    assert error(fitted(fit, learned, path, Method, 250, **terms)) < 0.03


class Backwards(Method):
    """The broken twin: the tangent's sign."""

    def tangent(self, *given):
        velocity, tangent = super().tangent(*given)
        return velocity, -tangent


class Swapped(Method):
    """The broken twin: teacher and fake score change places in the matching."""

    def _matching(self, roles, *given):
        swapped = Roles({**roles, "teacher": roles["fake"], "fake": roles["teacher"]})
        return super()._matching(swapped, *given)


@pytest.mark.parametrize(
    "cls, terms", [(Backwards, {"matching": 0.0}), (Swapped, {}), (Backwards, {})]
)
def test_the_broken_twins_fail(fit, learned, error, path, cls, terms):
    assert error(fitted(fit, learned, path, cls, 100, **terms)) > 0.1


@every_path
def test_both_terms_are_at_rest_at_the_exact_consistency_function(learned, path):
    """g = 0 at F*, and D_fake = D_teacher where the fake score knows the student's samples."""
    method = Method(Method.Config(tangent_warmup=0.5), path, (1,))
    teacher, exact = Gaussian(path, 1.3, 0.5), (1.3, 0.5)
    losses, student = losses_of(method, learned, teacher, BOTH, exact, exact)
    losses["total"].backward()
    assert max(student.mean.grad.abs(), student.std.grad.abs()) < 1e-5
    away, other = losses_of(method, learned, teacher, BOTH)
    away["total"].backward()
    assert max(other.mean.grad.abs(), other.std.grad.abs()) > 0.05


def test_the_total_is_the_weighed_sum_and_the_terms_are_scm_s_and_dmd2_s(learned, path, teacher):
    from genkit.methods import dmd2

    method = Method(Method.Config(consistency=3.0, matching=0.25, tangent_warmup=0.5), path, (1,))
    losses, _ = losses_of(method, learned, teacher, BOTH)
    assert losses["total"] == 3 * losses["consistency"] + 0.25 * losses["matching"]
    config = dmd2.Method.Config(adversarial=0.0, warmup_share=0.0, shift=5.0)
    other = dmd2.Method(config, path, (1,))
    alone = Method(Method.Config(consistency=0.0), path, (1,))
    assert (
        losses_of(alone, learned, teacher, BOTH)[0]["matching"]
        == losses_of(other, learned, teacher, BOTH)[0]["matching"]
    )


def test_matching_begins_where_the_tangent_s_warm_up_ends(learned, path, teacher):
    method, seen = Method(Method.Config(tangent_warmup=0.5), path, (1,)), []
    stage = method.stages()[0]
    assert method.turns(Moment(stage, 49, 100)) == [("student",)]
    assert method.turns(Moment(stage, 50, 100)) == [("fake",)] * 4 + [("student",)]
    tangent = method.tangent
    method.tangent = lambda *given: seen.append(given[-1]) or tangent(*given)
    names = [set(losses_of(method, learned, teacher, step)[0]) for step in (WARM, 25, BOTH, 99)]
    assert seen == [0.0, 0.5, 1.0, 1.0]
    assert ["matching" in each for each in names] == [False, False, True, True]
    assert "fake" not in Method(Method.Config(matching=0.0), path, (1,)).nets()


@pytest.mark.parametrize("path", [RectifiedFlow(), EDM()])
def test_derivatives_are_interchangeable(learned, path):
    teacher, found = Gaussian(path, 1.3, 0.5), []
    for derivative in ("func", "difference", "kernel"):
        method = Method(Method.Config(derivative=derivative, tangent_warmup=0.0), path, (1,))
        found.append(losses_of(method, learned, teacher, BOTH)[0]["consistency"])
    assert found[0] == found[2] and abs(found[1] - found[0]) < 1e-3 * found[0]


def test_several_steps_train_on_the_student_s_own_inputs(learned, path, teacher):
    method = Method(Method.Config(steps=2, consistency=0.0), path, (1,))
    method.scheduler = make_scheduler(method.sampler(), path, "x_0", 1000.0)
    student, seen = learned(path, "consistency"), set()
    raw = student.raw
    student.raw = lambda x, t, cond, s=None: seen.add(float(t[0])) or raw(x, t, cond, s)
    roles = Roles(teacher=teacher, student=student, fake=learned(path, "posterior"))
    batch = {"data": {"x_0": torch.zeros(8, 1), "cond": {}}}
    for step in range(8):
        method.loss(roles, batch, Moment(method.stages()[0], 99, 100), Rng(step))
    assert seen == {1000.0, 500.0}


def test_nothing_to_learn_is_refused(path):
    with pytest.raises(ValueError, match="nothing to learn"):
        Method(Method.Config(consistency=0.0, matching=0.0), path, (1,))
