"""Several networks behind a router: rows in their places, saved and opened, traced and judged."""

import copy
import json

import pytest
import torch

from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.denoisers.diffusers import as_denoiser
from genkit.hub import Pipeline, make_scheduler, save_pipeline
from genkit.lora import adapted, has_adapters, merged
from genkit.networks.head import FeatureHead
from genkit.networks.mlp import MLPDenoiser
from genkit.networks.routed import RoutedHead, RoutedNetwork, Router, routed
from genkit.paths import RectifiedFlow
from genkit.sampling import Sampler
from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline
from tests.denoisers import tiny_families as tiny


def label_router(table=(0, 1, 1, 0, 2, 2, 0, 1, 2, 0, 0)):
    router = Router(3, len(table), 0)
    router.table.copy_(torch.tensor(table))
    return router


def several(router, denoiser=None):
    """A routed denoiser whose networks differ."""
    if denoiser is None:
        network = MLPDenoiser(width=16, depth=3)
        denoiser = NetworkDenoiser(
            network, network_call(network), RectifiedFlow(), "velocity", 1000.0
        )
    made = routed(copy.deepcopy(denoiser), router)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def test_each_row_goes_through_its_own_network():
    made, label = several(label_router()), torch.tensor([4, 0, 1, 9, 2, 5])
    x, t = torch.randn(6, 1, 8, 8), torch.rand(6)
    got = made.predict(x, t, {"label": label}, "x_0")
    for i, k in enumerate((2, 0, 1, 0, 1, 2)):
        own = made.one(k).predict(x[i : i + 1], t[i : i + 1], {"label": label[i : i + 1]}, "x_0")
        assert torch.allclose(got[i : i + 1], own, atol=1e-5), i
    got[:1].sum().backward()
    told = [next(each.parameters()).grad for each in made.network.networks]
    assert [bool(grad.any()) for grad in told] == [False, False, True]


def test_one_network_gives_its_own_bits():
    router = Router(1, 11, 0)
    made = several(router)
    x, t, cond = torch.randn(6, 1, 8, 8), torch.rand(6), {"label": torch.arange(6)}
    got, own = (each.predict(x, t, cond, "velocity") for each in (made, made.one(0)))
    assert torch.equal(got, own)


def test_features_are_each_network_s_own_and_each_has_its_head():
    made, names = several(label_router()), ("network.blocks.1",)
    x, t, cond = torch.randn(5, 1, 8, 8), torch.rand(5), {"label": torch.tensor([4, 0, 1, 9, 2])}
    value, features = made.trace(x, t, cond, "velocity", names)
    assert torch.allclose(value, made.predict(x, t, cond, "velocity"), atol=1e-5)
    assert features["route"].tolist() == [2, 0, 1, 0, 1]
    head = RoutedHead(FeatureHead({names[0]: 16}), 3)
    with torch.no_grad():
        for k, each in enumerate(head.heads):
            each.heads[0][3].bias.fill_(10.0 * k)
    logits = head(features)
    assert (logits[:, 0] / 10).round().tolist() == [2, 0, 1, 0, 1]
    plain = made.one(0).trace(x, t, cond, "velocity", names)[1]
    assert torch.equal(head(plain), head.heads[0](plain)), "one network's features, the first head"
    stopped, _ = made.trace(x, t, cond, "velocity", names, until=names[0])
    assert stopped is None


def test_prompts_go_to_the_nearest_centroid_and_strange_ones_to_the_largest():
    router = Router(3, 0, 4)
    centres = torch.eye(4)[:3] * 10
    points = torch.cat([centres[k] + 0.1 * torch.randn(n, 4) for k, n in ((0, 5), (1, 9), (2, 4))])
    assert router(points[:, None]).eq(0).all(), "before prompts are seen"
    router.fit(points[:, None])
    route = router(points[:, None])
    assert len({tuple(route[part].tolist()) for part in (slice(0, 5), slice(5, 14))}) == 2
    assert sorted(torch.bincount(route).tolist()) == [4, 5, 9]
    largest = route[5]
    far = torch.full((1, 1, 4), 100.0)
    assert router(far) == largest and router.fallback == largest
    alone = torch.cat([router(point[None, None]) for point in points])
    assert torch.equal(alone, route), "a route depends on no batch"
    with pytest.raises(ValueError, match="2 different prompts for 3 students"):
        Router(3, 0, 4).fit(torch.eye(4)[:2].repeat(4, 1)[:, None])


def test_class_conditional_pipelines_hold_several_networks(tmp_path):
    made = several(label_router())
    scheduler = make_scheduler(Sampler(2), made.path, made.kind, made.time_scale)
    pipeline = ClassConditionalImagePipeline(made.network, scheduler)
    save_pipeline(pipeline, tmp_path / "pipeline", {"steps": 2, "guidance": 1.0})
    config = json.loads((tmp_path / "pipeline" / "network" / "config.json").read_text())
    assert config["network_class"] == "genkit.networks.mlp:MLPDenoiser" and config["count"] == 3
    again = Pipeline.from_pretrained(tmp_path / "pipeline")
    assert type(again.network) is RoutedNetwork
    # Two rows or more for each: a matrix product with one row depends on where weights lie.
    noise = torch.randn(6, 1, 8, 8)
    ours, theirs = (
        each(class_labels=[0, 4, 1, 2, 5, 3], latents=noise, output_type="latent").images
        for each in (pipeline, again)
    )
    assert torch.equal(ours, theirs)
    alone = ClassConditionalImagePipeline(again.network.networks[2], scheduler)
    own = alone(
        class_labels=[4], latents=noise[1:2], num_inference_steps=2, output_type="latent"
    ).images
    assert torch.allclose(own, theirs[1:2], atol=1e-5)
    loaded = as_denoiser(again)
    assert loaded.latent == (1, 8, 8) and loaded.uncond["label"].tolist() == [10]


@pytest.mark.parametrize("name", ["sd-eps", "sd3"])
def test_stock_text_pipelines_hold_several_networks(name, tmp_path):
    from genkit.denoisers.families import rebuilt

    loaded = as_denoiser(tiny.build(tiny.TEXT[name]))
    text = loaded.family.encode(loaded.pipeline, ["a red dog", "two cats", "a house"])
    router = Router(2, 0, text["encoder_hidden_states"].shape[-1])
    router.fit(text["encoder_hidden_states"])
    made = several(router, loaded.denoiser)
    x, t = torch.randn(3, *loaded.latent), torch.full((3,), 0.5 * loaded.denoiser.path.t_max)
    route = router(text["encoder_hidden_states"])
    value = made.predict(x, t, text, "x_0")
    for i, k in enumerate(route.tolist()):
        cond = {each: rows[i : i + 1] for each, rows in text.items()}
        own = made.one(k).predict(x[i : i + 1], t[i : i + 1], cond, "x_0")
        assert torch.allclose(value[i : i + 1], own, atol=1e-4)
    scheduler = make_scheduler(Sampler(1), made.path, made.kind, made.time_scale)
    pipeline = rebuilt(loaded.pipeline, made.network, scheduler)
    save_pipeline(pipeline, tmp_path / "pipeline", {"steps": 1, "guidance": 1.0})
    again = Pipeline.from_pretrained(tmp_path / "pipeline")
    calls = {"guidance_scale": 1.0, "num_inference_steps": 1, "output_type": "latent"}
    made_by = [
        each(**loaded.family.arguments(text, None), latents=x, **calls).images
        for each in (pipeline, again)
    ]
    assert torch.allclose(*made_by, atol=1e-5)


def test_another_library_s_class_is_refused():
    with pytest.raises(ValueError, match="no network of genkit or diffusers"):
        RoutedNetwork("os:system", {}, count=1)


def test_adapters_are_trained_of_every_network():
    made = adapted(several(label_router()), 2)
    names = [name for name, each in made.named_parameters() if each.requires_grad]
    assert {name.split(".")[2] for name in names} == {"0", "1", "2"}
    assert has_adapters(made.network) and not has_adapters(merged(made.network))
