"""MeanFlow on a Gaussian, whose mean velocities are a closed form (card 17)."""

import pytest
import torch
from torch import nn

from genkit.denoisers.analytic import Gaussian
from genkit.hub import make_scheduler
from genkit.methods.base import Moment, Roles
from genkit.methods.meanflow import Method
from genkit.paths import PATHS, expand
from genkit.rng import Rng


def inputs(n=64):
    t, s = Rng(1).uniform((n,), torch.float64), Rng(2).uniform((n,), torch.float64)
    s = torch.where(torch.arange(n) % 4 == 0, t, torch.minimum(s, t))
    return 1.5 * Rng(0).normal((n, 1), torch.float64), t, s


def test_the_exact_mean_velocity_is_its_own_target(mean_velocity, path, teacher):
    """u = v - (t - s) du/dt (eq. 6), to rounding; no other Gaussian's is."""
    method, (x_t, t, s) = Method(Method.Config(), path, (1,)), inputs()
    slope = teacher.predict(x_t, t, {}, "velocity")
    exact = mean_velocity(path, 1.3, 0.5)
    mean, target = method.target(Roles(student=exact), x_t, t, s, {}, slope)
    assert torch.allclose(mean, teacher.predict(x_t, t, {}, "mean_velocity", s), atol=1e-7)
    assert (mean - target).abs().max() < 1e-12
    assert mean.requires_grad and not target.requires_grad
    other = method.target(Roles(student=mean_velocity(path, 1.0, 0.7)), x_t, t, s, {}, slope)
    assert (other[0] - other[1]).abs().max() > 0.1
    same = t == s
    assert torch.equal(target[same], slope[same]), "where s = t it is flow matching"


def test_derivatives_agree(mean_velocity, path, teacher):
    x_t, t, s = inputs()
    slope, found = teacher.predict(x_t, t, {}, "velocity"), []
    for derivative in ("func", "difference", "kernel"):
        method = Method(Method.Config(derivative=derivative), path, (1,))
        roles = Roles(student=mean_velocity(path, 0.4, 0.9))
        found.append(method.target(roles, x_t, t, s, {}, slope)[1])
    assert torch.allclose(found[0], found[1], atol=1e-6) and torch.equal(found[0], found[2])


class Still(Method):
    """The broken twin: the derivative in x alone, t held still."""

    def target(self, roles, x_t, t, s, cond, slope):
        mean, _ = super().target(roles, x_t, t, s, cond, slope)
        moved = roles["student"].jvp(x_t, t, cond, "mean_velocity", slope, 0 * t, s)[1]
        return mean, slope - expand(t - s, x_t) * moved.detach()


class Turned(Method):
    """The broken twin: the sign of the derivative."""

    def target(self, roles, x_t, t, s, cond, slope):
        mean, target = super().target(roles, x_t, t, s, cond, slope)
        return mean, 2 * slope - target


@pytest.mark.parametrize("slope, near", [("teacher", 0.02), ("data", 0.06)])
def test_learns_the_mean_velocity(mean_velocity, fit, error, path, slope, near):
    method = Method(Method.Config(slope=slope, power=0.0, instant=0.25), path, (1,))
    assert error(fit(method, mean_velocity(path), steps=300)) < near


@pytest.mark.parametrize("slope, near", [("teacher", 0.02), ("data", 0.06)])
def test_improved_learns_it_along_its_own_velocity(mean_velocity, fit, error, path, slope, near):
    config = Method.Config(slope=slope, improved=True, power=0.0, instant=0.25)
    assert error(fit(Method(config, path, (1,)), mean_velocity(path), steps=300)) < near


def test_improved_regresses_the_velocity_itself(mean_velocity, path, teacher):
    """V = u + (t - s) sg(du/dt) is v at the exact u; the target is what it is given, whatever u."""
    method, (x_t, t, s) = Method(Method.Config(improved=True), path, (1,)), inputs()
    slope = teacher.predict(x_t, t, {}, "velocity")
    exact = mean_velocity(path, 1.3, 0.5)
    got, target = method.target(Roles(student=exact), x_t, t, s, {}, slope)
    assert target is slope and (got - slope).abs().max() < 1e-6 and got.requires_grad
    other = method.target(Roles(student=mean_velocity(path, 1.0, 0.7)), x_t, t, s, {}, slope + 1)
    assert torch.equal(other[1], slope + 1)
    # Its derivative is along its own velocity, so that what is given does not enter it.
    again = method.target(Roles(student=mean_velocity(path, 1.0, 0.7)), x_t, t, s, {}, slope)
    assert torch.equal(other[0], again[0])


class Minus(Method):
    """The broken twin of the improved one: the sign of the derivative."""

    def target(self, roles, x_t, t, s, cond, slope):
        velocity, target = super().target(roles, x_t, t, s, cond, slope)
        mean = roles["student"].predict(x_t, t, cond, "mean_velocity", s)
        return mean - (velocity - mean).detach(), target


def test_the_improved_twin_fails(mean_velocity, fit, error, path):
    method = Minus(Minus.Config(improved=True, power=0.0, instant=0.0), path, (1,))
    assert error(fit(method, mean_velocity(path), steps=100)) > 0.1


@pytest.mark.parametrize("cls", [Still, Turned])
def test_the_broken_twins_fail(mean_velocity, fit, error, path, cls):
    method = cls(cls.Config(power=0.0, instant=0.0), path, (1,))
    assert error(fit(method, mean_velocity(path), steps=100)) > 0.1


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_any_number_of_steps_gives_the_flow_s_own_end(mean_velocity, path, steps):
    """Steps of exact mean velocities compose: x_0 = m + c eps after any number."""
    method = Method(Method.Config(steps=steps), path, (1,))
    method.scheduler = make_scheduler(method.sampler(), path, "velocity", 1000.0)
    noise = torch.linspace(-2, 2, 5).double()[:, None]
    got = method.sample(mean_velocity(path, 1.3, 0.5), noise, {})
    assert torch.allclose(got, 1.3 + 0.5 * noise, atol=1e-6)


def test_times_are_ordered_and_a_share_is_one(path):
    method = Method(Method.Config(instant=0.75), path, (1,))
    t, s = method._times((20_000,), Rng(0))
    assert (s <= t).all() and abs((s == t).float().mean() - 0.75) < 0.02
    assert s.min() > 0 and t.max() < 1


def test_the_adaptive_weight_bounds_every_sample_s_pull(mean_velocity, path, teacher):
    """With power 1 the loss per sample is e / (e + .001), below 1 whatever e."""
    method = Method(Method.Config(), path, (1,))
    roles = Roles(teacher=teacher, student=mean_velocity(path, 100.0, 0.5))
    data = {"data": {"x_0": torch.zeros(16, 1), "cond": {}}}
    losses = method.loss(roles, data, Moment(method.stages()[0], 0, 1), Rng(0))
    assert losses["error"] > 1000 and 0.99 < losses["total"] < 1


@pytest.mark.parametrize("name", [name for name in PATHS if name != "rectified_flow"])
def test_other_paths_are_refused(name):
    with pytest.raises(ValueError, match="only rectified_flow"):
        Method(Method.Config(), PATHS[name](), (1,))


def test_the_delivered_network_is_told_both_times_by_trainer_and_pipeline(path):
    from genkit.denoisers.base import NetworkDenoiser
    from genkit.denoisers.calls import network_call
    from genkit.networks.mlp import MLPDenoiser
    from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

    network = MLPDenoiser(width=16, depth=2, two_time=True)
    for each in network.parameters():
        nn.init.normal_(each, std=0.3)
    method = Method(Method.Config(steps=2), path, (1, 8, 8))
    method.scheduler = make_scheduler(method.sampler(), path, "velocity", 1000.0)
    call = network_call(network)
    student = NetworkDenoiser(network, call, path, "velocity", 1000.0, two_time=True)
    noise, seen = torch.randn(2, 1, 8, 8), []
    network.register_forward_pre_hook(
        lambda module, given, named: seen.append((float(given[1][0]), given, named)),
        with_kwargs=True,
    )
    got = method.sample(student, noise, {"label": torch.tensor([1, 2])})
    pipeline = ClassConditionalImagePipeline(network, method.scheduler)
    drawn = pipeline(
        [1, 2], num_inference_steps=2, guidance_scale=1.0, latents=noise, output_type="pt"
    ).images
    assert [t for t, _, _ in seen] == [1000, 500, 1000, 500]
    told = [
        float((named["second_timestep"] if "second_timestep" in named else given[3])[0])
        for _, given, named in seen
    ]
    assert told == [500, 0, 500, 0]
    assert torch.allclose(drawn, (got / 2 + 0.5).clamp(0, 1), atol=1e-6)


def test_the_student_is_the_teacher_with_a_second_time(path):
    assert Method(Method.Config(), path, (1,)).nets()["student"].change is not None
    assert not Gaussian(path, 0.0, 1.0).two_time
