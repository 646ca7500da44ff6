"""Speech through the one trainer: a teacher, students, the pipeline's bits, pages and masks.

A few steps on the formant voice: nothing that comes out is speech.
"""

import pytest
import torch

import genkit
from genkit import api
from genkit.data import load, speech_formants
from genkit.data.base import Prompts
from genkit.denoisers.base import Guided
from genkit.denoisers.diffusers import as_denoiser
from genkit.modalities import call_arguments, many_argument, modality, saved
from genkit.modalities.speech import Laid
from genkit.networks.speech import SpeechDecoder
from genkit.paths import EDM
from genkit.rng import sample_generators, sample_noise

FEW = {"batch_size": 4, "measure_every": 0, "sample_every": 0, "evaluate_n": 0, "log_every": 1}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher of two steps, and its data."""
    before, small = dict(speech_formants.COUNT), {"train": 10, "validation": 2, "test": 8}
    speech_formants.COUNT.update(small)
    out = tmp_path_factory.mktemp("speech") / "teacher"
    made = genkit.train("speech-formants", out, max_steps=2, **FEW)
    # Its last layers begin at zero: let the noise and the text matter.
    torch.manual_seed(0)
    for zero in (made.network.modulation, made.network.leave):
        torch.nn.init.normal_(zero.weight, std=0.02)
    yield made, out
    speech_formants.COUNT.update(before)


def test_a_teacher_is_trained_with_its_encoders_losses(teacher):
    from genkit.training.log import read_log

    made, out = teacher
    line = read_log(out)[0]
    assert {"student/total", "student/duration", "student/prior"} <= line.keys()
    assert type(made).__name__ == "TextToSpeechPipeline" and made.speakers == ["low", "high"]
    assert as_denoiser(made).denoiser.path.name == "edm"


def test_edm_s_numbers_reach_the_network_and_its_path(teacher):
    """Without a method's name, speech is trained by edm, whose settings are the network's own."""
    made, out = teacher
    assert api.read_config(out / "config.json")["method"] == "edm"
    own = {"sigma_data": 0.7, "sigma_min": 0.01, "dimensions": 64.0}
    run, record = api.prepare_teacher("speech-formants", **FEW, **own)
    assert record["method"] == "edm"
    assert run.method.path.config() == {**EDM(0.01).config(), "dimensions": 64.0}
    denoiser = api.fresh_denoiser(run.modality, type(run.method), run.settings.method)
    decoder = denoiser.network.network
    assert (decoder.config["sigma_data"], decoder.config["sigma_min"]) == (0.7, 0.01)
    # F begins at 0: what is left is c_skip x, inside the mask.
    x, mask = torch.randn(2, 64, 80), torch.arange(64) < torch.tensor([[64], [20]])
    cond = {"text": torch.zeros(2, 64, 208), "voice": torch.zeros(2, 128), "mask": mask}
    got = denoiser.predict(x, torch.tensor([0.01, 0.5]), cond, "x_0")
    skip = 0.7**2 / (0.49**2 + 0.7**2)
    assert torch.allclose(got[0], x[0])
    assert torch.allclose(got[1], skip * x[1] * mask[1][:, None])
    assert made.network.config["sigma_data"] == 0.5, "another run's stays"


def test_a_teachers_sample_is_its_pipelines(teacher):
    """What the trainer would sample, with symbols, is what the pipeline says of the texts."""
    from genkit.denoisers.base import NetworkDenoiser
    from genkit.denoisers.calls import CALLS, ENCODERS
    from genkit.networks.speech import SpeechNetwork

    made, _ = teacher
    kind = modality(load("speech-formants"))
    both = SpeechNetwork(made.text_encoder, made.network).eval()
    name = "SpeechNetwork"
    denoiser = NetworkDenoiser(both, CALLS[name], EDM(), "x_0", encoder=ENCODERS[name])
    noise = sample_noise(kind.latent, sample_generators(0, 3))
    with torch.no_grad():
        want = denoiser.sample(noise, kind.cond(3), made.scheduler, 4)
        mask = denoiser.condition(kind.cond(3))[0]["mask"][..., None]
    got = kind.generate(made, kind.asked(3), sample_generators(0, 3), 4, 1.0)
    assert torch.equal(got, want * mask)
    assert (want * ~mask).abs().max() < 1e-12  # what the solver's rounding leaves


@pytest.mark.parametrize("method", ["consistency", "reflow", "regression"])
def test_a_students_sample_is_its_opened_pipelines(teacher, method, tmp_path):
    made, _ = teacher
    extra = {"pairs": 8, "pair_steps": 2} if method != "consistency" else {}
    run, record = api.prepare(made, method, "speech-formants", max_steps=2, **FEW, **extra)
    assert run.modality.teacher is not None
    api._go(run, record, tmp_path / "run", resume=False)
    opened = genkit.Pipeline.from_pretrained(tmp_path / "run" / "pipeline")
    kind = run.modality
    noise = sample_noise(kind.latent, sample_generators(5, 3))
    student = as_denoiser(opened).denoiser
    want = run.method.sample(student, noise, kind.cond(3))
    got = kind.generate(opened, kind.asked(3), sample_generators(5, 3), 1, 1.0)
    assert torch.equal(got, want) and got.std() > 0
    assert "speech-formants in 1 step" in genkit.hub.trained(opened)["description"]


def test_students_learn_on_aligned_text_with_a_mask(teacher):
    made, _ = teacher
    data = load("speech-formants")
    kind = modality(data, as_denoiser(made))
    batch = kind.batches(data)
    frames = data.cond["frames"]
    assert torch.equal(batch["mask"].sum(1), frames)
    # Durations of the alignment fill exactly the frames there are.
    assert torch.equal(batch["cond"]["mask"][:].sum(1), frames)
    pairs = kind.training_cond(12)
    assert torch.equal(kind.mask(pairs)[:], pairs["mask"][:]) and len(pairs["text"]) == 12
    assert pairs["text"][torch.tensor([3])].shape == (1, kind.latent[0], 208)


def test_prompts_alone_can_be_distilled_on(teacher):
    made, _ = teacher
    kind = modality(Prompts(("a cat.", "a dog."), "prompts"), as_denoiser(made))
    assert kind.asked(3) == (("a cat.", 0), ("a dog.", 1), ("a cat.", 0))
    other = load("speech-formants", "test")
    from dataclasses import replace

    with pytest.raises(ValueError, match="has the speakers eve"):
        modality(replace(other, classes=("eve",)), as_denoiser(made))


def test_figures_are_measured(teacher, capsys, monkeypatch):
    # Noise keeps a recogniser busy for minutes: without one here, whether it is installed or not.
    monkeypatch.setattr("genkit.metrics.speech.heard_here", lambda: False)
    made, _ = teacher
    found = genkit.evaluate(made, steps=(1,), n=8, seeds=(0,), bootstraps=1)
    assert {"mcd", "gv_ratio", "fd", "length_error"} <= found["rows"][0].keys()
    assert found["floor"]["mcd"] == 0
    assert "gv_ratio" in capsys.readouterr().out


def test_a_page_has_players_under_spectrograms(teacher, tmp_path):
    kind = modality(load("speech-formants"))
    file = kind.render({"data": load("speech-formants").x_0[:2]}, tmp_path / "step-1")
    page = file.read_text()
    assert file.name == "step-1.html" and page.count("<audio") == page.count("<img") == 2


def test_guidance_is_between_the_text_and_none(teacher):
    """The pipeline's, the denoiser's and the formula's are one; the mask stays in both halves."""
    made, _ = teacher
    data = load("speech-formants")
    kind = modality(data, as_denoiser(made))
    assert kind.uncond is not None and kind.uncond.keys() == {"text", "voice"}
    plain, cond = as_denoiser(made).denoiser, kind.cond(3)
    x, t = torch.randn(3, *kind.latent), torch.tensor([0.3, 1.0, 9.0])
    nothing = cond | {name: torch.zeros_like(cond[name]) for name in kind.uncond}
    without, within = (plain.predict(x, t, each, "x_0") for each in (nothing, cond))
    guided = Guided(plain, 2.0, kind.uncond)
    torch.testing.assert_close(guided.predict(x, t, cond, "x_0"), 2 * within - without)
    assert not torch.allclose(within, without)
    noise = sample_noise(kind.latent, sample_generators(0, 3))
    want = guided.sample(noise, cond, made.scheduler, 3)
    got = kind.generate(made, kind.asked(3), sample_generators(0, 3), 3, 2.0)
    torch.testing.assert_close(got, want * cond["mask"][..., None])
    run, _ = api.prepare(made, "consistency", "speech-formants", guidance=1.5, **FEW)
    assert run.method.guidance == 1.5


def test_the_command_line_says_and_saves(teacher, tmp_path):
    made, _ = teacher
    arguments = call_arguments(made, "A cat.")
    assert arguments == {"text": ["A cat."]} and many_argument(made).startswith("num_waveforms")
    out = made(**arguments, num_inference_steps=1)
    files = [*saved(out, tmp_path, 3), *saved(out, tmp_path, 3)]
    assert [each.name for each in files] == ["seed3-0000.wav", "seed3-0001.wav"]


def test_a_vocoder_leaves_with_the_teacher(teacher, tmp_path):
    from genkit.networks.vocoder import Vocoder

    Vocoder(width=16, depth=1).save_pretrained(tmp_path / "vocoder")
    kind = modality(load("speech-formants")).decoded_by(str(tmp_path / "vocoder"))
    assert type(kind.decoder) is Vocoder
    with pytest.raises(ValueError, match="holds no vocoder"):
        kind.decoded_by(str(tmp_path))
    with pytest.raises(ValueError, match="needs no decoder"):
        modality(load("digits")).decoded_by("x")


def test_laid_rows_are_made_where_asked_for():
    laid = Laid(torch.ones(3, 2, 4), torch.tensor([[1, 2], [3, 0], [1, 1]]), 5)
    assert laid[torch.tensor([1])].sum() == 12 and laid[0:2].shape == (2, 5, 4)
    assert len(laid) == 3 and SpeechDecoder(80, 8).config["sample_size"] == 8


def test_a_teacher_goes_on_from_an_earlier_one(teacher):
    """Encoder and decoder both."""
    made, _ = teacher
    run, record = api.prepare_teacher("speech-formants", start=made, **FEW, max_steps=2)
    kind, method = run.modality, type(run.method)
    begun = api.fresh_denoiser(kind, method, run.settings.method, run.start).network
    assert record["start_weights"] and torch.equal(
        begun.text_encoder.symbol.weight, made.text_encoder.symbol.weight
    )
    assert torch.equal(begun.network.leave.weight, made.network.leave.weight)
