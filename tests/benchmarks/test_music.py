"""`genkit bench music`: a short song of random weights, its parts, real music as a ceiling."""

import json

import pytest
import torch

from genkit.benchmarks import music
from genkit.cli import main
from genkit.data import music_tones


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A saved pipeline with tiny networks that knows the instruments of the tones."""
    from genkit.data.songs import INSTRUMENTS
    from genkit.hub import make_scheduler, save_pipeline
    from genkit.networks.music import MusicTransformer
    from genkit.networks.music_codec import MusicCodec
    from genkit.networks.text import TEXT_WIDTH, text_encoder, word_tokenizer
    from genkit.paths import RectifiedFlow
    from genkit.sampling import Sampler
    from genkit_pipelines.music.text_to_music import MusicPipeline

    torch.manual_seed(0)
    tokenizer = word_tokenizer(["flute melody"])
    network = MusicTransformer(4, 192, tuple(INSTRUMENTS), 16, 1, 2, 32, 8, TEXT_WIDTH)
    codec = MusicCodec(4, 16, 1, 16, 1, 1, 16).eval()
    scheduler = make_scheduler(Sampler(2), RectifiedFlow(), "velocity", 1000.0)
    encoder = text_encoder(len(tokenizer)).eval()
    made = MusicPipeline(tokenizer, encoder, network.eval(), scheduler, codec)
    facts = {"steps": 2, "guidance": 1.0, "method": "flow_matching", "data": "music-tones"}
    monkeypatch.setattr(music_tones, "COUNT", {"train": 2, "validation": 2, "test": 4})
    return str(save_pipeline(made, tmp_path / "p", facts))


def test_parts_add_up_and_real_music_is_the_ceiling(tiny, tmp_path, capsys):
    file = tmp_path / "m.json"
    flags = ["--seconds", "2", "--steps", "1,2", "--rounds", "1", "--n", "8"]
    assert main(["bench", "music", tiny, *flags, "--data", "music-tones", "--json", str(file)]) == 0
    told = json.loads(file.read_text())
    for row in told["rows"]:
        parts = row["prepare_s"] + row["network_s"] + row["codec_s"]
        assert parts == pytest.approx(row["total_s"]) and min(row.values()) >= 0
    assert told["memory_mb"] >= 0 and told["weights"]["bf16_mb"] > 0
    real, made = told["ceiling"]["real"], told["ceiling"]["through the codec"]
    assert real["chords"] > made["chords"] and real.keys() == made.keys()
    assert "memory beyond the weights" in capsys.readouterr().out


def test_what_makes_no_music_is_refused():
    with pytest.raises(ValueError, match="makes no music"):
        music.measure(music.Settings(pipeline="digits-teacher"))
    with pytest.raises(ValueError, match="rounds is 0"):
        music.Settings(rounds=0)
    with pytest.raises(ValueError, match="from 1 on"):
        music.Settings(steps=(0,))


def test_weights_of_the_default_fit_what_is_shipped():
    """Codec, text encoder and transformer in bfloat16."""
    assert music.weights(music.random_pipeline())["bf16_mb"] < 20
