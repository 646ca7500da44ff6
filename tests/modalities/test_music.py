"""Music through the one trainer: a teacher, students, the pipeline's bits, pages and figures.

A few steps on the plain tones with a random codec: nothing that comes out is music.
"""

import pytest
import torch

import genkit
from genkit import api
from genkit.data import load, music_tones
from genkit.data.base import Prompts
from genkit.denoisers.diffusers import as_denoiser
from genkit.modalities import call_arguments, many_argument, modality, saved
from genkit.networks.music_codec import MusicCodec
from genkit.rng import sample_generators, sample_noise

FEW = {"batch_size": 4, "measure_every": 0, "sample_every": 0, "evaluate_n": 0, "log_every": 1}


@pytest.fixture(scope="module", autouse=True)
def few_songs():
    before = dict(music_tones.COUNT)
    music_tones.COUNT.update({"train": 4, "validation": 2, "test": 4})
    yield
    music_tones.COUNT.update(before)


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    torch.manual_seed(0)
    made = MusicCodec(4, 16, 1, 16, 1, 2, 16).eval()
    made.settle(torch.zeros(4), torch.ones(4))
    folder = tmp_path_factory.mktemp("codec")
    made.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def teacher(codec, tmp_path_factory):
    """A teacher of two steps."""
    out = tmp_path_factory.mktemp("music") / "teacher"
    made = genkit.train("music-tones", out, "flow_matching", max_steps=2, decoder=codec, **FEW)
    # Its last layers begin at zero: let the conditions matter.
    torch.manual_seed(0)
    for zero in (made.network.modulation, made.network.final, made.network.leave):
        torch.nn.init.normal_(zero.weight, std=0.02)
    return made


def test_a_teacher_needs_a_codec(tmp_path):
    with pytest.raises(ValueError, match="train_music_codec.py"):
        genkit.train("music-tones", tmp_path / "no", "flow_matching", max_steps=1, **FEW)
    with pytest.raises(ValueError, match="holds no codec"):
        modality(load("music-tones")).decoded_by(str(tmp_path))


def test_crops_of_a_piece_are_told_their_place(codec):
    data = load("music-tones")
    kind = modality(data).decoded_by(codec)
    batch = kind.batches(data)
    assert batch["x_0"].shape == (2 * len(data), 192, 4)
    whole = kind.codec.encode(data.x_0[:1])[0]
    assert torch.equal(batch["x_0"][1], whole[64:])
    first, second = batch["cond"]["plan"][:2]
    assert torch.equal(first[64:], second[:-64])
    assert len(batch["cond"]["tokens"]) == len(batch["x_0"])


def test_a_teachers_sample_is_its_pipelines(teacher, codec):
    """What the trainer would sample, with tokens, is what the pipeline plays of the tags."""
    from genkit.denoisers.base import NetworkDenoiser
    from genkit.denoisers.calls import CALLS
    from genkit.networks.music import TaggedNetwork
    from genkit.paths import RectifiedFlow

    kind = modality(load("music-tones")).decoded_by(codec)
    both = TaggedNetwork(teacher.text_encoder, teacher.network).eval()
    call = CALLS["TaggedNetwork"]
    denoiser = NetworkDenoiser(both, call, RectifiedFlow(), "velocity", 1000.0)
    noise = sample_noise(kind.latent, sample_generators(0, 3))
    with torch.no_grad():
        want = denoiser.sample(noise, kind.cond(3), teacher.scheduler, 2)
    got = kind.generate(teacher, kind.asked(3), sample_generators(0, 3), 2, 1.0)
    assert torch.equal(got, want) and got.std() > 0


@pytest.mark.parametrize("method", ["consistency", "reflow"])
def test_a_students_sample_is_its_opened_pipelines(teacher, method, tmp_path):
    """With guidance folded in."""
    extra = {"pairs": 8, "pair_steps": 2} if method == "reflow" else {}
    extra |= FEW | {"guidance": 2.0}
    run, record = api.prepare(teacher, method, "music-tones", max_steps=2, **extra)
    assert run.modality.teacher is not None
    api._go(run, record, tmp_path / "run", resume=False)
    opened = genkit.Pipeline.from_pretrained(tmp_path / "run" / "pipeline")
    kind = run.modality
    noise = sample_noise(kind.latent, sample_generators(5, 3))
    want = run.method.sample(as_denoiser(opened).denoiser, noise, kind.cond(3))
    got = kind.generate(opened, kind.asked(3), sample_generators(5, 3), 1, 1.0)
    assert torch.equal(got, want) and got.std() > 0
    assert "music-tones in 1 step" in genkit.hub.trained(opened)["description"]


def test_guidance_is_the_pipelines(teacher):
    """The guided teacher of the trainer and the pipeline at that scale."""
    from genkit.denoisers.base import Guided

    loaded = as_denoiser(teacher)
    kind = modality(load("music-tones"), loaded)
    noise = sample_noise(kind.latent, sample_generators(1, 2))
    with torch.no_grad():
        guided = Guided(loaded.denoiser, 3.0, kind.uncond)
        want = guided.sample(noise, kind.cond(2), teacher.scheduler, 2)
    got = kind.generate(teacher, kind.asked(2), sample_generators(1, 2), 2, 3.0)
    assert torch.allclose(got, want, atol=1e-6)
    plain = kind.generate(teacher, kind.asked(2), sample_generators(1, 2), 2, 1.0)
    assert not torch.allclose(got, plain, atol=1e-3)


def test_prompts_alone_can_be_distilled_on(teacher):
    kind = modality(Prompts(("flute melody", "drums"), "prompts"), as_denoiser(teacher))
    asked = kind.asked(2)
    assert asked[0].text == "flute melody" and asked[0].instrument == 7
    assert asked[1].instrument == len(teacher.instruments)
    from dataclasses import replace

    with pytest.raises(ValueError, match="has the instruments kazoo"):
        modality(replace(load("music-tones"), classes=("kazoo",)), as_denoiser(teacher))


def test_figures_are_measured(teacher, capsys):
    found = genkit.evaluate(teacher, steps=(1,), n=6, seeds=(0,), bootstraps=1)
    assert {"key", "tempo", "tempo_octaves", "chords", "fd"} <= found["rows"][0].keys()
    assert "chords" in capsys.readouterr().out


def test_a_page_has_players_under_spectrograms(teacher, tmp_path):
    kind = modality(load("music-tones"), as_denoiser(teacher))
    file = kind.render({"data": kind.latents(load("music-tones"))[:2]}, tmp_path / "step-1")
    page = file.read_text()
    assert file.name == "step-1.html" and page.count("<audio") == page.count("<img") == 2


def test_the_command_line_plays_and_saves(teacher, tmp_path):
    arguments = call_arguments(teacher, "flute, rock drums")
    assert arguments == {"prompt": ["flute, rock drums"]}
    assert many_argument(teacher).startswith("num_waveforms")
    out = teacher(**arguments, num_inference_steps=1, audio_end_in_s=1.0)
    assert [each.name for each in saved(out, tmp_path, 3)] == ["seed3-0000.wav"]


def test_the_command_line_is_asked_for_a_piece(teacher, tmp_path, capsys):
    from genkit.cli import main
    from genkit.hub import save_pipeline

    facts = {"steps": 1, "guidance": 1.0, "method": "flow_matching", "data": "music-tones"}
    folder = str(save_pipeline(teacher, tmp_path / "p", facts))
    asked = ["generate", folder, "flute melody", "--out", str(tmp_path / "out")]
    told = ["--bpm", "96", "--key", "D minor", "--instrument", "organ", "--chords", "Dm,A"]
    assert main([*asked, *told, "--seconds", "1.5"]) == 0
    file = tmp_path / "out" / "seed0-0000.wav"
    assert str(file) in capsys.readouterr().out and file.stat().st_size == 44 + 2 * 33_075
    for wrong, said in (
        (["--bpm", "0"], "bpm is 0"),
        (["--key", "H"], "no key"),
        (["--seconds", "7200"], "at most 285"),
        (["--speaker", "eve"], "takes no --speaker"),
    ):
        assert main([*asked, *wrong]) != 0
        error = capsys.readouterr().err.strip()
        assert said in error and "\n" not in error, error


def test_the_data_set_names_settings_of_its_own():
    """No method knows it by name; what is given still wins."""
    from genkit.catalogue import method_class
    from genkit.settings import Settings

    for name in ("flow_matching", "reflow", "consistency"):
        held = Settings.of(method_class(name), {}, "music").flat()
        assert held["batch_size"] == 8 and held["mixed_precision"] == "bf16"
    given = Settings.of(method_class("consistency"), {"batch_size": 3}, "music").flat()
    assert given["batch_size"] == 3 and given["guidance"] == 2.0
    assert Settings.of(method_class("consistency"), {}, "music-tones").flat()["guidance"] is None
