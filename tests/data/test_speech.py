"""Speech data: sentences of held-out words, a voice from seeds, folders in LJSpeech's layout."""

import numpy as np
import pytest
import torch

from genkit.audio.files import wav_bytes
from genkit.data import default_method, load, open_data, speech_formants
from genkit.data.sentences import HELD_OUT, sentences, split_of, vocabulary, words
from genkit.data.speech_folder import read_folder
from genkit.data.speech_samples import equalised, gather


def test_sentences_and_words_are_held_out():
    train, validation, test = (sentences(split, 300) for split in ("train", "validation", "test"))
    assert not set(train) & set(validation) and not set(train) & set(test)
    known = {word for text in train for word in words(text)}
    assert not known & HELD_OUT
    assert all(
        any(w in HELD_OUT or w[:-1] in HELD_OUT or w == "thieves" for w in words(t)) for t in test
    )
    assert sentences("train", 10) == train[:10] and sentences("train", 10, 1) != train[:10]
    assert {w for t in train for w in words(t)} <= set(vocabulary())
    assert min(len(words(text)) for text in train) == 1
    assert split_of("the cat sees three thieves.") == "test"
    with pytest.raises(ValueError, match="no split"):
        sentences("rest", 1)


def test_training_takes_further_words():
    known = ["dragon", *(f"quince{number}" for number in range(300))]
    made = sentences("train", 300, known=known)
    lists = [text for text in made if "quince" in text]
    assert 80 < len(lists) < 150 and any(text.count(",") == 3 for text in lists)
    assert 25 < sum(len(words(text)) == 1 for text in lists) < 60, "a third are words alone"
    assert not any("dragon" in text for text in made), "a held-out word stays so"
    assert sentences("train", 50, known=known) == made[:50]
    assert sentences("test", 50, known=known) == sentences("test", 50)


def test_the_formant_voice_is_its_seed_and_varies():
    one, ends = speech_formants.speak("a red boat.", 0, np.random.RandomState(3))
    same, _ = speech_formants.speak("a red boat.", 0, np.random.RandomState(3))
    other, later = speech_formants.speak("a red boat.", 0, np.random.RandomState(4))
    assert torch.equal(one, same) and ends != later and len(one) != len(other)
    assert abs(len(one) / 16_000 - ends[-1]) < 1e-3 and ends == sorted(ends)
    assert one.isfinite().all() and 0.1 < one.abs().max() <= 1


def test_formant_speech_is_padded_with_zeros():
    data = speech_formants.load("validation", n=6)
    assert data.x_0.shape == (4, 256, 80) and data.classes == ("low", "high")
    for mel, frames in zip(data.x_0, data.cond["frames"], strict=True):
        assert (mel[:frames] != 0).any(1).all() and not mel[frames:].any()
    with pytest.raises(ValueError, match="no split"):
        load("speech-formants", "rest")


def test_equalising_keeps_the_length_and_colours():
    audio = torch.randn(3001).clamp(-1, 1) * 0.1
    made = equalised(audio, np.random.RandomState(0))
    assert len(made) == 3001 and not torch.allclose(made, audio, atol=1e-3)


def test_long_utterances_are_left_out_and_told(capsys):
    quick = torch.rand(1000)
    data = gather([(quick, "a.", 0), (torch.rand(256 * 20), "b.", 0)], "toy", ("x",), frames=10)
    assert data.captions == ("a.",) and "1 utterances above" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no utterance"):
        gather([(torch.rand(256 * 20), "b.", 0)], "toy", ("x",), frames=10)


def folder(path, ids=("train-1", "validation-1", "test-1"), line="{id}|Cat 3.|cat three.|slt"):
    (path / "wavs").mkdir(parents=True)
    for each in ids:
        sound = torch.sin(torch.arange(4000) / 9)
        (path / "wavs" / f"{each}.wav").write_bytes(wav_bytes(sound, 16_000))
    (path / "metadata.csv").write_text("".join(line.format(id=each) + "\n" for each in ids))
    return path


def test_a_folder_is_read_with_its_splits(tmp_path):
    path = folder(tmp_path / "speech")
    data = open_data(str(path), 0)
    assert data.captions == ("cat three.",) and data.classes == ("slt",)
    assert data.held_out == ("cat three.",) and int(data.cond["frames"][0]) == 16
    assert load(str(path), "test").captions == ("cat three.",)


def test_plain_ljspeech_is_split_by_its_ids(tmp_path):
    ids = [f"LJ001-{k:04d}" for k in range(120)]
    path = folder(tmp_path / "lj", ids, "{id}|A cat.")
    parts = {split: read_folder(path, split) for split in ("train", "validation", "test")}
    assert sum(len(part) for part in parts.values()) == 120 and len(parts["train"]) > 105


@pytest.mark.parametrize(
    ("line", "told"),
    [("{id}", "line 1 of"), ("{id}|a|b|c|d", "line 1 of"), ("none|a cat.", "no sound file")],
)
def test_what_is_wrong_in_a_folder_is_told(tmp_path, line, told):
    path = folder(tmp_path / "bad", ("test-1",), line)
    with pytest.raises(ValueError, match=told):
        read_folder(path, "test" if "none" not in line else "train")


def test_an_empty_split_and_missing_flite_speech_are_told(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no utterance of the split"):
        read_folder(folder(tmp_path / "x", ("train-1", "test-1")), "validation")
    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="make_speech.py"):
        load("speech-flite")


def test_data_say_by_which_method_a_teacher_is_trained(tmp_path):
    from genkit.commands.running import _method
    from genkit.commands.train import Train

    assert [default_method(each) for each in ("speech-flite", "speech-formants")] == ["edm"] * 2
    assert default_method("digits") == default_method(str(tmp_path)) == "flow_matching"
    (tmp_path / "wavs").mkdir()
    (tmp_path / "metadata.csv").write_text("")
    assert default_method(str(tmp_path)) == "edm"
    assert _method(["--data", "speech-formants"], {}, Train) == ("edm", False)
    assert _method(["--max-steps", "3"], {}, Train) == ("flow_matching", False)
    assert _method(["erw", "--data", "speech-formants"], {}, Train) == ("erw", True)
