"""Opening and saving pipelines: names, schedulers, atomic saves, and what is refused."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import genkit
from genkit import hub
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import EDM, RectifiedFlow, TrigFlow
from genkit.sampling import Sampler
from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

# Committed: random weights, a few kB, made once by hub.save_pipeline. Their module paths are what
# people's saved folders name, so these must open for ever.
SAVED = Path(__file__).parent / "data" / "saved_pipelines"
FLOW = RectifiedFlow()


def network():
    torch.manual_seed(0)
    return MLPDenoiser(sample_size=4, width=4, depth=1)


def pipeline(sampler=None, net=None):
    scheduler = hub.make_scheduler(sampler or Sampler(1), FLOW, "velocity", 1000.0)
    return ClassConditionalImagePipeline(net or network(), scheduler)


@pytest.fixture
def folder(tmp_path):
    """A copy of a saved pipeline, to be damaged."""
    return Path(shutil.copytree(SAVED / "consistency", tmp_path / "saved"))


# Row 0 of the first sample's picture, of class 0 with seed 0.
GOLDEN = {
    "consistency": [-0.8784546, -1.5183185, 0.0492310, 0.2338816],
    "flow": [-0.7649423, -1.2465034, -0.3594904, -0.3797199],
    "stock": [-0.7649426, -1.2465036, -0.3594901, -0.3797201],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_committed_pipelines_open_and_sample_as_they_did(name):
    pipe = genkit.Pipeline.from_pretrained(SAVED / name)
    generators = [torch.Generator().manual_seed(i) for i in (0, 1)]
    x = pipe([0, 2], generator=generators, output_type="latent").images
    assert x[0, 0, 0].tolist() == pytest.approx(GOLDEN[name], abs=1e-4)
    index = json.loads((SAVED / name / "model_index.json").read_text())
    assert index["network"] == ["genkit.networks.mlp", "MLPDenoiser"]
    assert index["_genkit"]["class"] == "genkit_pipelines.image.class_conditional"


# Schedulers


@pytest.mark.parametrize(
    "sampler, path, kind, scale, expected",
    [
        (Sampler(4), FLOW, "velocity", 1000, "FlowMapEulerDiscreteScheduler"),
        (Sampler(1, stochastic=True), FLOW, "velocity", 1000, "FlowMapEulerDiscreteScheduler"),
        (Sampler(2, stochastic=True), FLOW, "velocity", 1000, "ConsistencyScheduler"),
        (Sampler(1, (0.9,)), FLOW, "velocity", 1000, "FlowScheduler"),
        (Sampler(1, None, (0.4,)), FLOW, "velocity", 1000, "FlowScheduler"),
        (Sampler(4, order=2), FLOW, "velocity", 1000, "FlowScheduler"),
        (Sampler(4, start_scale=2.5), FLOW, "velocity", 1000, "FlowScheduler"),
        (Sampler(4), FLOW, "x_0", 1000, "FlowScheduler"),
        (Sampler(4), FLOW, "velocity", 1, "FlowScheduler"),
        (Sampler(4), TrigFlow(), "velocity", 1000, "FlowScheduler"),
        (Sampler(1, stochastic=True), EDM(), "x_0", 1, "ConsistencyScheduler"),
    ],
)
def test_make_scheduler(sampler, path, kind, scale, expected):
    scheduler = hub.make_scheduler(sampler, path, kind, scale)
    assert type(scheduler).__name__ == expected
    if expected != "FlowMapEulerDiscreteScheduler":
        assert scheduler.sampler == sampler
        assert scheduler.config["path"] == path.config()
        assert scheduler.config["prediction_type"] == kind
        assert torch.equal(scheduler.levels, sampler.grid(path))
    scheduler.set_timesteps(sampler.steps)
    told = torch.tensor(sampler.network_times or sampler.grid(path).tolist())
    assert torch.allclose(scheduler.timesteps.float(), told.float() * scale, rtol=1e-6)


def test_stochastic_multistep_order_is_refused():
    with pytest.raises(ValueError, match="order 3 does not exist"):
        hub.make_scheduler(Sampler(4, stochastic=True, order=3), FLOW, "velocity", 1000)


# Names


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    home = tmp_path / "pretrained"
    shutil.copytree(SAVED / "stock", home / "digits-teacher")
    monkeypatch.setattr(hub, "_shipped_folder", lambda: home)
    return home


def test_shipped_names(shipped):
    assert hub.shipped() == {"digits-teacher": "random weights, for tests only"}
    assert hub.resolve("digits-teacher") == shipped / "digits-teacher"
    assert genkit.Pipeline.from_pretrained("digits-teacher").trained_steps(None) == 1


def test_unknown_name_gives_the_nearest(shipped):
    with pytest.raises(ValueError, match="did you mean 'digits-teacher'"):
        genkit.Pipeline.from_pretrained("digits-techer")


def test_hub_id_offline(shipped, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="no folder 'someone/some-model' here, and the hub"):
        genkit.Pipeline.from_pretrained("someone/some-model")


def test_hub_id_is_downloaded_first(folder, monkeypatch):
    asked = []

    def snapshot(name, ignore_patterns):
        asked.append((name, ignore_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert genkit.Pipeline.from_pretrained("someone/some-model").trained_steps(None) == 2
    assert asked[0][0] == "someone/some-model" and "*.bin" in asked[0][1]


def test_nothing_heavy_is_imported():
    """`genkit list` calls `shipped` and must answer at once."""
    code = (
        "import sys, genkit.hub as h; h.shipped(); print({'torch', 'diffusers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Opening: what is refused


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


# Saving


def test_card_and_defaults(tmp_path):
    out = hub.save_pipeline(
        pipeline(Sampler(2, stochastic=True)), tmp_path / "a" / "b", {"steps": 2}, "Trained so."
    )
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: diffusers\n") and "Trained so." in card
    assert "from genkit_pipelines.image.class_conditional import ClassCond" in card
    assert "num_inference_steps=2" in card and "ConsistencyScheduler" in card
    index = json.loads((out / "model_index.json").read_text())
    expected = {"format": 1, "class": "genkit_pipelines.image.class_conditional", "steps": 2}
    assert index["_genkit"] == expected


def test_an_earlier_pipeline_is_replaced(tmp_path):
    out = hub.save_pipeline(pipeline(), tmp_path / "out", {"steps": 1})
    hub.save_pipeline(pipeline(Sampler(3)), out, {"steps": 3})
    assert genkit.Pipeline.from_pretrained(out).trained_steps(None) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def tree(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_nothing_else_is_written_over(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    hub.save_pipeline(pipeline(), tmp_path / "kept", {"steps": 1})
    (tmp_path / "kept" / "metrics.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    pipeline().save_pretrained(tmp_path / "foreign")
    before = tree(tmp_path)
    for name, message in {
        "thesis": "holds something else",
        "kept": "holds more than a pipeline .metrics.json.",
        "file": "is a file",
        "foreign": "holds something else",
    }.items():
        with pytest.raises(ValueError, match=message):
            hub.save_pipeline(pipeline(), tmp_path / name, {"steps": 1})
    assert tree(tmp_path) == before


def full_disk(self, folder, **kwargs):
    Path(folder).mkdir()
    (Path(folder) / "half").write_text("x")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("earlier", [False, True])
def test_full_disk(tmp_path, monkeypatch, earlier):
    out = tmp_path / "out"
    if earlier:
        hub.save_pipeline(pipeline(), out, {"steps": 1})
    before = tree(tmp_path)
    monkeypatch.setattr(ClassConditionalImagePipeline, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="could not be saved in .*No space left"):
        hub.save_pipeline(pipeline(), out, {"steps": 5})
    assert tree(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == (["out"] if earlier else [])


def test_failing_rename_puts_the_earlier_pipeline_back(tmp_path, monkeypatch):
    out = hub.save_pipeline(pipeline(), tmp_path / "out", {"steps": 1})
    before, rename = tree(tmp_path), Path.rename

    def fail(self, target):
        if self.name == ".out.tmp":
            raise OSError(errno.EIO, "broken")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="what was there is untouched"):
        hub.save_pipeline(pipeline(Sampler(3)), out, {"steps": 3})
    assert tree(tmp_path) == before


def test_killed_between_the_renames(tmp_path):
    """The next save finds the earlier pipeline set aside, and a half-written one."""
    out = hub.save_pipeline(pipeline(), tmp_path / "out", {"steps": 1})
    out.rename(tmp_path / ".out.old")
    (tmp_path / ".out.tmp").mkdir()
    unserialisable = {"steps": object()}
    with pytest.raises(TypeError):
        hub.save_pipeline(pipeline(), out, unserialisable)
    assert genkit.Pipeline.from_pretrained(out).trained_steps(None) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


# Hashes


def test_weights_hash():
    first, second = network(), network()
    assert hub.weights_hash(first) == hub.weights_hash(second)
    assert len(hub.weights_hash(first)) == 64
    with torch.no_grad():
        second.enter.weight[0, 0] += 1e-7
    assert hub.weights_hash(first) != hub.weights_hash(second)
    assert hub.weights_hash(network().bfloat16()) != hub.weights_hash(first)
    a, b = torch.nn.Module(), torch.nn.Module()
    a.register_buffer("x", torch.tensor(1.0))
    b.register_buffer("y", torch.tensor(1.0))
    assert hub.weights_hash(a) != hub.weights_hash(b)


def test_weights_hash_survives_saving(tmp_path):
    pipe = pipeline()
    out = hub.save_pipeline(pipe, tmp_path / "out", {"steps": 1})
    again = genkit.Pipeline.from_pretrained(out)
    assert hub.weights_hash(again.network) == hub.weights_hash(pipe.network)
