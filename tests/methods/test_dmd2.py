"""DMD2 on a Gaussian: with a learned fake score the student finds (1.3, 0.5) (card 8)."""

import pytest
import torch

from genkit import terms
from genkit.hub import make_scheduler
from genkit.methods.base import Moment, Roles
from genkit.methods.dmd2 import Method
from genkit.networks.head import middle_block
from genkit.rng import Rng

PLAIN = {"adversarial": 0.0, "warmup_share": 0.0}


def test_matches_the_teacher_s_distribution(fit, learned, error, path):
    method = Method(Method.Config(**PLAIN), path, (1,))
    student = learned(path, "consistency", 0.0, 1.0)
    fake = learned(path, "posterior", 0.0, 1.0)
    assert error(fit(method, student, {"fake": fake}, steps=300)) < 0.03


class Swapped(Method):
    """The broken twin: teacher and fake score change places in the student's loss."""

    def loss(self, roles, batch, moment, rng):
        if roles.turn == ("student",):
            swapped = Roles({**roles, "teacher": roles["fake"], "fake": roles["teacher"]})
            swapped.turn = roles.turn
            return super().loss(swapped, batch, moment, rng)
        return super().loss(roles, batch, moment, rng)


def test_the_broken_twin_fails(fit, learned, error, path):
    method = Swapped(Swapped.Config(**PLAIN), path, (1,))
    student = learned(path, "consistency", 0.0, 1.0)
    fake = learned(path, "posterior", 0.0, 1.0)
    assert error(fit(method, student, {"fake": fake}, steps=100)) > 0.1


def test_warm_up_is_a_regression_on_pairs(fit, learned, error, path):
    method = Method(Method.Config(), path, (1,))
    assert method.stages()[0].name == "warm-up"
    assert method.turns(Moment(method.stages()[0], 0, 1)) == [("student",)]
    student = learned(path, "consistency")
    assert error(fit(method, student, stage=0)) < 0.01


def test_the_regression_may_be_kept_while_matching(learned, path, teacher):
    """Its gradient alone is left where student and fake are the teacher; it moves nothing else."""
    config = Method.Config(adversarial=0.0, regression=0.25)
    method = Method(config, path, (1,))
    method.scheduler = make_scheduler(method.sampler(), path, "x_0", 1000.0)
    student, fake = learned(path, "consistency", 1.3, 0.5), learned(path, "posterior", 1.3, 0.5)
    eps = Rng(1).normal((64, 1), torch.float64)
    batch = {"data": {"x_0": torch.zeros(64, 1).double(), "cond": {}}}
    batch["pairs"] = {"eps": eps, "x_0": 2.3 + 0.5 * eps, "cond": {}}
    roles, match = Roles(teacher=teacher, student=student, fake=fake), method.stages()[1]
    roles.turn = ("student",)
    losses = method.loss(roles, batch, Moment(match, 0, 1), Rng(0))
    assert losses["regression"].item() == pytest.approx(1.0)
    assert losses["total"] == losses["matching"] + 0.25 * losses["regression"]
    losses["total"].backward()
    assert student.mean.grad.item() == pytest.approx(0.25 * -2, abs=1e-6)


def test_all_times_of_the_matching_are_shifted(learned, path, teacher):
    """Teacher and fake score are asked, and the fake score trained, where shares of modes show."""
    seen = {"matching": [], "fake_score": []}
    for shift in (1.0, 3.0):
        method = Method(Method.Config(**PLAIN, low=0.4, high=0.5, shift=shift), path, (1,))
        method.scheduler = make_scheduler(method.sampler(), path, "x_0", 1000.0)
        fake = learned(path, "posterior")
        asked, raw = [], fake.raw
        fake.raw = lambda x, t, cond, s=None, asked=asked, raw=raw: (
            asked.append(t) or raw(x, t, cond, s)
        )
        roles = Roles(teacher=teacher, student=learned(path, "consistency"), fake=fake)
        data = {"data": {"x_0": torch.zeros(64, 1), "cond": {}}}
        for turn, name in ((("student",), "matching"), (("fake",), "fake_score")):
            roles.turn = turn
            method.loss(roles, data, Moment(method.stages()[0], 0, 1), Rng(0))
            seen[name].append(asked.pop() / 1000)
    for plain, moved in seen.values():
        assert torch.allclose(moved, 3 * plain / (1 + 2 * plain), atol=1e-5)


def test_several_steps_train_on_the_student_s_own_inputs(learned, path, teacher):
    """Backward simulation: with 2 steps some batches come from the second evaluation."""

    method = Method(Method.Config(**PLAIN, steps=2), path, (1,))
    method.scheduler = make_scheduler(method.sampler(), path, "x_0", 1000.0)
    student = learned(path, "consistency", 0.0, 1.0)
    seen = []
    raw = student.raw
    student.raw = lambda x, t, cond, s=None: seen.append(float(t[0])) or raw(x, t, cond, s)
    data = {"data": {"x_0": torch.zeros(8, 1), "cond": {}}}
    roles = Roles(teacher=teacher, student=student, fake=learned(path, "posterior"))
    for step in range(8):
        method.loss(roles, data, Moment(method.stages()[0], 0, 1), Rng(step))
    assert set(seen) == {1000.0, 500.0}


def test_head_is_trained_to_tell_real_from_generated():
    """softplus terms: minimal where real logits are high and fake ones low."""
    high, low = torch.full((4, 1), 5.0), torch.full((4, 1), -5.0)
    assert terms.adversarial_head(high, low).mean() < 0.1
    assert terms.adversarial_head(low, high).mean() > 9
    assert terms.adversarial_student(high).mean() < terms.adversarial_student(low).mean()


def test_head_reads_the_middle_block_and_gets_gradients(path):
    from genkit.denoisers.base import NetworkDenoiser
    from genkit.denoisers.calls import network_call
    from genkit.networks.mlp import MLPDenoiser

    network = MLPDenoiser(width=16, depth=3)
    fake = NetworkDenoiser(network, network_call(network), path, "velocity", 1000.0)
    assert middle_block(fake) == ("network.blocks.1",)
    uncond = {"label": torch.tensor([10])}
    method = Method(Method.Config(), path, (1, 8, 8), uncond=uncond)
    head = method.nets()["head"].build({"fake": fake})
    student = NetworkDenoiser(MLPDenoiser(width=16), fake.call, path, "velocity", 1000.0)
    roles = Roles(student=student, fake=fake, head=head)
    roles.turn = ("fake", "head")
    from diffusers import FlowMapEulerDiscreteScheduler

    method.scheduler = FlowMapEulerDiscreteScheduler()
    cond = {"label": torch.arange(4)}
    data = {"data": {"x_0": torch.randn(4, 1, 8, 8), "cond": cond}}
    losses = method.loss(roles, data, Moment(method.stages()[1], 0, 1), Rng(0))
    losses["total"].backward()
    assert all(p.grad is not None for p in head.parameters())
    assert all(p.grad is None for p in student.parameters())


def test_the_head_may_read_the_frozen_teacher(path):
    """Its logits are those of the unguided teacher's features; the critics' turn gives the fake its
    score loss alone, and the student's gradient flows through the frozen teacher."""
    from diffusers import FlowMapEulerDiscreteScheduler

    from genkit.denoisers.base import Guided, NetworkDenoiser
    from genkit.denoisers.calls import network_call
    from genkit.networks.mlp import MLPDenoiser

    def network(seed):
        torch.manual_seed(seed)
        made = MLPDenoiser(width=16, depth=3)
        torch.nn.init.normal_(made.leave.weight)  # it begins at 0, a student of no gradient
        return NetworkDenoiser(made, network_call(made), path, "velocity", 1000.0)

    uncond = {"label": torch.tensor([10])}
    config = Method.Config(warmup_share=0.0, adversarial=0.5, head=0.0, critic="teacher", shift=3.0)
    method = Method(config, path, (1, 8, 8), uncond=uncond)
    method.scheduler = FlowMapEulerDiscreteScheduler()
    teacher, fake, student = network(0).requires_grad_(False), network(1), network(2)
    head = method.nets()["head"].build({"teacher": teacher, "fake": fake})
    assert head.names == ["network.blocks.1"]
    roles = Roles(teacher=Guided(teacher, 4.0, uncond), student=student, fake=fake, head=head)
    x_0, cond = torch.randn(4, 1, 8, 8), {"label": torch.arange(4)}
    alone = Roles(teacher=teacher, head=head)
    judged = method._judged(roles, x_0, cond, Rng(3))
    assert torch.equal(judged, method._judged(alone, x_0, cond, Rng(3)))
    batch, match = {"data": {"x_0": x_0, "cond": cond}}, Moment(method.stages()[0], 0, 1)
    roles.turn = ("fake", "head")
    losses = method.loss(roles, batch, match, Rng(0))
    losses["head"].backward()
    assert all(p.grad is None for p in fake.parameters())
    assert all(p.grad is not None for p in head.parameters())
    roles.turn = ("student",)
    method.loss(roles, batch, match, Rng(0))["adversarial"].backward()
    assert any(p.grad.abs().sum() > 0 for p in student.parameters())


def test_a_head_is_built_where_its_network_is():
    """Features are looked at on the network's own device, whichever that is."""
    from genkit.denoisers.base import NetworkDenoiser
    from genkit.denoisers.calls import network_call
    from genkit.networks.mlp import MLPDenoiser
    from genkit.paths import RectifiedFlow

    fake = MLPDenoiser(width=16).to("meta")
    network = NetworkDenoiser(fake, network_call(fake), RectifiedFlow(), "velocity", 1000.0)
    uncond = {"label": torch.tensor([10])}
    method = Method(Method.Config(), RectifiedFlow(), (1, 8, 8), uncond=uncond)
    (head,) = method._head({"fake": network}).heads
    assert head[0].normalized_shape == (16,)


def test_pairs_are_asked_for_where_they_are_used(path):
    assert "pairs" in Method(Method.Config(), path, (1,)).needs
    assert "pairs" in Method(Method.Config(warmup_share=0.0, regression=0.1), path, (1,)).needs
    assert Method(Method.Config(warmup_share=0.0), path, (1,)).needs == ("data",)
