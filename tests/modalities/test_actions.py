"""Clips with actions as a modality: what a run asks of them, and how they are shown and written."""

import pytest
import torch
from PIL import Image

from genkit.data import load, world
from genkit.metrics.clips import (
    ClipFeatures,
    ClipFigures,
    edge_energy,
    endurance,
    gradient_kurtosis,
)
from genkit.metrics.frechet import frechet_distance
from genkit.modalities import ActionClips, film, modality, saved
from genkit.modalities.actions import long_actions
from genkit_pipelines.video.interactive import VideoPipelineOutput


@pytest.fixture(scope="module")
def clips():
    return modality(load("world"))


def test_the_world_is_found_by_its_condition(clips):
    assert isinstance(clips, ActionClips)
    assert clips.latent == (10, 3, 64, 64) and clips.kind == "x_0"
    assert clips.uncond["action"].shape == (1, 10) and clips.uncond["action"].unique() == 5


def test_evaluations_ask_for_held_out_actions(clips):
    asked = clips.asked(600)
    assert asked.shape == (600, 10) and torch.equal(asked[:100], clips.asked(100))
    assert (world.split_of(asked.numpy()) == "test").all()
    assert (world.split_of(clips.training_cond(50)["action"].numpy()) == "train").all()
    preview = clips.preview_cond()["action"]
    assert len(preview) == clips.preview_n and torch.equal(preview[0], preview[1])
    assert long_actions(asked, 25) == asked[:3].flatten()[:25].tolist()


def test_a_batch_is_drawn_when_it_is_asked_for(clips):
    from genkit.data.streams import TensorStream

    batch = TensorStream(clips.batches(load("world"))).batch(0, 3, 4)
    assert batch["x_0"].shape == (4, 10, 3, 64, 64) and batch["cond"]["action"].shape == (4, 10)


def test_guidance_is_refused(clips):
    with pytest.raises(ValueError, match="clips are made without, give 1"):
        clips.generate(None, clips.asked(1), [], 1, 2.0)


def test_rows_are_strips_of_frames(clips, tmp_path):
    x = load("world", "test").x_0[:2]
    file = clips.render({"data": x, "student": x}, tmp_path / "step-1")
    assert Image.open(file).size == (10 * 64, 2 * (14 + 2 * 64))


def test_without_an_encoder_a_clip_is_a_strip(tmp_path, monkeypatch):
    monkeypatch.setattr(film.importlib.util, "find_spec", lambda name: None)
    frames = [Image.new("RGB", (64, 64), (i, 0, 0)) for i in range(3)]
    file = film.write_clip(frames, tmp_path / "clip")
    assert file.suffix == ".png" and Image.open(file).size == (192, 64)
    out = VideoPipelineOutput(frames=[frames, frames])
    written = saved(out, tmp_path, 0)
    assert all(each.suffix == ".png" for each in written) and len(written) == 2


def test_an_mp4_where_there_is_an_encoder(tmp_path):
    av = pytest.importorskip("av")
    frames = [Image.new("RGB", (64, 64), (20 * i, 0, 0)) for i in range(5)]
    file = film.write_clip(frames, tmp_path / "clip")
    with av.open(str(file)) as opened:
        shown = [each.to_image() for each in opened.decode(video=0)]
    assert len(shown) == 5 and shown[0].size == (256, 256)


# ---- Figures ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    return world.load("test", 40)


def test_kurtosis_falls_with_averaging(real):
    x = real.x_0[:]
    sharp, mean = gradient_kurtosis(x), gradient_kurtosis((x[:20] + x[20:]) / 2)
    assert gradient_kurtosis(torch.randn(4, 3, 64, 64)) == pytest.approx(3, abs=0.2)
    assert sharp > 1.3 * mean


def test_edges_fall_with_blur_and_rise_with_noise(real):
    x = real.x_0[:4]
    soft = torch.nn.functional.avg_pool2d(x.flatten(0, 1), 3, 1, 1, count_include_pad=False)
    noise = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert edge_energy(soft) < 0.6 * edge_energy(x)
    # Neighbouring draws of deviation s differ by s sqrt(2).
    assert edge_energy(x + noise) - edge_energy(x) == pytest.approx(0.02, rel=0.05)


def test_features_see_blur_colour_and_standing_still(real):
    x = world.load("test", 100).x_0[:]
    net = ClipFeatures(world.load("train", 150).x_0[:])
    seen = net.features(x)
    other = world.load("validation", 100).x_0[:]
    floor = frechet_distance(net.features(other), seen)
    blurred = torch.nn.functional.avg_pool2d(other.flatten(0, 1), 5, 1, 2).view_as(other)
    for wrong in (blurred, other * 0.8, other[:, :1].expand_as(other)):
        assert frechet_distance(net.features(wrong), seen) > 1.5 * floor


def test_figures_of_real_clips(real):
    x = real.x_0[:]
    figures = ClipFigures(x)(x, torch.zeros(40, 1), real.cond["action"])
    assert figures["obeys"] == figures["boat"] == 1
    assert figures["balloon"] > 0.9
    assert figures["kurtosis"] == figures["kurtosis_real"] and figures["edges"] == 1


def test_endurance_sees_a_clip_that_fades():
    long = world.load("test", 1, 200)
    frames, actions = long.x_0[:][0], long.cond["action"][0].tolist()
    real = world.load("validation", 30).x_0[:].flatten(0, 1)
    whole = endurance(frames, actions, real)
    assert whole["obeys_first"] == whole["obeys_last"] == 1
    fading = frames * torch.linspace(1, 0.2, 200).view(-1, 1, 1, 1)
    faded = endurance(fading, actions, real)
    assert faded["drift_last"] > 1.5 * whole["drift_last"]
    assert faded["obeys_last"] < 0.5 and faded["worst"] >= faded["drift_last"]
