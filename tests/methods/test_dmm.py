"""DMM: linear teachers are recovered exactly, one style each (card 14)."""

import pytest
import torch
from torch import nn

from genkit.denoisers.base import Denoiser
from genkit.methods.base import Moment, Roles, teacher_name
from genkit.methods.dmm import Method
from genkit.rng import Rng
from tests.methods.test_contract import network

# Teachers eps_i = A_i x + b_i in one dimension.
TEACHERS = ((0.5, 1.0), (-1.5, 0.25), (2.0, -1.0))
PLAIN = {"feature": 0.0, "drop": 0.0}


class Linear(Denoiser):
    """A x + b, one pair for each style; without a style, the first's."""

    def __init__(self, path, pairs):
        super().__init__(path, "eps", time_scale=1000.0)
        self.a, self.b = (
            nn.Parameter(torch.tensor(each, dtype=torch.float64))
            for each in zip(*pairs, strict=True)
        )

    def raw(self, x_t, timestep, cond, s=None):
        style = cond.get("style", torch.zeros(len(x_t)).long())
        weights = style if style.ndim == 2 else nn.functional.one_hot(style, len(self.a))
        a, b = (weights.double() @ each for each in (self.a, self.b))
        return a[:, None] * x_t + b[:, None]


def batches(n, step):
    return {"data": {"x_0": Rng(0, "toy", step).normal((n, 1)).double(), "cond": {}}}


def method_of(path, count, kind=Method, **config):
    method = kind(kind.Config(**PLAIN | config), path, (1,))
    method.teachers = count
    return method


def taught(path, method, student, n=256):
    roles = Roles(student=student)
    for i in range(method.teachers):
        roles[teacher_name(i)] = Linear(path, [TEACHERS[i]])
    return method.loss(roles, batches(n, 0), Moment(method.stages()[0], 0, 1), Rng(1))


def learn(path, method, student, steps=250):
    adam = torch.optim.Adam(student.parameters(), lr=0.05)
    for step in range(steps):
        adam.zero_grad()
        roles = Roles(student=student)
        for i in range(method.teachers):
            roles[teacher_name(i)] = Linear(path, [TEACHERS[i]])
        moment = Moment(method.stages()[0], step, steps)
        method.loss(roles, batches(128, step), moment, Rng(1, step))["total"].backward()
        adam.step()
    return student


def error(student):
    return max(
        abs(got - wanted)
        for row, given in zip(zip(student.a.tolist(), student.b.tolist(), strict=True), TEACHERS,
                              strict=True)
        for got, wanted in zip(row, given, strict=True)
    )  # fmt: skip


def test_every_linear_teacher_is_recovered(path):
    method = method_of(path, 3)
    student = learn(path, method, Linear(path, [(0.0, 0.0)] * 3))
    assert error(student) < 0.02
    assert taught(path, method, student)["total"] < 1e-3
    x, t = torch.linspace(-2, 2, 5).double()[:, None], torch.full((5,), 0.3).double()
    for i, pair in enumerate(TEACHERS):
        cond = {"style": torch.full((5,), i)}
        own = Linear(path, [pair]).predict(x, t, {}, "eps")
        assert torch.allclose(student.predict(x, t, cond, "eps"), own, atol=0.05)


def test_the_loss_is_least_only_where_every_teacher_is_recovered(path):
    method = method_of(path, 3)
    exact = Linear(path, TEACHERS)
    assert taught(path, method, exact)["total"] < 1e-12
    for i in range(3):
        pairs = [list(pair) for pair in TEACHERS]
        pairs[i][1] += 0.3
        off = taught(path, method, Linear(path, pairs))["total"].item()
        assert off == pytest.approx(0.09 / 3, rel=0.4), "a third of the rows are of each style"


def test_a_mixture_of_styles_is_the_mixture_of_linear_teachers(path):
    exact, weights = Linear(path, TEACHERS), torch.tensor([[0.2, 0.3, 0.5]]).double()
    x, t = torch.linspace(-2, 2, 5).double()[:, None], torch.full((5,), 0.3).double()
    got = exact.predict(x, t, {"style": weights.expand(5, 3)}, "eps")
    each = [Linear(path, [pair]).predict(x, t, {}, "eps") for pair in TEACHERS]
    assert torch.allclose(got, sum(w * e for w, e in zip((0.2, 0.3, 0.5), each, strict=True)))


def test_one_teacher_is_plain_distillation(path):
    """The same number as the mean square of the difference at the same draws."""
    method, student = method_of(path, 1), Linear(path, [(0.1, 0.2)])
    loss = taught(path, method, student)["total"]
    rng, x_0 = Rng(1), batches(256, 0)["data"]["x_0"]
    eps = path.noise(x_0.shape, rng)
    t = path.time(rng.uniform((256,)))
    x_t = path.add_noise(x_0, eps, t)
    a, b = TEACHERS[0]
    assert loss.item() == pytest.approx((((0.1 - a) * x_t + 0.2 - b) ** 2).mean().item(), rel=1e-6)


class Swapped(Method):
    """The broken twin: the student is told the style of another teacher than taught it."""

    def _taught(self, roles, x_t, t, cond, style, names):
        return super()._taught(roles, x_t, t, cond, (style + 1) % self.teachers, names)


def test_the_broken_twin_recovers_the_wrong_teachers(path):
    method = method_of(path, 3, Swapped)
    student = learn(path, method, Linear(path, [(0.0, 0.0)] * 3))
    assert error(student) > 0.5
    assert abs(student.a[0].item() - TEACHERS[1][0]) < 0.05, "it is the next teacher's"


def test_features_are_of_the_same_blocks_and_the_same_rows(path):
    """A student whose styles are the teachers' own networks in turn has no feature error for the
    teacher it is; with another teacher it has."""
    method = Method(
        Method.Config(feature=0.5, drop=0.0), path, (1, 8, 8), uncond={"label": torch.tensor([10])}
    )
    method.teachers = 2
    torch.manual_seed(1)
    teachers = [network(path), network(path)]
    x_0, cond = torch.randn(16, 1, 8, 8), {"label": torch.arange(16) % 10}
    batch = {"data": {"x_0": x_0, "cond": cond}}
    student = method.nets()["student"].change(teachers[0])
    losses = []
    for pair in ((teachers[0], teachers[0]), tuple(teachers)):
        roles = Roles(student=student, teacher=pair[0], teacher_1=pair[1])
        losses.append(method.loss(roles, batch, Moment(method.stages()[0], 0, 1), Rng(0)))
    assert losses[0]["features"].item() == pytest.approx(0, abs=1e-10)
    assert losses[0]["total"].item() == pytest.approx(0, abs=1e-10)
    assert losses[1]["features"] > 1e-3
    total = losses[1]["prediction"] + 0.5 * losses[1]["features"]
    assert losses[1]["total"].item() == pytest.approx(total.item())


class Each(Denoiser):
    """The teachers themselves, asked by style; `moved` asks for the next one."""

    def __init__(self, path, teachers, moved=0):
        super().__init__(path, "velocity", time_scale=1000.0)
        self.teachers, self.moved = nn.ModuleList(teachers), moved

    def raw(self, x_t, timestep, cond, s=None):
        style = (cond["style"] + self.moved) % len(self.teachers)
        each = torch.stack([who.raw(x_t, timestep, cond) for who in self.teachers])
        return each[style, torch.arange(len(x_t))]


def judged(path, moved, count=2, steps=60):
    """(what the head's loss ends at, the student's) for teachers as their own student."""
    config = Method.Config(feature=0.0, drop=0.0, adversarial=1.0)
    method = Method(config, path, (1, 8, 8), uncond={"label": torch.tensor([10])})
    method.teachers = count
    torch.manual_seed(3)
    teachers = [network(path) for _ in range(count)]
    with torch.no_grad():
        for i, who in enumerate(teachers):
            who.network.leave.bias.fill_(3.0 * i)
    student = Each(path, teachers, moved)
    named = {teacher_name(i): who for i, who in enumerate(teachers)}
    head = method._head(named)
    roles = Roles(student=student, head=head, **named)
    adam, found = torch.optim.Adam(head.parameters(), lr=1e-2), []
    assert method.turns(Moment(method.stages()[0], 0, 1)) == [("head",), ("student",)]
    for step in range(steps):
        x_0 = Rng(4, step).normal((64, 1, 8, 8))
        batch = {"data": {"x_0": x_0, "cond": {"label": torch.arange(64) % 10}}}
        roles.turn = ("head",)
        moment = Moment(method.stages()[0], step, steps)
        losses = method.loss(roles, batch, moment, Rng(5, step))
        adam.zero_grad()
        losses["total"].backward()
        adam.step()
        found.append(losses["told"].item())
        last = losses
    roles.turn = ("student",)
    student_s = method.loss(roles, batch, moment, Rng(6))["adversarial"].item()
    return sum(found[-10:]) / 10, student_s, last["mistaken"].item()


def test_the_head_tells_styles_apart_and_not_a_student_that_is_right(path):
    """Samples of all styles together are the same for both students: only the logits of each style
    can tell them apart. The hinge of what is equal is 2; wrong styles are its broken twin."""
    right, fooled, _ = judged(path, 0)
    wrong, caught, mistaken = judged(path, 1)
    assert right > 1.9 and wrong < 1.5, (right, wrong)
    assert caught > fooled and mistaken < 0.9, (caught, fooled, mistaken)


def test_one_teacher_s_head_has_one_class(path):
    assert judged(path, 0, count=1, steps=2)[2] == 0
