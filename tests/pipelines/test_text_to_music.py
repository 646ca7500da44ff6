"""MusicPipeline: exact lengths, batch equals singles, stream equals whole, saved is open.

Its networks are random and tiny: nothing of how it sounds is tested here.
"""

from functools import cache

import pytest
import torch

import genkit
from genkit.denoisers.diffusers import as_denoiser
from genkit.harmony import Plan, degree, key_number
from genkit.hub import make_scheduler, save_pipeline
from genkit.networks.music import MusicTransformer
from genkit.networks.music_codec import MusicCodec
from genkit.networks.text import TEXT_WIDTH, text_encoder, word_tokenizer
from genkit.paths import RectifiedFlow
from genkit.rng import sample_generators, sample_noise
from genkit.sampling import Sampler
from genkit_pipelines.music.text_to_music import MusicPipeline

RATE, LATENT = 22_050, 1024
NAMES = ("piano", "flute")


@cache
def pipeline(steps: int = 2) -> MusicPipeline:
    torch.manual_seed(0)
    tokenizer = word_tokenizer(["flute melody rock drums", "piano melody"])
    network = MusicTransformer(4, 24, NAMES, 16, 2, 2, 32, 8, TEXT_WIDTH)
    for zero in (network.modulation, network.final, network.leave):
        torch.nn.init.normal_(zero.weight, std=0.1)
    codec = MusicCodec(4, 16, 1, 16, 1, 2, 16).eval()
    codec.settle(torch.zeros(4), torch.ones(4))
    scheduler = make_scheduler(Sampler(steps), RectifiedFlow(), "velocity", 1000.0)
    encoder = text_encoder(len(tokenizer)).eval()
    return MusicPipeline(tokenizer, encoder, network.eval(), scheduler, codec)


def one(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SHORT = {"audio_end_in_s": 2.0, "num_inference_steps": 2}


def test_a_call_says_what_it_made():
    made = pipeline()("flute melody", bpm=120, key="A minor", generator=one(), **SHORT)
    assert made.sample_rate == RATE and made.audios.shape == (1, 1, 2 * RATE)
    assert made.audios.isfinite().all() and made.audios.std() > 0
    assert made.alignment[0] == [(made.alignment[0][0][0], 0.0, 2.0)]  # one bar of two seconds


@pytest.mark.parametrize("seconds", [0.001, 1.0, 61.7])
def test_lengths_are_exact(seconds):
    made = pipeline()("", audio_end_in_s=seconds, num_inference_steps=1, generator=one())
    assert int(made.lengths[0]) == round(seconds * RATE) == made.audios.shape[2]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_batch_is_its_singles(guidance):
    prompts = ["flute melody rock drums", "piano melody"]
    kwargs = SHORT | {"output_type": "latent", "guidance_scale": guidance}
    both = pipeline()(prompts, generator=sample_generators(0, 2), **kwargs).audios
    for i, prompt in enumerate(prompts):
        own = [sample_generators(0, 2)[i]]
        alone = pipeline()(prompt, generator=own, **kwargs).audios
        assert torch.allclose(both[i], alone[0], atol=1e-4)


@pytest.mark.parametrize("chunk", [0.01, 1.0, 100.0])
def test_a_stream_is_the_whole_bit_for_bit(chunk):
    asked = {"audio_end_in_s": 3.21, "num_inference_steps": 2, "chords": ["C", "Am"]}
    whole = pipeline()("flute melody", guidance_scale=2.0, generator=one(), **asked).audios[0]
    chunks = list(
        pipeline().stream(
            "flute melody", guidance_scale=2.0, generator=one(), chunk_in_s=chunk, **asked
        )
    )
    assert torch.equal(torch.cat([each.samples for each in chunks], 1), whole)
    assert [each.is_last for each in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunk > 2 or len(chunks) > 2


def test_a_broken_stream_leaves_the_pipeline_usable():
    before = pipeline()("", generator=one(), **SHORT).audios
    stream = pipeline().stream("flute", generator=one(), **SHORT)
    next(stream)
    stream.close()
    assert torch.equal(pipeline()("", generator=one(), **SHORT).audios, before)


def test_saved_and_opened_it_is_the_same(tmp_path):
    facts = {"steps": 2, "guidance": 1.5, "method": "flow_matching"}
    made = pipeline.__wrapped__()  # saving tells a pipeline its defaults
    folder = save_pipeline(made, tmp_path / "p", facts)
    opened = genkit.Pipeline.from_pretrained(folder)
    assert type(opened) is MusicPipeline and opened.instruments == list(NAMES)
    asked = {"audio_end_in_s": 2.0, "guidance_scale": 1.5, "num_inference_steps": 2}
    a, b = (each("flute", generator=one(), **asked).audios for each in (made, opened))
    assert torch.equal(a, b)
    assert torch.equal(opened("flute", audio_end_in_s=2.0, generator=one()).audios, a)


def test_conditions_give_what_the_denoiser_samples():
    """The pipeline on given conditions and noise, against its network as a teacher's Denoiser."""
    pipe = pipeline()
    loaded = as_denoiser(pipe)
    assert loaded.latent == (24, 4) and loaded.denoiser.path.name == "rectified_flow"
    plans = [Plan(120.0, (0, 21), (1, 1)), Plan(90.0, (3,), (2,))]
    text = pipe.encode_prompt(["flute", "piano melody"])
    cond = pipe.conditions(text, plans, [0, 15], [1, 2], 5, 24)
    noise = sample_noise((24, 4), sample_generators(3, 2))
    made = pipe(conditions=cond, latents=noise, num_inference_steps=2, output_type="latent").audios
    assert torch.equal(made, loaded.denoiser.sample(noise, cond, pipe.scheduler, 2))


def test_a_piece_keeps_to_its_plan():
    """What is asked for changes what comes out, each of it."""
    plain = {"bpm": 100.0, "key": "C major", "instrument": "piano", "chords": ["C", "F"]}
    kwargs = SHORT | {"output_type": "latent"}
    base = pipeline()("flute melody", generator=one(), **plain, **kwargs).audios
    others = {"bpm": 101.0, "key": "C minor", "instrument": "flute", "chords": ["Am", "F"]}
    for name, value in others.items():
        made = pipeline()("flute melody", generator=one(), **(plain | {name: value}), **kwargs)
        assert not torch.equal(made.audios, base), name
    assert pipeline().instrument_number(None, "soft FLUTE, drums") == 1
    assert pipeline().instrument_number(None, "drums") == 2


def test_chords_come_from_the_key_and_the_seed():
    asked = {"key": "G major", "bpm": 120.0, "audio_end_in_s": 40.0, "num_inference_steps": 1}
    first, again, other = (
        [span[0] for span in pipeline()("", generator=one(seed), **asked).alignment[0]]
        for seed in (1, 1, 2)
    )
    assert first == again and len(first) == 20 and first != other
    assert first[-1] == "G" and first[-2] == "D" and degree(key_number("G major"), "V") == 2


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"bpm": 0}, "bpm is 0"),
        ({"key": "H major"}, "'H major' is no key"),
        ({"audio_end_in_s": 0}, "audio_end_in_s is 0"),
        ({"audio_end_in_s": 7200}, "at most 285 seconds"),
        ({"instrument": "kazoo"}, "there are piano, flute"),
        ({"chords": []}, "chords is"),
        ({"chords": ["C7"]}, "'C7' is no chord"),
        ({"prompt": 7}, "prompt is 7"),
        ({"prompt": []}, "give a string"),
        ({"num_waveforms_per_prompt": 0}, "at least 1"),
        ({"output_type": "mp3"}, "unknown output_type"),
        ({"generator": [torch.Generator(), torch.Generator()]}, "2 generators for 1"),
        ({"num_inference_steps": 0}, "give at least 1"),
    ],
)
def test_what_cannot_be_played_is_said(asked, told):
    with pytest.raises(ValueError, match=told) as error:
        pipeline()(**{"prompt": "flute", "num_inference_steps": 1} | asked)
    assert "\n" not in str(error.value)
