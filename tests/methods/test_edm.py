"""EDM: the posterior is learned, the weight evens out what a bare network is asked for, and the
preconditioning leaves with the pipeline."""

import math

import pytest
import torch

from genkit import hub
from genkit.denoisers.analytic import Gaussian
from genkit.denoisers.base import Guided, NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.denoisers.diffusers import load_denoiser
from genkit.denoisers.preconditioned import EDMPreconditioned
from genkit.methods.base import Roles
from genkit.methods.edm import Method
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import EDM
from genkit.rng import Rng, sample_generators, sample_noise
from genkit.sampling import Sampler

COND = {"label": torch.tensor([1, 2])}


class Doubled(EDM):
    """The broken twin: twice the noise that the network is told of."""

    def sigma(self, t):
        return 2 * t


@pytest.mark.parametrize("broken", [False, True])
def test_learns_the_data_distribution(fit, learned, error, broken):
    method = Method(Method.Config(drop=0.0), Doubled() if broken else EDM(), (1,))
    student = fit(method, learned(EDM(), "posterior"))
    assert (error(student) < 0.03) is not broken


@pytest.mark.parametrize("dimensions", [None, 4.0])
def test_heavier_noise_has_the_posterior_of_its_own_kernel(dimensions):
    """Card 4: of K data, D = softmax(-(N + D) / 2 log(|x - y|^2 + r^2)) y; the loss is least there,
    and more at the posterior of the other noise."""
    path = EDM(dimensions=dimensions)
    method = Method(Method.Config(drop=0.0, time_mean=0.0, time_std=0.0), path, (2,))
    data = torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).double()
    x_0 = data.repeat(20_000, 1)

    def posterior(d):
        def call(network, x, sigma, cond, s):
            far = (x[:, None] - data).square().sum(-1)
            radius = sigma[:, None] ** 2
            heavy = -(2 + (d or 0)) / 2 * torch.log(far + radius * (d or 0))
            logits = -far / (2 * radius) if d is None else heavy
            return torch.softmax(logits, -1) @ data

        return NetworkDenoiser(torch.nn.Identity(), call, path, "x_0")

    losses = {
        d: method.loss(
            Roles(student=posterior(d)), {"data": {"x_0": x_0, "cond": {}}}, None, Rng(0)
        )
        for d in (None, 4.0)
    }
    own, other = losses[dimensions]["total"], losses[None if dimensions else 4.0]["total"]
    assert own < 0.99 * other


@pytest.mark.parametrize("mean", [-4.0, -1.2, 0.0, 2.0])
def test_a_bare_network_of_zero_has_the_loss_one_at_every_noise(mean):
    path = EDM()
    bare = NetworkDenoiser(torch.nn.Identity(), lambda net, x, *_: 0 * x, path, "x_0")
    method = Method(Method.Config(drop=0.0, time_mean=mean, time_std=0.0), path, (4,))
    data = {"data": {"x_0": 0.5 * Rng(1).normal((20_000, 4)), "cond": {}}}
    student = EDMPreconditioned(bare, path, 0.5)
    loss = method.loss(Roles(student=student), data, None, Rng(0))["total"]
    assert loss.item() == pytest.approx(1, abs=0.02)


def fresh(**config):
    network = MLPDenoiser(width=16, depth=2)
    for begins_at_zero in (network.leave, network.blocks[0].modulation):
        torch.nn.init.normal_(begins_at_zero.weight, std=0.1)
    bare = NetworkDenoiser(network, network_call(network), EDM(), "velocity", 1000.0)
    return Method.fresh(Method.Config(**config), bare)


def scheduler_of(denoiser, sampler):
    return hub.make_scheduler(
        sampler, denoiser.path, denoiser.kind, denoiser.time_scale, denoiser.sigma_data
    )


@pytest.mark.parametrize(
    "sampler", [Sampler(4, order=2), Sampler(1), Sampler(3, stochastic=True)], ids=str
)
def test_the_scheduler_does_what_the_denoiser_does(sampler):
    """Sampling the bare network by its scheduler is sampling the whole as any x_0-prediction."""
    denoiser = fresh()
    assert denoiser.kind == "x_0" and denoiser.path.name == "edm"
    noise = sample_noise((1, 8, 8), sample_generators(0, 2))

    def call(network, x, timestep, cond, s):
        return denoiser.predict(x, timestep, cond, "x_0")

    whole = NetworkDenoiser(torch.nn.Identity(), call, denoiser.path, "x_0")
    with torch.no_grad():
        got, want = (
            each.sample(
                noise, COND, scheduler_of(each, sampler), sampler.steps, sample_generators(1, 2)
            )
            for each in (denoiser, whole)
        )
        assert torch.allclose(got, want, atol=1e-4), (got - want).abs().max()
        unscaled = denoiser.sample(
            noise, COND, scheduler_of(whole, sampler), sampler.steps, sample_generators(1, 2)
        )
    assert not torch.allclose(unscaled, want, atol=0.1), (
        "twin: a scheduler that knows nothing of it"
    )


def test_guidance_and_simulation_go_through_it():
    denoiser, sampler = fresh(), Sampler(2)
    scheduler, none = scheduler_of(denoiser, sampler), {"label": torch.tensor([10])}
    noise = sample_noise((1, 8, 8), sample_generators(0, 2))
    guided = Guided(denoiser, 1.0, none)
    with torch.no_grad():
        plain = denoiser.sample(noise, COND, scheduler, 2)
        assert torch.allclose(guided.sample(noise, COND, scheduler, 2), plain, atol=1e-5)
    start = torch.full((2,), denoiser.path.t_max)
    for each in (denoiser, guided):
        got = each.simulate(noise, COND, scheduler, sampler, 0)
        want = each.predict(denoiser.path.start(noise), start, COND, "x_0")
        assert torch.allclose(got, want, atol=1e-4)


def test_it_leaves_with_the_pipeline_and_comes_back_as_a_teacher(tmp_path):
    from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

    denoiser, sampler = fresh(sigma_data=0.7, dimensions=64.0), Sampler(3)
    scheduler = scheduler_of(denoiser, sampler)
    pipeline = ClassConditionalImagePipeline(denoiser.network, scheduler)
    hub.save_pipeline(pipeline, tmp_path / "pipeline", {"steps": 3, "guidance": 1.0})
    opened = load_denoiser(tmp_path / "pipeline")
    again = opened.denoiser
    assert again.sigma_data == 0.7 and again.path.config() == denoiser.path.config()
    x, t = 3 * torch.randn(2, 1, 8, 8), torch.tensor([0.1, 3.0])
    assert torch.equal(again.predict(x, t, COND, "x_0"), denoiser.predict(x, t, COND, "x_0"))
    with torch.no_grad():
        noise = denoiser.path.prior(sample_noise((1, 8, 8), sample_generators(0, 2)))
        want = denoiser.sample(noise, COND, scheduler, 3)
    generators = sample_generators(0, 2)
    got = opened.pipeline([1, 2], generator=generators, output_type="latent").images
    assert torch.equal(got, want)


def test_times_are_log_normal():
    method = Method(Method.Config(), EDM(), (1,))
    seen = []

    class Watched(Gaussian):
        def raw(self, x_t, timestep, cond, s=None):
            seen.append(timestep)
            return super().raw(x_t, timestep, cond)

    data = {"data": {"x_0": torch.zeros(20_000, 1), "cond": {}}}
    method.loss(Roles(student=Watched(EDM(), 0.0, 0.5)), data, None, Rng(0))
    assert seen[0].log().mean().item() == pytest.approx(-1.2, abs=0.03)
    assert seen[0].log().std().item() == pytest.approx(1.2, abs=0.03)
    assert method.weight(torch.tensor([0.5])).item() == pytest.approx(0.5 / 0.0625)
    assert math.isclose(float(method.path.t_max), 80.0)


@pytest.mark.parametrize("config", [{"sigma_data": 0.0}, {"sigma_min": 0.0}, {"dimensions": -1.0}])
def test_what_cannot_be_is_refused(config):
    with pytest.raises(ValueError, match=next(iter(config))):
        method = Method(Method.Config(**config), EDM(), (1,))
        method.fresh(method.config, fresh().inner)
