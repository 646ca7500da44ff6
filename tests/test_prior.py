"""PFGM++'s noise: its radii are the paper's, and it leaves with a pipeline (card 4)."""

import pytest
import torch
from scipy import stats

from genkit import hub
from genkit.methods.flow_matching import Method
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import EDM, RectifiedFlow, make_path
from genkit.paths.prior import heavy_tailed
from genkit.rng import Rng, sample_generators, sample_noise
from genkit.sampling import Sampler


def of_every_rank(n, count=4001):
    """`count` vectors of n elements whose radii are the quantiles of unit Gaussian noise."""
    ranks = (torch.arange(count).double() + 0.5) / count
    radius = torch.from_numpy(stats.chi2.ppf(ranks.numpy(), n)).sqrt()
    direction = Rng(0).normal((count, n), torch.float64)
    return ranks, radius[:, None] * direction / direction.norm(dim=1, keepdim=True)


def beta_radii(ranks, n, d):
    """R / sigma of equal ranks by the card's recipe: R = r sqrt(B / (1 - B)), r = sqrt(D)."""
    b = stats.beta.ppf(ranks.numpy(), n / 2, d / 2)
    return torch.from_numpy((d * b / (1 - b)) ** 0.5)


@pytest.mark.parametrize("n, d", [(1, 1), (4, 3), (64, 128), (3072, 128), (3072, 2048)])
def test_radii_have_the_beta_distribution(n, d):
    ranks, gaussian = of_every_rank(n, 501)
    moved = heavy_tailed(gaussian, d)
    assert torch.allclose(moved.norm(dim=1), beta_radii(ranks, n, d), rtol=1e-6)
    cosine = torch.nn.functional.cosine_similarity(moved, gaussian)
    assert torch.allclose(cosine, torch.ones(501).double()), "directions stay"


@pytest.mark.parametrize("d, mean", [(128, 128 / 126), (2048, 2048 / 2046), (8, 8 / 6)])
def test_the_mean_square_is_d_over_d_minus_two(d, mean):
    _, gaussian = of_every_rank(64)
    assert heavy_tailed(gaussian, d).square().mean().item() == pytest.approx(mean, rel=2e-3)


def test_one_element_is_student_s_t():
    z = torch.linspace(-6, 6, 41).double()[:, None]
    want = stats.t.ppf(stats.norm.cdf(-z.abs().numpy()), 5)
    assert torch.allclose(-heavy_tailed(z, 5).abs(), torch.from_numpy(want), rtol=1e-9)


def test_both_limits_of_d_are_kept():
    """Card 4: the release's clip gives .57 and 2.34 here."""
    _, gaussian = of_every_rank(3072, 101)
    median = heavy_tailed(gaussian, 1).norm(dim=1).median() / 3072**0.5
    assert median.item() == pytest.approx(1.47, abs=0.02)
    assert torch.allclose(heavy_tailed(gaussian, 2.0**24), gaussian, rtol=1e-3)


@pytest.mark.parametrize("path", [RectifiedFlow(5), EDM(dimensions=5)], ids=lambda p: p.name)
def test_a_path_draws_it_and_its_config_says_so(path):
    same = make_path(path.config())
    assert same.dimensions == 5 and same.config() == path.config()
    noise = same.noise((500, 2), Rng(0))
    assert torch.equal(noise, heavy_tailed(Rng(0).normal((500, 2)), 5))
    assert torch.equal(type(path)().noise((9, 2), Rng(0)), Rng(0).normal((9, 2)))
    assert "dimensions" not in type(path)().config()
    with pytest.raises(ValueError, match="dimensions is 0"):
        type(path)(dimensions=0)


@pytest.mark.parametrize("sampler", [Sampler(3), Sampler(1), Sampler(3, stochastic=True)])
def test_a_saved_pipeline_starts_from_it(tmp_path, sampler):
    from genkit.denoisers.base import NetworkDenoiser
    from genkit.denoisers.calls import network_call
    from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

    network = MLPDenoiser(width=16, depth=1)
    torch.nn.init.normal_(network.leave.weight, std=0.1)
    bare = NetworkDenoiser(network, network_call(network), RectifiedFlow(), "velocity", 1000.0)
    denoiser = Method.fresh(Method.Config(dimensions=2.0), bare)
    assert denoiser.path.dimensions == 2
    scheduler = hub.make_scheduler(sampler, denoiser.path, denoiser.kind, denoiser.time_scale)
    pipeline = ClassConditionalImagePipeline(network, scheduler)
    hub.save_pipeline(pipeline, tmp_path / "pipeline", {"steps": sampler.steps, "guidance": 1.0})
    opened = hub.Pipeline.from_pretrained(tmp_path / "pipeline")
    generators = sample_generators(0, 2)
    noise = denoiser.path.prior(sample_noise((1, 8, 8), generators))
    cond = {"label": torch.tensor([1, 2])}
    with torch.no_grad():
        want = denoiser.sample(noise, cond, scheduler, sampler.steps, generators)
    got = opened([1, 2], generator=sample_generators(0, 2), output_type="latent").images
    assert torch.equal(got, want)
    plain = denoiser.sample(
        sample_noise((1, 8, 8), sample_generators(0, 2)), cond, scheduler, sampler.steps
    )
    assert not torch.allclose(got, plain, atol=0.1), "the prior changes the samples"
