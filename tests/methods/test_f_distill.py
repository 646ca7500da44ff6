"""f-distill on a Gaussian with the exact ratio, and its bins of noise levels (card 9)."""

import numpy as np
import pytest
import torch
from torch import nn

from genkit.denoisers.analytic import Gaussian
from genkit.hub import make_scheduler
from genkit.methods import dmd2
from genkit.methods.base import Moment, Roles
from genkit.methods.f_distill import Method
from genkit.paths import EDM, RectifiedFlow
from genkit.rng import Rng

SETTINGS = {"warmup_share": 0.0, "adversarial": 1e-6}


class Exact(Method):
    """The head that cannot be better: log q / p of the teacher's and the fake's Gaussians."""

    target = (1.3, 0.5)
    sign = 1.0

    def _logits(self, roles, x_t, t, cond):
        fake = roles["fake"]
        q, p = Gaussian(self.path, *self.target), Gaussian(self.path, fake.mean, fake.std)
        logits = (q.log_density(x_t, t) - p.log_density(x_t, t))[:, None]
        return self.sign * logits, fake.predict(x_t, t, cond, "velocity")


class Swapped(Exact):
    """The broken twin: generated samples are the positive class."""

    sign = -1.0


def slope(cls, learned, **config):
    """d loss / d mean over d loss / d std at card 9's point, in quadrature."""
    a, b, m, c, s = 0.2, 0.6, 0.7, 0.8, 0.9
    path = EDM()
    free = {"ratio_memory": 1.0, "ratio_low": 1e-9, "ratio_high": 1e9}
    method = cls(cls.Config(**free, **config, **SETTINGS), path, (1,))
    method.target = (m, c)
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(48))
    z, eps = (x.reshape(-1, 1) for x in torch.meshgrid(nodes, nodes, indexing="ij"))
    probability = torch.outer(weights, weights).flatten()
    mean, std = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (a, b))
    x_0, t = mean + std * z, torch.full((len(z),), s, dtype=torch.float64)
    x_t = (x_0 + s * eps).detach()
    roles = Roles(teacher=Gaussian(path, m, c), fake=learned(path, "posterior", a, b))
    loss = method._matching(roles, x_0, x_t, t, {}, None)
    d_mean, d_std = torch.autograd.grad((probability * loss).sum(), (mean, std))
    assert d_mean < 0, "the student's mean is too small"
    return float(d_mean / d_std)


GOLDEN = {
    "reverse_kl": 0.344828 / 0.099027,
    "js": 0.179757 / 0.068314,
    "forward_kl": 0.42735 / 0.232303,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_gradient_has_the_golden_direction(learned, name):
    assert slope(Exact, learned, divergence=name) == pytest.approx(GOLDEN[name], rel=3e-5)


@pytest.mark.parametrize("name", ["js", "forward_kl"])
def test_the_broken_twin_fails(learned, name):
    assert slope(Swapped, learned, divergence=name) != pytest.approx(GOLDEN[name], rel=0.05)


@pytest.mark.parametrize("name", ["js", "forward_kl"])
def test_matches_the_teacher_s_distribution(fit, learned, error, path, name):
    method = Exact(Exact.Config(divergence=name, fake_turns=3, **SETTINGS), path, (1,))
    student, others = learned(path, "consistency", 0.0, 1.0), {"head": nn.Linear(1, 1)}
    others["fake"] = learned(path, "posterior", 0.0, 1.0)
    assert error(fit(method, student, others, steps=300)) < 0.03


class Dmd2(dmd2.Method):
    """DMD2 with the same head, for its GAN term."""

    target, sign, _logits = Exact.target, Exact.sign, Exact._logits


def test_reverse_kl_is_dmd2(learned, path, teacher):
    losses = []
    for cls, settings in ((Exact, {"divergence": "reverse_kl"}), (Dmd2, {})):
        method = cls(cls.Config(**settings, **SETTINGS), path, (1,))
        method.scheduler = make_scheduler(method.sampler(), path, "x_0", 1000.0)
        roles = Roles(teacher=teacher, student=learned(path, "consistency"))
        roles["fake"], roles.turn = learned(path, "posterior", 0.2, 0.9), ("student",)
        data = {"data": {"x_0": torch.zeros(64, 1).double(), "cond": {}}}
        moment = Moment(method.stages()[0], 0, 1)
        losses.append(method.loss(roles, data, moment, Rng(0))["matching"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_fake_score_is_the_fake_s_whoever_s_features_the_head_reads(path, learned):
    """With the teacher's features, the forward that gives the logits is the teacher's."""
    roles = Roles(teacher=learned(path, "posterior", 1.3, 0.5), fake=learned(path, "posterior"))
    x_t, t = torch.ones(4, 1).double(), torch.full((4,), 0.5).double()
    want = roles["fake"].predict(x_t, t, {}, "x_0")
    for critic in ("fake", "teacher"):
        method = Method(Method.Config(critic=critic), path, (1,))
        velocity = roles[critic].predict(x_t, t, {}, "velocity")
        method._logits = lambda *_, velocity=velocity: (torch.zeros(4, 1), velocity)
        _, fake = method._logits_and_fake(roles, x_t, t, {})
        assert torch.allclose(fake, want)


def test_weights_average_to_one_and_favour_likely_samples(path):
    method = Method(Method.Config(), path, (1,))
    logits, t = torch.linspace(-30, 30, 64)[:, None], torch.full((64,), 0.5)
    weight = method.weight(logits, t)
    assert weight.mean().item() == pytest.approx(1) and weight.isfinite().all()
    assert (weight.diff() >= 0).all() and weight[-1] > 2 * weight[0]


@pytest.mark.parametrize("path", [RectifiedFlow(), EDM()])
def test_ratios_are_normalised_in_bins_of_the_clock(path):
    """A head that is off by a factor at each noise level weighs as one that is not."""
    u = (torch.arange(40) + 0.5).double() / 40
    t, logits = path.time(u), torch.cos(7 * u)[:, None]
    off = torch.linspace(-0.4, 0.4, 10).double().repeat_interleave(4)[:, None]
    weights = []
    for given in (logits, logits + off):
        method = Method(Method.Config(ratio_memory=0.0), path, (1,))
        weights.append(method.weight(given, t))
    assert torch.allclose(*weights, atol=1e-12)
    assert method.mean_ratio.min() < 0.8 and method.mean_ratio.unique().numel() == 10


def test_bins_remember_over_turns_and_over_a_resume(path):
    method = Method(Method.Config(bins=2, ratio_memory=0.5), path, (1,))
    method.weight(torch.full((8, 1), 3.0).log(), torch.full((8,), 0.2))
    assert method.mean_ratio.tolist() == pytest.approx([2, 1]), "an empty bin keeps its own"
    again = Method(Method.Config(bins=2, ratio_memory=0.5), path, (1,))
    again.load_state_dict(method.state_dict())
    for each in (method, again):
        each.weight(torch.full((8, 1), 3.0).log(), torch.full((8,), 0.2))
        assert each.mean_ratio.tolist() == pytest.approx([2.5, 1])


@pytest.mark.parametrize(
    "config", [{"adversarial": 0.0}, {"divergence": "kl"}, {"bins": 0}], ids=str
)
def test_what_cannot_be_is_refused(path, config):
    with pytest.raises(ValueError, match=next(iter(config)) if "kl" not in str(config) else "js"):
        Method(Method.Config(**config), path, (1,))
