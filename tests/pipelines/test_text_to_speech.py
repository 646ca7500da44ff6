"""TextToSpeechPipeline: exact lengths, batch equals singles, stream equals whole, saved is open.

Its networks are random and tiny: nothing of how it sounds is tested here.
"""

from functools import cache
from pathlib import Path

import pytest
import torch

import genkit
from genkit import hub
from genkit.denoisers.calls import speech
from genkit.denoisers.diffusers import as_denoiser
from genkit.hub import make_scheduler, save_pipeline
from genkit.networks.speech import SpeechDecoder, SpeechEncoder
from genkit.networks.vocoder import Vocoder, open_vocoder
from genkit.paths import EDM
from genkit.phonemes import SYMBOLS
from genkit.rng import sample_generators, sample_noise
from genkit.sampling import Sampler
from genkit_pipelines.speech.text_to_speech import TextToSpeechPipeline, _cut

HOP, RATE = 256, 16_000
LONG = "The cat sat on a mat. It was warm, and it slept well! Did you see it?"


@cache
def pipeline(steps: int = 1, vocoder: bool = True) -> TextToSpeechPipeline:
    torch.manual_seed(0)
    encoder = SpeechEncoder(len(SYMBOLS), ("ann", "bob"), False, width=16, layers=1).eval()
    decoder = SpeechDecoder(80, 128, width=16, depth=2, voice_width=16)
    for zero in (decoder.modulation, decoder.leave):
        torch.nn.init.normal_(zero.weight, std=0.1)
    torch.nn.init.normal_(encoder.duration_out.weight, std=0.3)
    made = Vocoder(width=16, depth=2, window=16) if vocoder else None
    sampler = Sampler(steps, stochastic=steps > 1)
    return TextToSpeechPipeline(encoder, decoder, make_scheduler(sampler, EDM(), "x_0", 1.0), made)


def generators(n: int) -> list[torch.Generator]:
    return sample_generators(0, n)


def test_a_call_says_what_it_made():
    made = pipeline()("A cat sat.", generator=generators(1))
    assert made.sample_rate == RATE and made.audios.shape == (1, 1, int(made.lengths[0]))
    assert made.audios.isfinite().all() and made.audios.std() > 0
    said = made.alignment[0]
    assert [each[0] for each in said] == pipeline().symbols("A cat sat.")[0]
    assert said[-1][2] == pytest.approx(int(made.lengths[0]) / RATE)
    assert all(a[2] == b[1] for a, b in zip(said, said[1:], strict=False))


@pytest.mark.parametrize("steps", [1, 2])
def test_a_batch_is_its_singles(steps):
    pipe, texts = pipeline(steps), [LONG, "Go.", "A red boat sails on the wide river."]
    speakers = ["bob", "ann", "bob"]
    kwargs = {"num_inference_steps": steps, "output_type": "latent"}
    both = pipe(texts, speakers, generator=generators(3), **kwargs)
    for i, text in enumerate(texts):
        one = pipe(text, speakers[i], generator=[generators(3)[i]], **kwargs)
        n = int(one.lengths[0])
        assert int(both.lengths[i]) == n
        assert torch.allclose(both.audios[i, :n], one.audios[0], atol=1e-4)
        assert not both.audios[i, n:].any()


@pytest.mark.parametrize("chunk", [0.01, 0.3, 100.0])
@pytest.mark.parametrize("seconds", [None, 2.345])
def test_a_stream_is_the_whole_bit_for_bit(chunk, seconds):
    pipe = pipeline()
    whole = pipe(LONG, "bob", audio_end_in_s=seconds, generator=generators(1)[0])
    chunks = list(
        pipe.stream(
            LONG, "bob", audio_end_in_s=seconds, generator=generators(1)[0], chunk_in_s=chunk
        )
    )
    joined = torch.cat([each.samples for each in chunks], 1)
    assert torch.equal(joined, whole.audios[0])
    assert [each.is_last for each in chunks] == [False] * (len(chunks) - 1) + [True]
    starts = [sum(c.samples.shape[1] for c in chunks[:i]) / RATE for i in range(len(chunks))]
    assert [each.start_in_s for each in chunks] == starts
    assert chunk > 1 or len(chunks) > 2


def test_a_broken_stream_leaves_the_pipeline_usable():
    pipe = pipeline()
    before = pipe("A cat sat.", generator=generators(1)[0]).audios
    stream = pipe.stream(LONG, generator=generators(1)[0], chunk_in_s=0.1)
    next(stream)
    stream.close()
    assert torch.equal(pipe("A cat sat.", generator=generators(1)[0]).audios, before)


def test_a_guided_stream_keeps_its_scale_whatever_is_called_meanwhile():
    pipe = pipeline()
    whole = pipe(LONG, guidance_scale=2.0, generator=generators(1)[0]).audios[0]
    assert not torch.equal(whole, pipe(LONG, generator=generators(1)[0]).audios[0])
    stream = pipe.stream(LONG, guidance_scale=2.0, generator=generators(1)[0], chunk_in_s=0.1)
    parts = [next(stream).samples]
    pipe("A cat sat.", generator=generators(1)[0])
    parts += [each.samples for each in stream]
    assert torch.equal(torch.cat(parts, 1), whole)


@pytest.mark.parametrize("seconds", [0.05, 1.0, 60.0])
def test_lengths_are_exact(seconds):
    made = pipeline()(LONG, audio_end_in_s=seconds, generator=generators(1)[0])
    assert int(made.lengths[0]) == round(seconds * RATE) == made.audios.shape[2]


def test_speed_scales_the_length_to_a_frame():
    pipe = pipeline()
    plain, fast = (
        int(pipe(LONG, speed=speed, generator=generators(1)[0]).lengths[0]) for speed in (1.0, 1.6)
    )
    assert abs(plain / 1.6 - fast) <= 2 * HOP


def test_saved_and_opened_it_is_the_same(tmp_path):
    pipe = pipeline()
    folder = save_pipeline(pipe, tmp_path / "p", {"steps": 1, "guidance": 1.0, "method": "edm"})
    opened = genkit.Pipeline.from_pretrained(folder)
    assert type(opened) is TextToSpeechPipeline and opened.speakers == ["ann", "bob"]
    a, b = (each(LONG, generator=generators(1)[0]).audios for each in (pipe, opened))
    assert torch.equal(a, b)
    assert open_vocoder(folder / "vocoder").config["window"] == 16
    with pytest.raises(ValueError, match="no Vocoder"):
        open_vocoder(folder / "network")
    with pytest.raises(ValueError, match="holds no vocoder"):
        open_vocoder(tmp_path)


def test_latents_give_what_the_denoiser_samples():
    """The pipeline on given noise, against its network as a teacher's Denoiser."""
    pipe = pipeline()
    loaded = as_denoiser(pipe)
    assert loaded.latent == (128, 80) and loaded.denoiser.path.name == "edm"
    noise = sample_noise((128, 80), generators(2))
    texts = ["A cat sat.", "Go."]
    made = pipe(texts, latents=noise, output_type="latent").audios
    drawn = pipe(texts, generator=generators(2), padded_frames=128, output_type="latent").audios
    assert torch.equal(made, drawn)
    plans = pipe._plans(texts, [0, 0], 1.0, None)
    from genkit.networks.alignment import spread

    text = torch.stack([plan[0].text for plan in plans])
    laid, mask = spread(text, torch.stack([plan[0].durations for plan in plans]), 128)
    cond = {"text": laid, "voice": torch.stack([p[0].voice for p in plans]), "mask": mask}
    want = loaded.denoiser.sample(noise, cond, pipe.scheduler, 1)
    assert torch.equal(made, want)
    t = torch.full((2,), 80.0)
    assert torch.allclose(speech(pipe.network, noise * 80, t, cond), want, atol=1e-5)


def test_without_a_vocoder_it_still_speaks():
    made = pipeline(vocoder=False)("Go.", generator=generators(1)[0], output_type="np")
    assert made.audios.shape == (1, 1, int(made.lengths[0]))
    tuple_form = pipeline(vocoder=False)("Go.", generator=generators(1)[0], return_dict=False)
    assert tuple_form[0].shape == made.audios.shape


def test_many_waveforms_of_one_text_differ():
    made = pipeline()("Go now.", num_waveforms_per_prompt=2, generator=generators(2))
    assert made.audios.shape[0] == 2 and not torch.equal(made.audios[0], made.audios[1])


def test_long_sentences_are_cut_between_words():
    symbols = [".", *(["K", "AE1", "T", " "] * 400), "."]
    parts = _cut(symbols)
    assert all(len(part) <= 302 for part in parts) and len(parts) > 4
    sounds = lambda rows: [s for s in rows if s not in (",", " ", ".")]  # noqa: E731
    assert sounds(sum(parts, [])) == sounds(symbols)


def test_callbacks_see_every_step():
    seen = []

    def after(pipe, i, t, given):
        seen.append((i, given["latents"].shape))
        return {}

    pipeline(2)("Go.", num_inference_steps=2, callback_on_step_end=after)
    assert [i for i, _ in seen] == [0, 1]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"text": ""}, "empty"),
        ({"text": "?!"}, "only punctuation"),
        ({"text": "Привет"}, "another script"),
        ({"text": "word " * 10_000}, "10000 words"),
        ({"text": []}, "give a string"),
        ({"text": 7}, "give a string"),
        ({"text": "Go.", "speaker": "eve"}, "ann, bob"),
        ({"text": "Go.", "speaker": ["ann", "bob"]}, "2 speakers for 1 texts"),
        ({"text": "Go.", "speed": 0}, "speed is 0"),
        ({"text": "Go.", "audio_end_in_s": 0.0}, "audio_end_in_s is 0"),
        ({"text": "Go.", "audio_end_in_s": 7200.0}, "at most 600 seconds"),
        ({"text": "Go.", "num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"text": "Go.", "num_waveforms_per_prompt": 0}, "at least 1"),
        ({"text": "Go.", "output_type": "pil"}, "output_type"),
        ({"text": LONG, "latents": torch.zeros(1, 128, 80)}, "one sentence"),
        ({"text": "Go.", "generator": [torch.Generator()] * 2}, "2 generators for 1"),
    ],
)
def test_bad_input_is_told_in_one_sentence(asked, told):
    with pytest.raises(ValueError, match=told) as error:
        pipeline()(**{"generator": torch.Generator(), **asked})
    assert "\n" not in str(error.value)
    assert pipeline()("Go.").audios.numel()


def test_a_committed_pipeline_opens_and_speaks_as_it_did():
    """Random weights, made once by hub.save_pipeline: folders name these modules for ever."""
    folder = Path(__file__).parents[1] / "data" / "saved_pipelines" / "speech"
    pipe = genkit.Pipeline.from_pretrained(folder)
    mels = pipe("Go.", "bob", generator=generators(1), output_type="latent")
    assert int(mels.lengths[0]) == 12
    golden = [-0.0167968, 0.0020186, -0.1284371, 0.0345969]
    assert mels.audios[0, 0, :4].tolist() == pytest.approx(golden, abs=1e-4)
    sound = pipe("Go.", "bob", generator=generators(1)).audios[0, 0]
    golden = [-0.0349098, 0.0138292, -0.0004673, -0.0248520]
    assert sound[1000:1004].tolist() == pytest.approx(golden, abs=1e-4)
    assert pipe.speakers == ["ann", "bob"] and hub.trained(pipe)["steps"] == 1
