"""LADD with a head of one number a, d(x_t) = a x_t: the Dirac-GAN, whose answers are known.

Its losses' slopes are means of alpha(t) x_0, and with R1 it spirals into the teacher's mean, which
without R1 it circles (Mescheder et al. 2018, arXiv 1801.04406, sec. 3 and lemma 3.2).
"""

import pytest
import torch
from torch import nn

from genkit import terms
from genkit.denoisers.base import Denoiser, Guided, NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.methods.base import Moment, Roles
from genkit.methods.ladd import Method
from genkit.networks.mlp import MLPDenoiser
from genkit.rng import Rng

MEAN, STD, N = 1.3, 0.5, 4096


class Judge(Denoiser):
    """A teacher with one block, which sees x_t as it is."""

    def __init__(self, path):
        super().__init__(path, "x_0")
        self.block = nn.Identity()

    def raw(self, x_t, timestep, cond, s=None):
        return self.block(x_t)


class Shifted(Denoiser):
    """A student whose x_0 is the data's, moved by what it has to learn."""

    def __init__(self, path, mean):
        super().__init__(path, "x_0")
        self.mean = nn.Parameter(torch.tensor(mean))
        self.seen = []

    def raw(self, x_t, timestep, cond, s=None):
        self.seen.append(timestep)
        return self.mean + STD * cond["unit"]


class Slope(nn.Module):
    names = ("block",)

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, features):
        return (self.a * features["block"]).mean((1, 2))[:, None]


def setting(cls, path, mean=0.3, a=0.2, n=N, seed=0, **config):
    """(method, roles, batch); all noise of x_0 is the batch's own, so that means are known."""
    method = cls(cls.Config(**config), path, (1,))
    unit = Rng(seed, "unit").normal((n, 1))
    batch = {"data": {"x_0": MEAN + STD * unit, "cond": {"unit": unit}}}
    roles = Roles(teacher=Judge(path), student=Shifted(path, mean), head=Slope(a))
    return method, roles, batch


def slope(method, roles, batch, turn):
    roles.turn = (turn,)
    moment = Moment(method.stages()[0], 50, 100)
    method.loss(roles, batch, moment, Rng(1))["total"].backward()
    return (roles["student"].mean if turn == "student" else roles["head"].a).grad


def mean_alpha(method, path):
    u = torch.sigmoid(method.config.time_mean + method.config.time_std * Rng(7).normal((200_000,)))
    return path.alpha(path.time(u)).mean().item()


def test_slopes_are_those_of_the_hinge(path):
    """Of the student, -a E[alpha]; of the head, E[alpha] (mean fake - mean real) + penalty a."""
    method, roles, batch = setting(Method, path, penalty=0.5)
    alpha = mean_alpha(method, path)
    assert slope(method, roles, batch, "student").item() == pytest.approx(-0.2 * alpha, rel=0.03)
    assert roles["head"].a.grad is not None, "the Trainer freezes it, not the loss"
    roles["head"].a.grad = roles["student"].mean.grad = None
    found = slope(method, roles, batch, "head").item()
    assert found == pytest.approx(alpha * (0.3 - MEAN) + 0.5 * 0.2, abs=0.05)
    assert roles["student"].mean.grad is None


def played(cls, path, **config):
    """The student's mean after turns of gradient descent."""
    method, roles, _ = setting(cls, path, **config)
    stage = method.stages()[0]
    for step in range(250):
        _, _, batch = setting(cls, path, n=256, seed=step)
        for turn, parameter in (("head", roles["head"].a), ("student", roles["student"].mean)):
            roles.turn = (turn,)
            method.loss(roles, batch, Moment(stage, step, 250), Rng(2, step))["total"].backward()
            with torch.no_grad():
                parameter -= 0.2 * parameter.grad
            roles["head"].a.grad = roles["student"].mean.grad = None
    return roles["student"].mean.item()


class Swapped(Method):
    """The broken twin: the heads are taught that the student's samples are the real ones."""

    def loss(self, roles, batch, moment, rng):
        losses = super().loss(roles, batch, moment, rng)
        return losses if "student" in roles.turn else {"total": -losses["hinge"]}


def test_the_student_finds_the_mean(path):
    assert played(Method, path, penalty=0.5) == pytest.approx(MEAN, abs=0.15)


def test_the_broken_twin_goes_away_from_it(path):
    assert abs(played(Swapped, path) - MEAN) > 2


def test_the_penalty_is_the_slope_of_the_logits():
    features = {"a": torch.randn(3, 2, 4, requires_grad=True)}
    weight = torch.randn(2, 4)
    logits = (features["a"] * weight).sum((1, 2))[:, None]
    penalty = terms.gradient_penalty(logits, features)
    assert torch.allclose(penalty, (weight**2).sum().expand(3) / 2)


def test_the_hinge_rests_where_all_is_told_apart():
    one = torch.ones(2, 3)
    assert terms.hinge_head(one, -one).tolist() == [0, 0]
    assert terms.hinge_head(-one, one).tolist() == [4, 4]
    assert terms.hinge_student(2 * one).tolist() == [-2, -2]


def test_it_settles_on_the_lower_levels(path):
    method, roles, batch = setting(Method, path, steps=4)
    roles.turn, stage = ("student",), method.stages()[0]
    for step, levels in ((0, {0.5, 0.25}), (10, {1.0, 0.75, 0.5, 0.25})):
        roles["student"].seen.clear()
        method.loss(roles, batch, Moment(stage, step, 100), Rng(0))
        assert set(torch.cat(roles["student"].seen).tolist()) == levels
    one = setting(Method, path, steps=1)[0]
    assert one.sampler().grid(path).tolist() == [1.0]


def test_heads_read_every_block_of_the_teacher_without_guidance(path):
    network = MLPDenoiser(width=16, depth=3)
    teacher = NetworkDenoiser(network, network_call(network), path, "velocity", 1000.0)
    uncond = {"label": torch.tensor([10])}
    method = Method(Method.Config(guidance=3.0), path, (1, 8, 8), uncond=uncond)
    head = method._head({"teacher": teacher})
    assert head.names == [f"network.blocks.{i}" for i in range(3)]
    roles = Roles(teacher=Guided(teacher, 3.0, uncond), head=head)
    cond = {"label": torch.arange(4)}
    features = method._features(roles, torch.randn(4, 1, 8, 8), cond, Rng(0))
    assert all(each.shape[0] == 4 for each in features.values()), "a guided one has twice as many"
