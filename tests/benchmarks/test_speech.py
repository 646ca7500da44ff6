"""Tests of genkit/benchmarks/speech.py on a tiny voice of random weights."""

import json
from pathlib import Path

import pytest
import torch

from genkit import cli
from genkit.benchmarks import speech
from genkit.hub import make_scheduler, save_pipeline
from genkit.networks.speech import SpeechDecoder, SpeechEncoder
from genkit.networks.vocoder import Vocoder
from genkit.paths import EDM
from genkit.phonemes import SYMBOLS
from genkit.sampling import Sampler
from genkit_pipelines.speech.text_to_speech import TextToSpeechPipeline


def save(out: Path, steps: int, **record) -> str:
    torch.manual_seed(0)
    encoder = SpeechEncoder(len(SYMBOLS), ("ann", "bob"), False, width=16, layers=1).eval()
    decoder = SpeechDecoder(80, 128, width=16, depth=2, voice_width=16)
    scheduler = make_scheduler(Sampler(steps), EDM(), "x_0", 1.0)
    made = TextToSpeechPipeline(encoder, decoder, scheduler, Vocoder(width=16, depth=2, window=16))
    save_pipeline(made, out, {"steps": steps, "guidance": 1.0, **record}, "")
    return str(out)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A student of one step that names a teacher."""
    out = tmp_path_factory.mktemp("voices")
    return save(out / "student", 1, teacher=save(out / "teacher", 5))


@pytest.fixture
def quick(monkeypatch):
    """Seconds that are asked for, words that are heard and the fresh process cost time."""
    monkeypatch.setattr(speech, "ASKED", (1.0, 2.0))
    words = {"known": {"words": 2, "recognised": {"ann": 0.5}, "flite": {}}}
    monkeypatch.setattr(speech, "single_words", lambda pipeline: words)
    fresh = {"open_ms": 1.0, "first_chunk_ms": 2.0, "second_stream_ms": 3.0}
    monkeypatch.setattr(speech, "cold", lambda name, text: fresh)


def test_the_command_writes_what_it_measures(student, quick, tmp_path, capsys):
    file = tmp_path / "bench.json"
    given = ["--rounds", "1", "--teacher-steps", "5", "--threads", "1", "--json", str(file)]
    threads = torch.get_num_threads()
    assert cli.main(["bench", "speech", student, *given]) == 0
    assert torch.get_num_threads() == threads
    held = json.loads(file.read_text())
    row = held["threads"]["1"]
    assert (row["student"]["steps"], row["teacher"]["steps"]) == (1, 5)
    assert row["times_faster"]["decoder"] > 1 and row["first_chunk_ms"] > 0
    assert max(held["frames_off"].values()) < 1 and held["batch_beside_singles"] < 1e-4
    out = capsys.readouterr().out
    assert "real-time factor" in out and "of 2 known words, said alone, recognised: ann 50%" in out


def test_parts_of_a_call_add_up_to_it(student):
    pipeline = speech.hub.Pipeline.from_pretrained(student)
    row = speech.spoken(pipeline, speech.Settings(rounds=1), None)
    parts = ("text", "durations", "decoder", "vocoder", "rest")
    assert sum(row[f"{part}_ms"] for part in parts) == pytest.approx(1000 * row["total_s"], rel=0.2)
    assert min(row[f"{part}_ms"] for part in parts[:4]) > 0
    assert not pipeline.network._forward_hooks and not pipeline.network._forward_pre_hooks


def test_a_batch_that_is_not_its_singles_is_seen(student, monkeypatch):
    pipeline = speech.hub.Pipeline.from_pretrained(student)
    decoded = pipeline._decoded
    pipeline._decoded = lambda pieces, *rest: [x + len(pieces) for x in decoded(pieces, *rest)]
    monkeypatch.setattr(speech, "SINGLES", ("Go.", "No."))
    assert speech.batch_beside_singles(pipeline) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.slow
def test_a_fresh_process_speaks(student):
    found = speech.cold(student, "Go.")
    assert min(found.values()) > 0


def test_what_cannot_be_is_one_sentence(capsys):
    assert cli.main(["bench", "speech", "digits-onestep"]) == 2
    assert "is no pipeline of speech; give one that says a text" in capsys.readouterr().err
    with pytest.raises(ValueError, match="numbers from 1 on"):
        speech.Settings(threads=(0,))
