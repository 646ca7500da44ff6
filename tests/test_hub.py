"""Opening and saving pipelines: names, schedulers, atomic saves, and what is refused."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler

import genkit
from genkit import hub
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import EDM, DiscreteVP, RectifiedFlow, TrigFlow
from genkit.sampling import Sampler, sample
from genkit.schedulers.consistency import ConsistencyScheduler
from genkit.schedulers.flow import FlowScheduler
from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

# Committed: random weights, a few kB, made once by hub.save_pipeline. Their module paths are what
# people's saved folders name, so these must open for ever.
SAVED = Path(__file__).parent / "data" / "saved_pipelines"
FLOW, SD, ZERO_SNR = RectifiedFlow(), DiscreteVP(), DiscreteVP(rescale_betas_zero_snr=True)
SHIFTED = tuple(3 * u / (1 + 2 * u) for u in (1, 0.75, 0.5, 0.25))


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


# The same, of networks around others, asked for the second style where there are such.
GOLDEN_AROUND = {
    "routed": ("RoutedNetwork", {}, [-0.4785008, -1.279676, -0.6881946, -0.4778904]),
    "styled": ("StyledNetwork", {"style": 1}, [-1.4376409, -1.4387376, 0.3169786, -0.162919]),
}


@pytest.mark.parametrize("name", GOLDEN_AROUND)
def test_committed_networks_around_others_open_and_sample_as_they_did(name):
    kind, asked, golden = GOLDEN_AROUND[name]
    pipe = genkit.Pipeline.from_pretrained(SAVED / name)
    generators = [torch.Generator().manual_seed(i) for i in (0, 1)]
    x = pipe([0, 2], generator=generators, output_type="latent", **asked).images
    assert x[0, 0, 0].tolist() == pytest.approx(golden, abs=1e-4)
    index = json.loads((SAVED / name / "model_index.json").read_text())
    assert index["network"] == [f"genkit.networks.{name}", kind]


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
        (Sampler(4), SD, "eps", 1, "DDIMScheduler"),
        (Sampler(1, stochastic=True), SD, "v_prediction", 1, "LCMScheduler"),
        (Sampler(5), SD, "x_0", 1, "DDIMScheduler"),
        (Sampler(4), ZERO_SNR, "v_prediction", 1, "DDIMScheduler"),
        (Sampler(4), ZERO_SNR, "eps", 1, "FlowScheduler"),
        (Sampler(3), SD, "eps", 1, "FlowScheduler"),
        (Sampler(4), SD, "velocity", 1, "FlowScheduler"),
        (Sampler(4), SD, "eps", 2, "FlowScheduler"),
        (Sampler(4, order=2), SD, "eps", 1, "FlowScheduler"),
        (Sampler(1, (900.0,)), SD, "eps", 1, "FlowScheduler"),
        (Sampler(2, stochastic=True), SD, "eps", 1, "LCMScheduler"),
        (Sampler(4, stochastic=True), ZERO_SNR, "v_prediction", 1, "LCMScheduler"),
        (Sampler(2, stochastic=True), ZERO_SNR, "eps", 1, "ConsistencyScheduler"),
        (Sampler(3, stochastic=True), SD, "eps", 1, "ConsistencyScheduler"),
        (Sampler(2, stochastic=True, eta=0.5), SD, "eps", 1, "ConsistencyScheduler"),
        (Sampler(2, stochastic=True, eta=0.3), SD, "eps", 1, "TCDScheduler"),
        (Sampler(2, stochastic=True, eta=0.3), FLOW, "velocity", 1000, "ConsistencyScheduler"),
        (Sampler(4, SHIFTED), FLOW, "velocity", 1000, "FlowMapEulerDiscreteScheduler"),
    ],
)
def test_make_scheduler(sampler, path, kind, scale, expected):
    scheduler = hub.make_scheduler(sampler, path, kind, scale)
    assert type(scheduler).__name__ == expected
    if expected in ("FlowScheduler", "ConsistencyScheduler"):
        assert scheduler.sampler == replace(sampler, eta=scheduler.sampler.eta)
        assert scheduler.config["path"] == path.config()
        assert scheduler.config["prediction_type"] == kind
        assert torch.equal(scheduler.levels, sampler.grid(path))
    scheduler.set_timesteps(sampler.steps)
    told = torch.tensor(sampler.network_times or sampler.grid(path).tolist())
    assert torch.allclose(scheduler.timesteps.float(), told.float() * scale, rtol=1e-6)


@pytest.mark.parametrize("kind", ["eps", "x_0", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 4, 50])
def test_ddim_takes_our_steps(kind, steps):
    """Where stock DDIM is chosen it does what FlowScheduler does on the same grid; on a number of
    steps that does not divide N it would not."""

    def network(x, t):
        return torch.tanh(x + t[:, None] / 1000)

    noise = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    stock = hub.make_scheduler(Sampler(steps), SD, kind, 1.0)
    ours = FlowScheduler(SD.config(), kind, steps=steps)
    # A float32 x_0 from eps loses digits where alpha is .07; diffusers' alphas are float32 too.
    got, expected = sample(network, stock, noise, steps), sample(network, ours, noise, steps)
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5
    other = DDIMScheduler.from_config(stock.config)
    uneven = FlowScheduler(SD.config(), kind, steps=6)
    got, expected = sample(network, other, noise, 6), sample(network, uneven, noise, 6)
    assert float((got - expected).abs().max() / expected.abs().max()) > 1e-3


@pytest.mark.parametrize("kind", ["eps", "x_0", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 4, 50])
def test_lcm_takes_our_steps(kind, steps):
    """With the same noise, and the network's own x_0 at every level; at its usual scale of times
    c_skip and c_out would change that where t is small."""
    noise = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    stock = hub.make_scheduler(Sampler(steps, stochastic=True), SD, kind, 1.0)
    ours = ConsistencyScheduler(SD.config(), kind, steps=steps)

    def run(scheduler):
        draws = torch.Generator().manual_seed(1)
        return sample(
            lambda x, t: torch.tanh(x + t[:, None] / 1000), scheduler, noise, steps, draws
        )

    got, expected = run(stock), run(ours)
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5
    if steps == 50 and kind == "x_0":
        usual = run(LCMScheduler.from_config(stock.config, timestep_scaling=1.0))
        assert float((usual - expected).abs().max() / expected.abs().max()) > 1e-4


def test_shifted_flow_takes_our_steps():
    noise = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    stock = hub.make_scheduler(Sampler(4, SHIFTED), FLOW, "velocity", 1000)
    ours = FlowScheduler(FLOW.config(), steps=4, times=SHIFTED, time_scale=1000)
    assert stock.config["shift"] == 3.0
    got, expected = (sample(lambda x, t: torch.tanh(x), each, noise, 4) for each in (stock, ours))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


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


def test_a_saved_pipeline_names_no_folder_it_was_opened_from(tmp_path):
    first = hub.save_pipeline(pipeline(), tmp_path / "first", {"steps": 1})
    second = hub.save_pipeline(genkit.Pipeline.from_pretrained(first), tmp_path / "second", {})
    texts = [file.read_text() for file in second.rglob("*.json")]
    assert texts and not any(str(tmp_path) in text for text in texts)
