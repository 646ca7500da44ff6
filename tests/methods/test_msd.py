"""MSD on conditional Gaussians: students that share one mean over their classes (card 12)."""

import pytest
import torch
from torch import nn

from genkit.denoisers.analytic import Mixture
from genkit.denoisers.base import NetworkDenoiser
from genkit.hub import make_scheduler
from genkit.methods import dmd2
from genkit.methods.base import Moment, Roles
from genkit.methods.msd import Method, partition
from genkit.networks.routed import RoutedNetwork, Router
from genkit.rng import Rng
from tests.methods.test_contract import trained

MEANS, STD = (-1.5, -0.5, 0.5, 1.5), 0.5
PLAIN = {"adversarial": 0.0, "warmup_share": 0.0}


class Shared(nn.Module):
    """x_0 of N(mean, std^2), mean and std learned and the same for every class."""

    config = {}

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x, timestep, class_labels):
        return self.denoiser.raw(x, timestep, {})


def toy(path, denoiser):
    def call(network, x, timestep, cond, s=None):
        return network(x, timestep, cond["label"])

    return NetworkDenoiser(Shared(denoiser), call, path, "x_0", 1000.0)


def batches(n, step):
    """Data of every class in equal shares."""
    label, draw = torch.arange(n) % 4, Rng(0, "toy", step).normal((n, 1))
    x_0 = torch.tensor(MEANS)[label][:, None] + STD * draw
    return {"data": {"x_0": x_0, "cond": {"label": label}}}


@pytest.fixture
def students(learned, path):
    """students(K) -> the K trained students' (mean, std), each with its own exact fake score."""

    def train(count, kind=Method, routes=(), steps=150):
        teacher = Mixture(path, torch.tensor(MEANS)[:, None], STD, labels=torch.arange(4))
        config = kind.Config(**PLAIN, students=count, routes=routes)
        method = kind(config, path, (1,), uncond={"label": torch.tensor([4])})
        method.scheduler = make_scheduler(method.sampler(), path, "x_0", 1000.0)
        nets = method.nets()
        student = nets["student"].change(toy(path, learned(path, "consistency", 0.0, 1.0)))
        fake = nets["fake"].change(toy(path, learned(path, "posterior", 0.0, 1.0)))
        for mine, its in zip(student.network.networks, fake.network.networks, strict=True):
            its.denoiser.mean, its.denoiser.std = mine.denoiser.mean, mine.denoiser.std
        roles = Roles(teacher=teacher, student=student, fake=fake)
        adam = torch.optim.Adam(student.parameters(), lr=0.1)
        for step in range(steps):
            moment = Moment(method.stages()[0], step, steps)
            adam.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
            adam.zero_grad()
            method.loss(roles, batches(1024, step), moment, Rng(1, step))["total"].backward()
            adam.step()
        networks = student.network.networks
        return [(each.denoiser.mean.item(), each.denoiser.std.item()) for each in networks]

    return train


def shortfall(found, routes):
    """Mean KL(student | teacher of the class), in nats: 0 where each class has its own Gaussian."""
    total = 0.0
    for mean, k in zip(MEANS, routes, strict=True):
        a, b = found[k]
        ratio = (b / STD) ** 2
        total += (
            0.5 * (ratio + ((a - mean) / STD) ** 2 - 1) - 0.5 * torch.tensor(ratio).log().item()
        )
    return total / len(MEANS)


def test_each_student_fits_its_part_and_more_of_them_fit_better(students):
    """The mean over classes of reverse KLs to N(m_y, c^2) is least at the mean of the m_y and at c
    itself; so K = 4 leaves nothing, and K = 1 and 2 leave the spread of means within a part."""
    left = {}
    for count in (1, 2, 4):
        routes = partition((), count, 4)
        found = students(count)
        for k, (mean, std) in enumerate(found):
            own = [m for m, route in zip(MEANS, routes, strict=True) if route == k]
            assert mean == pytest.approx(sum(own) / len(own), abs=0.05), (count, k)
            assert std == pytest.approx(STD, abs=0.05), (count, k)
        left[count] = shortfall(found, routes)
    assert left[1] == pytest.approx(1.25 / (2 * STD**2), rel=0.1)
    assert left[2] == pytest.approx(0.25 / (2 * STD**2), rel=0.15)
    assert left[4] < 0.02


class Crossed(Method):
    """The broken twin: data for a class go through the student of another one."""

    def loss(self, roles, batch, moment, rng):
        for net in roles.values():
            for each in net.modules():
                if isinstance(each, Router) and each.table[0] == 0:
                    each.table.copy_(each.table.flip(0).roll(-1))
        return super().loss(roles, batch, moment, rng)


def test_the_broken_twin_puts_students_in_the_wrong_places(students):
    found = students(4, Crossed, steps=100)
    assert shortfall(found, (0, 1, 2, 3)) > 1


@pytest.mark.parametrize("config", [{}, {"steps": 2, "adversarial": 0.1}])
def test_one_student_is_dmd2_bit_for_bit(config, path, tmp_path):
    uncond = {"label": torch.tensor([10])}
    plain = dmd2.Method(dmd2.Method.Config(**config), path, (1, 8, 8), uncond=uncond)
    one = Method(Method.Config(students=1, **config), path, (1, 8, 8), uncond=uncond)
    _, _, expected = trained(plain, tmp_path / "dmd2", "velocity")
    _, _, student = trained(one, tmp_path / "msd", "velocity")
    rows = student.network.networks[0].state_dict()
    for name, value in expected.network.state_dict().items():
        assert torch.equal(value, rows[name]), name
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("dmd2", "msd")]
    assert "matching" in logs[0]
    noise, label = torch.randn(4, 1, 8, 8), {"label": torch.arange(4)}
    seeds = [[torch.Generator().manual_seed(i) for i in range(4)] for _ in range(2)]
    for method in (plain, one):
        method.scheduler = make_scheduler(method.sampler(), path, "velocity", 1000.0)
    assert torch.equal(
        plain.sample(expected, noise, label, None, seeds[0]),
        one.sample(student, noise, label, None, seeds[1]),
    )


@pytest.mark.parametrize("inner", ["dmd2", "f_distill", "sid"])
def test_other_score_methods_train_students_apart(inner, path, tmp_path):
    uncond = {"label": torch.tensor([10])}
    method = Method(
        Method.Config(inner=inner, students=2, tsm_share=0.25, adversarial=0.1),
        path, (1, 8, 8), uncond=uncond,
    )  # fmt: skip
    assert method.stages()[0].name == "teacher score matching"
    assert sum(stage.share for stage in method.stages()) == pytest.approx(1)
    result, _, student = trained(method, tmp_path / inner, "velocity", max_steps=8)
    assert result.finished and isinstance(student.network, RoutedNetwork)
    one, two = (list(each.parameters()) for each in student.network.networks)
    assert any(not torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_teacher_score_matching_of_a_copy_has_nothing_to_do(path, learned, teacher):
    method = Method(Method.Config(tsm_share=0.5), path, (1,), uncond={"label": torch.tensor([4])})
    change = method.nets()["student"].change
    losses = []
    for mean in (1.3, 1.0):
        student = change(toy(path, learned(path, "posterior", mean, 0.5)))
        roles = Roles(teacher=teacher, student=student)
        moment = Moment(method.stages()[0], 0, 1)
        assert method.turns(moment) == [("student",)]
        losses.append(method.loss(roles, batches(64, 0), moment, Rng(0))["total"].item())
    assert losses[0] == pytest.approx(0, abs=1e-10) and losses[1] > 1e-3


def test_prompts_are_split_by_the_first_batch_in_every_role(path):
    uncond = {"encoder_hidden_states": torch.zeros(1, 3, 8)}
    method = Method(Method.Config(students=2, adversarial=0.0), path, (1,), uncond=uncond)
    text = torch.randn(64, 3, 8) + 5 * (torch.arange(64) % 2)[:, None, None]
    batch = {"data": {"cond": {"encoder_hidden_states": text}}}
    routers = [Router(2, 0, 8) for _ in range(2)]
    roles = Roles(student=routers[0], fake=routers[1])
    method._fit(roles, batch, Rng(0))
    route = routers[0](text)
    assert torch.equal(route, routers[1](text)) and len(set(route.tolist())) == 2
    assert len({(int(k), i % 2) for i, k in enumerate(route)}) == 2
    again = Method(Method.Config(students=2, adversarial=0.0), path, (1,), uncond=uncond)
    before = routers[0].centroids.clone()
    again._fit(roles, {"data": {"cond": {"encoder_hidden_states": text + 9}}}, Rng(0))
    assert torch.equal(before, routers[0].centroids), "a resumed run keeps its split"
    with pytest.raises(ValueError, match="split by one process"):
        fresh = Roles(student=Router(2, 0, 8))
        Method(Method.Config(students=2), path, (1,), uncond=uncond)._fit(
            fresh, batch, Rng(0, world=2)
        )


@pytest.mark.parametrize("classes", [4, 10, 1000])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_partition_covers_every_class_once_in_equal_parts(classes, count):
    routes = partition((), count, classes)
    sizes = [routes.count(k) for k in range(count)]
    assert len(routes) == classes and max(sizes) - min(sizes) <= 1
    assert routes == sorted(routes), "consecutive classes"


@pytest.mark.parametrize(
    "config, sentence",
    [
        ({"routes": (0, 0, 1), "students": 2}, "routes leave class 3 out"),
        ({"routes": (0, 0, 1, 1, 1), "students": 2}, "name 5 classes, and there are 4"),
        ({"routes": (0, 0, 1, 2), "students": 2}, "name student 2; 2 students are 0 to 1"),
        ({"routes": (0, 0, 0, 0), "students": 2}, "give student 1 no class"),
        ({"students": 5}, "5 students for 4 classes"),
        ({"students": 0}, "students is 0"),
        ({"inner": "msd"}, "cannot be its own inner method"),
        ({"inner": "dmd3"}, "no method is called 'dmd3'"),
        ({"inner": "flow_matching"}, "no teacher to distil"),
    ],
)
def test_what_cannot_be_is_one_sentence(config, sentence, path):
    with pytest.raises(ValueError, match=sentence):
        Method(Method.Config(**config), path, (1,), uncond={"label": torch.tensor([4])})


def test_data_without_conditions_cannot_be_routed(path):
    with pytest.raises(ValueError, match="neither classes nor prompts"):
        Method(Method.Config(), path, (1,), uncond={})
    with pytest.raises(ValueError, match="no classes to be routed by"):
        Method(Method.Config(), path, (1,), uncond={"label": torch.tensor([0])})
