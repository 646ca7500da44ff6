"""What is refused of a saved folder, in one sentence, and what is opened all the same."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import genkit
from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

SAVED = Path(__file__).parent / "data" / "saved_pipelines"


@pytest.fixture
def folder(tmp_path):
    """A copy of a saved pipeline, to be damaged."""
    return Path(shutil.copytree(SAVED / "consistency", tmp_path / "saved"))


def refuse(folder, message):
    with pytest.raises(ValueError, match=message) as caught:
        genkit.Pipeline.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def edit(folder, change, file="model_index.json"):
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))


WEIGHTS = "network/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("size", [3, 40, -1])
def test_truncated_weights(folder, size):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:size])
    refuse(folder, "diffusion_pytorch_model.safetensors is truncated or damaged")


def test_pickled_weights(folder):
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(state, folder / "network" / "diffusion_pytorch_model.bin")
    refuse(folder, "as a pickle .diffusion_pytorch_model.bin.")
    with pytest.raises(ValueError, match="safetensors only"):
        genkit.Pipeline.from_pretrained(SAVED / "stock", use_safetensors=False)


def test_missing_weights(folder):
    (folder / WEIGHTS).unlink()
    refuse(folder, "its weights .safetensors. are missing")


def test_incomplete_weights(folder):
    """diffusers would fill the missing tensor at random and warn."""
    state = load_file(folder / WEIGHTS)
    del state["enter.weight"]
    save_file(state, folder / WEIGHTS)
    refuse(folder, "lacks 1 of its weights, enter.weight among them")


def test_weights_of_another_shape(folder):
    save_file(load_file(folder / WEIGHTS) | {"enter.weight": torch.zeros(3, 3)}, folder / WEIGHTS)
    refuse(folder, "cannot be opened: .*enter.weight")


@pytest.mark.parametrize("part", ["network", "scheduler"])
def test_missing_component(folder, part):
    shutil.rmtree(folder / part)
    refuse(folder, f"is incomplete: its {part} is missing")


@pytest.mark.parametrize("file", ["network/config.json", "scheduler/scheduler_config.json"])
def test_damaged_config(folder, file):
    (folder / file).write_text("{")
    refuse(folder, "cannot be opened")
    (folder / file).unlink()
    (folder / file).with_suffix(".txt").write_text("")
    refuse(folder, "cannot be opened")


def test_scheduler_of_an_unknown_path(folder):
    edit(folder, lambda c: c.update(path={"name": "flow"}), "scheduler/scheduler_config.json")
    refuse(folder, "unknown path 'flow'")
    edit(folder, lambda c: c.pop("path"), "scheduler/scheduler_config.json")
    refuse(folder, "cannot be opened: .*'path'")


def test_no_index(tmp_path):
    refuse(tmp_path, "holds no pipeline .no model_index.json.")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    refuse(tmp_path, f"its pipeline is {tmp_path}/pipeline")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"_class_name": ["pipeline", "X"]}'])
def test_damaged_index(folder, text):
    (folder / "model_index.json").write_text(text)
    refuse(folder, "is not JSON|names no pipeline class")


@pytest.mark.parametrize("name", ["NoSuchPipeline", "AutoencoderKL", "os"])
@pytest.mark.parametrize("module", [None, "os", "genkit_pipelines.image.nothing"])
def test_unknown_pipeline_class(folder, name, module):
    edit(folder, lambda i: i.update(_class_name=name, _genkit={"class": module}))
    refuse(folder, f"pipeline class '{name}' is known neither to genkit nor to diffusers")


@pytest.mark.parametrize("version", [2, "2"])
def test_newer_format(folder, version):
    edit(folder, lambda i: i["_genkit"].update(format=version))
    refuse(folder, "saved by a newer genkit .format 2, this one reads 1.")


@pytest.mark.parametrize(
    "component, message",
    [
        (["os", "system"], "names the library 'os'"),
        (["this_is.not_ours", "X"], "names the library 'this_is.not_ours'"),
        (["genkit.networks.nothing", "X"], "module 'genkit.networks.nothing', which is not here"),
        (["genkit.networks.mlp", "Nothing"], "class 'Nothing', which genkit.networks.mlp does not"),
        (["diffusers", "Nothing"], "class 'Nothing', which diffusers does not"),
    ],
)
def test_unknown_component(folder, component, message):
    edit(folder, lambda i: i.update(network=component))
    refuse(folder, message)


def test_class_is_found_without_the_saved_module(folder):
    edit(folder, lambda i: i.pop("_genkit"))
    pipe = genkit.Pipeline.from_pretrained(folder)
    assert isinstance(pipe, ClassConditionalImagePipeline)
    assert pipe.trained_steps(None) == 2, "the scheduler holds it too"


def test_stock_pipelines_open_too(tmp_path):
    """Any pipeline of diffusers' own, here DDPM's, is dispatched to its class."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=4,
        in_channels=1,
        out_channels=1,
        block_out_channels=(4,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=2,
        layers_per_block=1,
        add_attention=False,
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    assert isinstance(genkit.Pipeline.from_pretrained(tmp_path / "ddpm"), DDPMPipeline)
