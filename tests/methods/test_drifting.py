"""Drifting: the field by its own pseudo-code and by hand, its symmetries, and what it leads to."""

import math

import pytest
import torch
from torch import nn

from genkit.denoisers.base import NetworkDenoiser
from genkit.methods import drifting
from genkit.methods.base import Moment, Roles
from genkit.methods.drifting import Method, field
from genkit.rng import Rng

PLAIN = {"feature": 0.0}


def plainly(x, real, rest, tau):
    """V at each x: alg. 2 of the paper, number by number."""
    points = [*real, *rest]
    k = [[math.exp(-math.dist(a, b) / tau) for b in points] for a in x]
    columns = [sum(row[j] for row in k) for j in range(len(points))]
    drifts = []
    for row in k:
        a = [v / math.sqrt(sum(row) * columns[j]) for j, v in enumerate(row)]
        plus, minus = a[: len(real)], a[len(real) :]
        drifts.append(
            [
                sum(w * sum(minus) * p[d] for w, p in zip(plus, real, strict=True))
                - sum(w * sum(plus) * p[d] for w, p in zip(minus, rest, strict=True))
                for d in range(len(x[0]))
            ]
        )
    return torch.tensor(drifts)


def drift(x, real, rest, tau, weight=None):
    x, real, rest = (torch.as_tensor(each, dtype=torch.float64)[None] for each in (x, real, rest))
    y = torch.cat([real, rest], 1)
    weight = torch.ones(x.shape[1], y.shape[1]) if weight is None else weight
    return field(torch.cdist(x, y) / tau, y, weight.double())[0]


def points(n, key, at=0.0):
    return (at + Rng(7, key).normal((n, 2), torch.float64)).tolist()


def test_golden_values():
    """One sample: the columns are 1 and V = sqrt(p+ p-) (y+ - y-), p the softmax of -|x - y|."""
    assert drift([[0.0]], [[1.0]], [[-1.0]], 1.0).item() == pytest.approx(1.0)
    p = 1 / (1 + math.exp(-1))
    expected = math.sqrt(p * (1 - p)) * 3
    assert drift([[0.0]], [[1.0]], [[-2.0]], 1.0).item() == pytest.approx(expected)
    assert expected == pytest.approx(1.330228, abs=1e-6)


def test_it_is_the_paper_s_pseudo_code():
    x, real, rest = points(4, "x"), points(4, "real", 1.0), points(6, "rest")
    for tau in (0.1, 1.0):
        assert torch.allclose(drift(x, real, rest, tau), plainly(x, real, rest, tau).double())


def test_it_is_antisymmetric_and_zero_where_the_distributions_agree():
    """eq. 3, and proposition 3.1."""
    x, real, rest = points(4, "x"), points(4, "real", 1.0), points(4, "rest")
    there, back = drift(x, real, rest, 0.5), drift(x, rest, real, 0.5)
    assert there.abs().max() > 0.1 and torch.allclose(there, -back)
    assert drift(x, real, real[::-1], 0.5).abs().max() < 1e-12


def test_a_weight_is_how_often_a_point_stands():
    """A.7: data that repel with weight 3 are three copies of each; weight 0 is none."""
    x, real, rest = points(4, "x"), points(4, "real", 1.0), points(3, "rest")
    weight = torch.ones(4, 7)
    weight[:, 5] = 3
    weight[:, 6] = 0
    got = drift(x, real, rest, 0.5, weight)
    assert torch.allclose(got, drift(x, real, [rest[0], rest[1], rest[1], rest[1]], 0.5))


def test_guidance_s_weights_are_the_paper_s(path):
    """gamma = N w / (N_neg - 1 + N w) of what repels is data, and alpha = 1 / (1 - gamma)."""
    for alpha in (1.0, 2.5):
        weight = Method(Method.Config(guidance=alpha, **PLAIN), path, (2,)).weight(4, 6)
        assert weight.shape == (4, 8 if alpha == 1 else 14)
        assert (weight[:, :4] == 1).all() and weight[0, 4:8].tolist() == [0, 1, 1, 1]
        gamma = weight[:, 8:].sum(1) / weight[:, 4:].sum(1)
        assert torch.allclose(1 / (1 - gamma), torch.full((4,), alpha))


def test_guidance_is_more_repulsion_by_all_data(path):
    """The field of one class, its own data and those of another one, by the points themselves."""
    method = Method(Method.Config(guidance=3.0, temperatures=(0.5,), **PLAIN), path, (2,))
    rng, rows = Rng(3), [torch.arange(4), torch.arange(4, 8)]
    made, real = rng.normal((8, 1, 2), torch.float64), rng.normal((8, 1, 2), torch.float64)
    weights, total = method.weight(4, 8), torch.zeros(8, 1, 2).double()
    pairs = [torch.cdist(made[r, 0], torch.cat([real[r, 0], made[r, 0], real[:, 0]])) for r in rows]
    mean = sum((d * weights).sum() for d in pairs) / (2 * weights.sum())
    for r in rows:
        rest = torch.cat([made[r, 0], real[:, 0]]).tolist()
        tau = 0.5 * float(mean)
        total[r, 0] = drift(made[r, 0].tolist(), real[r, 0].tolist(), rest, tau, weights)
    want = (total / total.square().mean().sqrt()).square().mean(-1)[:, 0]
    assert torch.allclose(method.drift(made, real, rows), want)


def test_the_loss_is_one_for_each_field_whatever_the_scale(path):
    """A.6: V over its own size, and f over the mean distance."""
    made, real = (Rng(3, key).normal((32, 2, 3)) for key in ("made", "real"))
    method = Method(Method.Config(temperatures=(0.2,)), path, (2,))
    rows = method.grouped({"label": torch.arange(32) % 4}, 32)
    for scale in (1.0, 100.0):
        loss = method.drift(scale * made, scale * (real + 2), rows)
        assert loss.mean().item() == pytest.approx(1, rel=1e-4)


def test_rows_of_one_group_have_equal_conditions(path):
    method = Method(Method.Config(), path, (2,))
    cond = {"label": torch.tensor([3, 1, 3, 1]), "text": torch.tensor([[0.0], [1], [0], [2]])}
    assert sorted(each.tolist() for each in method.grouped(cond, 4)) == [[0, 2], [1], [3]]
    assert [each.tolist() for each in method.grouped({}, 3)] == [[0, 1, 2]]


def test_learns_the_data_distribution(fit, learned, error, path):
    method = Method(Method.Config(**PLAIN), path, (1,))
    assert error(fit(method, learned(path, "consistency"), n=128, steps=200)) < 0.1


def test_the_broken_twin_fails(fit, learned, error, path, monkeypatch):
    """What attracts and what repels swapped."""
    right = drifting.field
    monkeypatch.setattr(drifting, "field", lambda *given: -right(*given))
    method = Method(Method.Config(**PLAIN), path, (1,))
    assert error(fit(method, learned(path, "consistency"), n=64, steps=60)) > 0.3


class Points(nn.Module):
    """Samples that are parameters, whatever the noise."""

    config = {}

    def __init__(self, n):
        super().__init__()
        self.x = nn.Parameter(1.5 * Rng(9).normal((n, 2)))


class Mixed(Method):
    """The broken twin: all rows are of one condition."""

    def grouped(self, cond, count):
        return super().grouped({}, count)


CENTRES = torch.tensor([[[-2.0, 0.0], [2.0, 0.0]], [[0.0, 2.0], [0.0, -2.0]]])


def drawn(n, step):
    """Two classes with two modes each, of shares 0.75 and 0.25."""
    rng = Rng(5, "mixture", step)
    label, second = torch.arange(n) % 2, (rng.uniform((n,)) < 0.25).long()
    return CENTRES[label, second] + 0.2 * rng.normal((n, 2)), {"label": label}


@pytest.mark.parametrize("kind, grouped", [(Method, True), (Mixed, False)])
def test_samples_drift_to_the_mixture_of_their_class(kind, grouped, path):
    """eq. 2, from one wide cloud: modes of shares 0.75 and 0.25, each class its own two."""

    def call(network, x, timestep, cond, s=None):
        return network.x

    student = NetworkDenoiser(Points(128), call, path, "x_0", 1000.0)
    method = kind(kind.Config(temperatures=(0.2, 1.0), **PLAIN), path, (2,))
    adam, moment = torch.optim.Adam(student.parameters()), Moment(method.stages()[0], 0, 1)
    for step in range(300):
        x_0, cond = drawn(128, step)
        adam.param_groups[0]["lr"] = 0.05 * (1 - step / 300)
        adam.zero_grad()
        batch = {"data": {"x_0": x_0, "cond": cond}}
        method.loss(Roles(student=student), batch, moment, Rng(1, step))["total"].backward()
        adam.step()
    label = torch.arange(128) % 2
    near, mode = torch.cdist(student.network.x.detach(), CENTRES.flatten(0, 1)).min(1)
    shares = [(mode[label == k] // 2 == k).float().mean().item() for k in (0, 1)]
    if not grouped:
        assert min(shares) < 0.8, "samples of a class go to the other's modes"
        return
    assert min(shares) > 0.95 and (near < 0.8).float().mean() > 0.8
    first = [(mode[label == k] == 2 * k).float().mean().item() for k in (0, 1)]
    assert first == pytest.approx([0.75, 0.75], abs=0.08)


@pytest.mark.parametrize(
    "config, sentence",
    [({"temperatures": ()}, "temperatures"), ({"guidance": 0.5}, "takes 1 .off. or more")],
)
def test_what_cannot_be_is_one_sentence(config, sentence, path):
    with pytest.raises(ValueError, match=sentence):
        Method(Method.Config(**config), path, (1,))


def test_conditions_that_never_repeat_are_refused(path):
    method = Method(Method.Config(), path, (1,))
    with pytest.raises(ValueError, match="no two of a batch's 4 conditions are equal"):
        method.grouped({"label": torch.arange(4)}, 4)


def test_blocks_with_several_tokens_give_their_mean_and_deviation_too(path):
    class Blocks(nn.Module):
        """A teacher's features, of one token and of four."""

        kind = "velocity"

        @property
        def unguided(self):
            return self

        def trace(self, x_t, t, cond, kind, names):
            assert names == ("one", "four") and t.tolist() == pytest.approx([0.3] * 5)
            return None, {"one": x_t[:, :1], "four": x_t.expand(5, 4, 3) * torch.arange(4)[:, None]}

    method = Method(Method.Config(features=("one", "four")), path, (1, 3))
    x_0 = torch.ones(5, 1, 3)
    one, four, mean, std = method._features(Roles(teacher=Blocks()), x_0, {}, Rng(0))
    assert one.shape == (5, 1, 3) and four.shape == (5, 4, 3)
    assert torch.allclose(mean, 1.5 * one) and torch.allclose(std, one.abs() * (5 / 3) ** 0.5)
