"""Methods on sequences whose frames have their own noise levels: the AR(1) closed form.

x_i = rho x_{i-1} + sqrt(1 - rho^2) e; the network's one number is rho, so every loss has a known
place of rest, whether it noises frames independently, moves them along an ODE, or rolls out.
"""

import copy

import pytest
import torch

from genkit import api
from genkit.catalogue import methods
from genkit.denoisers.autoregressive import autoregressive
from genkit.hub import make_scheduler
from genkit.methods import consistency, dmd2, flow_matching
from genkit.methods.base import Moment, Roles, Stage
from genkit.networks.head import FeatureHead
from genkit.paths import RectifiedFlow
from genkit.rng import Rng
from genkit.terms import pseudo_huber_by_frame, squared

RHO, FRAMES = 0.8, 5


def data(n, seed=0):
    e = torch.randn(n, FRAMES, 1, 1, 1, generator=torch.Generator().manual_seed(seed)).double()
    frames = [e[:, 0]]
    for i in range(1, FRAMES):
        frames.append(RHO * frames[-1] + (1 - RHO**2) ** 0.5 * e[:, i])
    return {"x_0": torch.stack(frames, 1), "cond": {}}


def method_of(module, **config):
    method = module.Method(module.Method.Config(**config), RectifiedFlow(), (FRAMES, 1, 1, 1))
    method.levels = 2
    method.scheduler = make_scheduler(method.sampler(), method.path, "velocity", 1.0)
    return method


def slope(method, rho, stage, turn=("student",), student=None, n=20_000, share=0.9):
    """d loss / d rho of the role that trains, at rho."""
    names = ("student", "student.target", "fake")
    roles = Roles({name: autoregressive(method.path, rho) for name in names})
    roles["teacher"], roles.turn = autoregressive(method.path, RHO), turn
    roles["student"] = student or roles["student"]
    batch = {"data": data(n), "pairs": data(n) | {"eps": data(n, 1)["x_0"]}}
    loss = method.loss(roles, batch, Moment(stage, int(100 * share), 100), Rng(0))["total"]
    return torch.autograd.grad(loss, roles[turn[0]].network.rho)[0].item()


@pytest.mark.parametrize("forced", [0.0, 1.0])
def test_flow_matching_rests_at_the_truth_whatever_the_past(forced):
    method = method_of(flow_matching, drop=0.0, forced=forced)
    stage = method.stages()[0]
    there = slope(method, RHO, stage)
    assert slope(method, RHO - 0.1, stage) < -5 * abs(there)
    assert slope(method, RHO + 0.1, stage) > 5 * abs(there)


@pytest.mark.parametrize(
    ("module", "who", "settings"),
    [
        (flow_matching, "student", {}),
        (consistency, "student", {}),
        (dmd2, "teacher", {"adversarial": 0.0, "warmup_share": 0.0}),
    ],
)
def test_a_share_of_batches_is_of_first_frames_alone(module, who, settings):
    seen, method = [], method_of(module, alone=0.5, **settings)
    names = ("student", "student.target", "fake", "teacher")
    roles = Roles({name: autoregressive(method.path, RHO) for name in names})
    roles.turn, plain = ("student",), roles[who].predict
    roles[who].predict = lambda x, *rest: seen.append(x) or plain(x, *rest)
    for seed in range(20):
        moment = Moment(method.stages()[0], 0, 1)
        assert method.loss(roles, {"data": data(3)}, moment, Rng(seed))["total"].isfinite()
    shapes = [tuple(x.shape[:2]) for x in seen]
    assert set(shapes) == {(3, FRAMES), (3 * FRAMES, 1)}
    assert 5 <= shapes.count((3, FRAMES)) <= 15


@pytest.mark.parametrize("alone", [0.0, 1.0])
@pytest.mark.parametrize("module", [flow_matching, consistency])
def test_masked_frames_are_seen_and_not_learned(module, alone):
    """Another frame where the mask is 0 changes no loss of its own, only what later frames see."""
    method = method_of(module, alone=alone)
    names = ("student", "student.target", "teacher")
    roles = Roles({name: autoregressive(method.path, RHO - 0.1) for name in names})
    moment, losses = Moment(method.stages()[0], 0, 1), []
    for last in (0.0, 5.0):
        read = data(4) | {"mask": torch.ones(4, FRAMES)}
        read["x_0"][:, -1], read["mask"][:, -1] = last, 0
        losses.append(method.loss(roles, {"data": read}, moment, Rng(0))["total"].item())
    assert losses[0] == losses[1] != 0


def own_losses(turn, mask, level=0.0):
    """The loss of a turn of dmd2 whose real frames are `level` in the first row."""
    method = method_of(dmd2, warmup_share=0.0)
    torch.manual_seed(0)
    head = FeatureHead({"z": 2})
    fake = autoregressive(method.path, RHO)
    fake.trace = lambda x_t, t, cond, kind, names: (
        fake.predict(x_t, t, cond, kind),
        {"z": torch.cat([x_t, x_t**2], -1).flatten(2).float()},
    )
    student = autoregressive(method.path, RHO - 0.1)
    roles = Roles(student=student, fake=fake, head=head, teacher=autoregressive(method.path, RHO))
    roles.turn, read = turn, data(4)
    read["x_0"][0] = level
    if mask is not None:
        read["mask"] = mask
    losses = method.loss(roles, {"data": read}, Moment(method.stages()[0], 0, 1), Rng(0))
    return {name: value.item() for name, value in losses.items()}


def test_a_mask_of_frames_is_of_the_data_and_not_of_what_the_student_makes():
    """All its own frames are matched; a real sequence that is not learned is not judged either."""
    mask = torch.ones(4, FRAMES)
    mask[0, 0] = 0
    for turn in (("student",), ("fake", "head")):
        free, masked = own_losses(turn, None), own_losses(turn, mask)
        for name in ("matching", "adversarial", "fake_score"):
            assert free.get(name) == masked.get(name)
    critics = ("fake", "head")
    assert own_losses(critics, None)["head"] != own_losses(critics, None, 9.0)["head"]
    assert own_losses(critics, mask)["head"] == own_losses(critics, mask, 9.0)["head"]


def test_samples_without_frames_have_no_first_one():
    """Said before anything is trained: dmd2 would come to it after its warm-up."""
    with pytest.raises(ValueError, match="alone is for sequences"):
        api.prepare_teacher("digits", alone=0.5)
    with pytest.raises(ValueError, match="alone is for sequences"):
        api.prepare("digits-teacher", "dmd2", alone=0.5)
    with pytest.raises(ValueError, match="opening is for sequences"):
        api.prepare("digits-teacher", "dmd2", opening=4)


def test_levels_are_independent():
    method, seen = method_of(flow_matching, drop=0.0), []
    student = autoregressive(method.path, RHO)
    plain = student.predict
    student.predict = lambda x, t, *rest: seen.append(t) or plain(x, t, *rest)
    roles = Roles({"student": student})
    method.loss(roles, {"data": data(4000)}, Moment(Stage("train"), 0, 1), Rng(0))
    assert seen[0].shape == (4000, FRAMES)
    assert torch.corrcoef(seen[0].T).fill_diagonal_(0).abs().max() < 0.06


def flow_map_student(rho):
    """A student that gives the end of each frame's own ODE, given the past."""
    student = autoregressive(RectifiedFlow(), rho)
    network = student.network

    def velocity(prior, x_t, t):
        mean, var = prior
        shape = t.view(-1, *[1] * (x_t.ndim - 1))
        alpha, sigma = 1 - shape, shape
        end = mean + (x_t - alpha * mean) * (var / (alpha**2 * var + sigma**2)).sqrt()
        return (x_t - end) / sigma.clamp(min=1e-9)

    network._velocity = velocity
    return student


def consistency_loss(method, student):
    roles = Roles(teacher=autoregressive(method.path, RHO), student=student)
    roles["student.target"] = student
    batch = {"data": data(4000)}
    return method.loss(roles, batch, Moment(method.stages()[0], 99, 100), Rng(0))["total"].item()


def test_consistency_holds_for_the_exact_map_given_the_past():
    method = method_of(consistency, first_intervals=64, last_intervals=128)
    exact = consistency_loss(method, flow_map_student(RHO))
    assert exact < 1e-6
    assert consistency_loss(method, flow_map_student(RHO - 0.1)) > 20 * exact


def test_broken_twin_consistency_that_moves_the_past_too():
    """Without the clean past the exact map of a frame is no consistency function."""
    method = method_of(consistency, first_intervals=64, last_intervals=128)
    exact = flow_map_student(RHO)
    exact.given = lambda x_0, cond, eps: cond
    good = consistency_loss(method, flow_map_student(RHO))
    assert consistency_loss(method, exact) > 100 * good


def test_dmd2_rests_where_student_and_fake_are_the_teacher():
    """On the student's own roll-outs, whose past is what the scores are given."""
    method = method_of(dmd2, adversarial=0.0, warmup_share=0.0, steps=4)
    stage = method.stages()[0]
    rest, away = (slope(method, rho, stage, n=4000) for rho in (RHO, RHO - 0.2))
    assert abs(rest) < 1e-6 and away < -1e-3
    assert slope(method, RHO + 0.1, stage, n=4000) > 1e-3


def test_dmd2s_fake_learns_the_students_own_roll_outs():
    method = method_of(dmd2, adversarial=0.0, warmup_share=0.0)
    student = flow_map_student(0.5)
    at = {
        rho: slope(method, rho, method.stages()[0], ("fake",), student) for rho in (0.3, 0.5, 0.8)
    }
    assert at[0.3] < -0.01 and at[0.8] > 0.01 and abs(at[0.5]) < abs(at[0.3]) / 5


def test_the_regression_sees_the_past_of_its_pairs():
    """At pure noise the exact answer is rho x_{i-1}: less than the pairs' own deviation."""
    method = method_of(dmd2, adversarial=0.0)
    student = autoregressive(method.path, RHO)
    pairs = data(4000) | {"eps": data(4000, 1)["x_0"]}
    loss = method.one_step(student, pairs).mean().item()
    assert loss == pytest.approx((1 + 4 * (1 - RHO**2)) / 5, rel=0.05)
    student.given = lambda x_0, cond, eps: cond
    assert method.one_step(student, pairs).mean().item() == pytest.approx(1, rel=0.05)


def test_distances_by_frame():
    a, b = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    b[0, 1] = 2.0
    assert pseudo_huber_by_frame(a, b).tolist() == pytest.approx([(2 - 0.03 + 0.0002) / 3, 0], 1e-3)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pseudo_huber_by_frame(a, b, mask)[0] == pytest.approx((2 - 0.03) / 2, 1e-3)
    assert squared(a, b)[0] == pytest.approx(4 / 3)


def test_the_catalogue_says_which_methods_know_frames():
    able = {name for name, entry in methods().items() if entry.facts.get("framewise")}
    assert {"flow_matching", "consistency", "dmd2"} <= able
    assert not {"f_distill", "sid", "scm"} & able
    assert copy.deepcopy(autoregressive(RectifiedFlow(), RHO)).levels == 2
