"""Adapters: what they train, and the two ways they leave, held to each other.

Tiny configs, random weights (tests/denoisers/tiny_families.py); adapters are filled with noise.
"""

import copy
import re

import pytest
import torch
from diffusers import DDPMScheduler
from peft import LoraConfig, PeftModel, inject_adapter_in_model, set_peft_model_state_dict
from torch import nn

from genkit import hub
from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.denoisers.diffusers import as_denoiser
from genkit.denoisers.families import rebuilt
from genkit.lora import adapted, adapter_state, has_adapters, linear_layers, merged, save_adapter
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import RectifiedFlow
from genkit.sampling import Sampler
from tests.denoisers import tiny_families as tiny

PROMPTS, RANK = ["a red dog", "two cats"], 2
LOADED = {name: tiny.TEXT[name] for name in ("sd-eps", "sd-v", "sd3")}
PIXARTS = {name: tiny.TEXT[name] for name in ("pixart-alpha", "pixart-sigma")}


def trained(loaded, seed=0):
    """The adapted network of a teacher, its adapters no longer zero."""
    network = adapted(loaded.denoiser, RANK).network
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    return network


def latents(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(i) for i in range(2)]
    family = as_denoiser(pipeline).family
    given = family.arguments(family.encode(pipeline, PROMPTS), None)
    call = {"guidance_scale": 1.0, "num_inference_steps": 2, "generator": seeds}
    return pipeline(**given, **call, output_type="latent").images


def student_scheduler(loaded):
    who = loaded.denoiser
    return hub.make_scheduler(Sampler(2), who.path, who.kind, who.time_scale)


def error(got, expected):
    return float((got - expected).abs().max() / expected.abs().max())


def mlp():
    torch.manual_seed(0)
    network = MLPDenoiser(sample_size=4, width=8, depth=2)
    return NetworkDenoiser(network, network_call(network), RectifiedFlow(), "velocity", 1000.0)


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(rank):
    with pytest.raises(ValueError, match=f"rank is {rank}; give at least 1"):
        adapted(mlp(), rank)


@pytest.mark.parametrize("builder", [*tiny.TEXT.values(), tiny.ddpm])
def test_attention_projections_alone_are_adapted(builder):
    network = as_denoiser(tiny.build(builder)).denoiser.network
    names = linear_layers(network)
    assert {"to_q", "to_k", "to_v"} < {name.split(".")[-1] for name in names}
    assert len(names) < sum(isinstance(each, nn.Linear) for each in network.modules())
    assert not [name for name in names if re.search(r"ff|proj_in|proj_out|time|adaln", name)]


def test_a_network_without_attention_is_adapted_everywhere():
    network = mlp().network
    assert len(linear_layers(network)) == sum(isinstance(m, nn.Linear) for m in network.modules())


@pytest.mark.parametrize("builder", [*tiny.TEXT.values(), tiny.ddpm, None])
def test_it_begins_as_the_teacher_and_trains_adapters_alone(builder):
    teacher = mlp() if builder is None else as_denoiser(tiny.build(builder)).denoiser
    before = copy.deepcopy(teacher.state_dict())
    student = adapted(teacher, RANK)
    trained = [name for name, each in student.named_parameters() if each.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert not has_adapters(teacher) and teacher.state_dict().keys() == before.keys()
    back = merged(student.network)
    assert not has_adapters(back) and type(back) is type(teacher.network)
    for name, value in teacher.network.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)


@pytest.mark.parametrize("builder", [*tiny.TEXT.values(), tiny.ddpm])
def test_merging_keeps_what_the_network_says(builder):
    loaded = as_denoiser(tiny.build(builder))
    network = trained(loaded)
    encode = loaded.family.encode
    cond = {} if encode is None else encode(loaded.pipeline, PROMPTS)
    x, t = torch.randn(2, *loaded.latent), torch.full((2,), 500.0)
    call = loaded.denoiser.call
    with torch.no_grad():
        apart, plain = call(network, x, t, cond), call(loaded.denoiser.network, x, t, cond)
        assert merged(network) is network
        assert error(call(network, x, t, cond), apart) < 1e-5
    assert error(plain, apart) > 1e-3


@pytest.mark.parametrize("name", LOADED)
def test_stock_load_lora_weights_is_the_merged_pipeline(name, tmp_path):
    loaded = as_denoiser(tiny.build(LOADED[name]))
    network, scheduler = trained(loaded), student_scheduler(loaded)
    student = rebuilt(loaded.pipeline, network, scheduler)
    out = save_adapter(student, network, tmp_path / "lora")
    whole = rebuilt(loaded.pipeline, merged(network), scheduler)
    teacher = tiny.build(LOADED[name])
    code = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)
    assert code is not None and "load_lora_weights" in code[1]
    exec(code[1].replace("this/folder", str(out)), {"pipeline": teacher})
    expected = latents(whole)
    assert error(latents(teacher), expected) <= 1e-5
    teacher.unload_lora_weights()
    assert error(latents(teacher), expected) > 1e-3


@pytest.mark.parametrize("name", PIXARTS)
def test_pixart_has_no_loader_and_leaves_for_peft(name, tmp_path):
    loaded = as_denoiser(tiny.build(PIXARTS[name]))
    network, scheduler = trained(loaded), student_scheduler(loaded)
    out = save_adapter(rebuilt(loaded.pipeline, network, scheduler), network, tmp_path / "lora")
    said = (out / "README.md").read_text()
    assert "diffusers has no loader" in said and "PeftModel" in said
    expected = latents(rebuilt(loaded.pipeline, merged(network), scheduler))
    teacher = tiny.build(PIXARTS[name])
    opened = PeftModel.from_pretrained(teacher.transformer, str(out))
    again = rebuilt(tiny.build(PIXARTS[name]), opened.merge_and_unload(), scheduler)
    assert error(latents(again), expected) <= 1e-5


def test_adapter_state_injects_into_a_bare_network():
    loaded = as_denoiser(tiny.build(tiny.pixart_alpha))
    network = trained(loaded)
    state, names = adapter_state(network), linear_layers(loaded.denoiser.network)
    assert state.keys() == {f"{name}.lora_{part}.weight" for name in names for part in "AB"}
    bare = tiny.build(tiny.pixart_alpha).transformer
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=names), bare)
    assert not set_peft_model_state_dict(bare, state).unexpected_keys
    pairs = zip(merged(bare).parameters(), merged(network).parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_pipeline_without_text_leaves_for_peft(tmp_path):
    loaded = as_denoiser(tiny.build(tiny.ddpm))
    network = trained(loaded)
    student = rebuilt(loaded.pipeline, network, DDPMScheduler())
    out = save_adapter(student, network, tmp_path / "lora")
    assert (out / "adapter_model.safetensors").exists() and (out / "adapter_config.json").exists()
    with pytest.raises(AssertionError, match="no adapters"):
        adapter_state(merged(network))
