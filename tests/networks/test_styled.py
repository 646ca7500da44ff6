"""Style vectors: where they enter, what begins them, and which styles there are."""

import pytest
import torch

from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.denoisers.diffusers import as_denoiser
from genkit.hub import Pipeline, make_scheduler, save_pipeline
from genkit.lora import adapted, merged
from genkit.networks.mlp import MLPDenoiser
from genkit.networks.styled import StyledNetwork, mixed, styled
from genkit.paths import RectifiedFlow
from genkit.sampling import Sampler
from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline
from genkit_pipelines.image.text_to_image import TextToImagePipeline
from tests.denoisers import tiny_families as tiny


def mlp():
    torch.manual_seed(0)
    network = MLPDenoiser(width=16, depth=2)
    for begins_at_zero in (network.leave, network.blocks[0].modulation):
        torch.nn.init.normal_(begins_at_zero.weight, std=0.1)
    return NetworkDenoiser(network, network_call(network), RectifiedFlow(), "velocity", 1000.0)


def differing(denoiser, styles=3):
    made = styled(denoiser, styles)
    torch.nn.init.normal_(made.network.style.leave.weight, std=0.3)
    return made


X, T = torch.randn(4, 1, 8, 8), torch.rand(4)
COND = {"label": torch.arange(4)}


def test_every_style_begins_as_the_network():
    plain = mlp()
    before = plain.predict(X, T, COND, "x_0")
    made = styled(plain, 3)
    for style in range(3):
        told = {**COND, "style": torch.full((4,), style)}
        assert torch.equal(made.predict(X, T, told, "x_0"), before)
    assert styled(made, 3).network is made.network
    with pytest.raises(ValueError, match="it has 3 styles, not 2"):
        styled(made, 2)


def test_a_number_is_its_weights_and_none_is_the_first():
    made = differing(mlp())

    def say(style):
        return made.predict(X, T, COND if style is None else {**COND, "style": style}, "x_0")

    numbers = torch.tensor([2, 0, 1, 2])
    by_weights = torch.nn.functional.one_hot(numbers, 3).float()
    assert torch.allclose(say(numbers), say(by_weights), atol=1e-5)
    assert torch.allclose(say(None), say(torch.zeros(4).long()), atol=1e-5)
    assert not torch.allclose(say(numbers), say(None))
    once, each = (say(mixed([0.2, 0.3, 0.5], 3).expand(n, 3)) for n in (1, 4))
    assert torch.allclose(once, each, atol=1e-5)


@pytest.mark.parametrize("name", tiny.TEXT)
def test_the_families_have_a_place_for_a_style(name):
    loaded = as_denoiser(tiny.build(tiny.TEXT[name]))
    cond = loaded.family.encode(loaded.pipeline, ["a red dog", "two cats"])
    x, t = torch.randn(2, *loaded.latent), torch.full((2,), 0.5 * loaded.denoiser.path.t_max)
    plain = loaded.denoiser.predict(x, t, cond, "x_0")
    made = differing(loaded.denoiser, 2)
    one, two = (made.predict(x, t, {**cond, "style": torch.tensor([i, 0])}, "x_0") for i in (0, 1))
    assert torch.equal(one[1], two[1]) and not torch.allclose(one[0], two[0])
    assert one.shape == plain.shape


@pytest.mark.parametrize(
    "style, sentence",
    [
        (3, "style 3 was not trained; give 0 to 2"),
        (-1, "style -1 was not trained"),
        ([0.5, 0.5], "2 weights; give one for each of 3 styles"),
        ([0.5, 0.6, 0.5], "are no mixture"),
        ([1.5, -0.5, 0.0], "are no mixture"),
    ],
)
def test_styles_outside_the_trained_set_are_one_sentence(style, sentence):
    with pytest.raises(ValueError, match=sentence):
        mixed(style, 3)


def pipeline_of(made):
    scheduler = make_scheduler(Sampler(2), made.path, made.kind, made.time_scale)
    pipeline = ClassConditionalImagePipeline(made.network, scheduler)
    pipeline.register_to_config(_genkit={"steps": 2})
    return pipeline


def test_a_saved_pipeline_is_asked_for_a_style(tmp_path):
    made = differing(mlp())
    pipeline = pipeline_of(made)
    save_pipeline(pipeline, tmp_path / "pipeline", {"steps": 2, "guidance": 1.0})
    again = Pipeline.from_pretrained(tmp_path / "pipeline")
    assert type(again.network) is StyledNetwork

    def draw(who, **asked):
        return who(class_labels=[0, 1, 2, 3], latents=X, output_type="latent", **asked).images

    assert torch.equal(draw(pipeline, style=1), draw(again, style=1))
    assert torch.equal(draw(again), draw(again, style=0))
    assert torch.allclose(draw(again, style=[0.0, 0.0, 1.0]), draw(again, style=2), atol=1e-5)
    assert not torch.allclose(draw(again, style=1), draw(again, style=2))
    guided = draw(again, style=1, guidance_scale=2.0)
    assert not torch.allclose(guided, draw(again, style=0, guidance_scale=2.0))
    with pytest.raises(ValueError, match="style 5 was not trained"):
        draw(again, style=5)
    with pytest.raises(ValueError, match="this pipeline has no styles"):
        draw(pipeline_of(mlp()), style=0)


def test_text_pipelines_are_asked_for_a_style():
    teacher = Pipeline.from_pretrained("emoji-teacher")
    loaded = as_denoiser(teacher)
    made = differing(loaded.denoiser, 2)
    parts = {name: teacher.components[name] for name in ("tokenizer", "text_encoder", "scheduler")}
    pipeline = TextToImagePipeline(network=made.network, **parts)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, *loaded.latent)
    drawn = [
        pipeline(
            "a cat", latents=noise, num_inference_steps=1, output_type="latent", style=style
        ).images
        for style in (0, 1, [0.5, 0.5])
    ]
    assert not torch.allclose(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2]) and not torch.allclose(drawn[1], drawn[2])


def test_adapters_leave_the_styles_to_train_whole():
    made = adapted(styled(mlp(), 2), 2)
    names = [name for name, each in made.named_parameters() if each.requires_grad]
    whole = [name for name in names if "lora_" not in name]
    assert whole and all(name.startswith("network.style.") for name in whole)
    assert len(whole) == 5 and len(names) > 5
    assert type(merged(made.network)) is StyledNetwork
