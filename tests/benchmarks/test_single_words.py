"""Tests of genkit/benchmarks/single_words.py, with a recogniser and a voice of the test's own."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from genkit.benchmarks import single_words
from genkit.data.sentences import HELD_OUT, vocabulary


class Loop:
    """Hears the word whose number a sound's first sample is; nothing in a sound of zeros."""

    def __init__(self, words):
        self.words = words

    def hear(self, audio):
        number = int(audio[0])
        return [self.words[number]] if number else []


def spoken(pipeline_words):
    """A pipeline of two voices: "ann" says every word, "bob" is silent; sounds are padded."""

    def call(words, voice, generator):
        assert len(generator) == len(words)
        numbers = [pipeline_words.index(word) if voice == "ann" else 0 for word in words]
        audios = torch.tensor(numbers, dtype=torch.float)[:, None, None].repeat(1, 1, 3)
        return SimpleNamespace(audios=audios, lengths=torch.full((len(words),), 2))

    call.speakers = ["ann", "bob"]
    return call


@pytest.fixture
def heard(monkeypatch):
    monkeypatch.setattr(single_words, "heard_here", lambda: True)
    monkeypatch.setattr(single_words, "WordLoop", Loop)


def test_each_voice_has_its_share(heard, monkeypatch):
    words = vocabulary()
    monkeypatch.setattr(single_words, "flite_voices", lambda: ["bob"])
    monkeypatch.setattr(
        single_words, "by_flite", lambda voice, asked: [torch.ones(1) * words.index(asked[0])] * 20
    )
    monkeypatch.setattr(single_words, "WORDS", {"known": single_words.KNOWN})
    found = single_words.single_words(spoken(words))
    shares = {"recognised": {"ann": 1.0, "bob": 0.0}, "flite": {"bob": 1 / 20}}
    assert found == {"known": {"words": 20} | shares}
    (line,) = single_words.told(found or {})
    assert line == "of 20 known words, said alone, recognised: ann 100%, bob 0% (flite 5%)"


def test_words_are_of_the_grammar_and_some_are_held_out():
    assert set(single_words.KNOWN) <= set(vocabulary()) - HELD_OUT
    assert set(single_words.WORDS["held_out"]) <= set(vocabulary())


def test_without_its_packages_less_is_said(heard, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = single_words.single_words(spoken(vocabulary()))
    assert found is not None and all(row["flite"] == {} for row in found.values())
    monkeypatch.setattr(single_words, "heard_here", lambda: False)
    assert single_words.single_words(spoken(vocabulary())) is None


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite: apt-get install flite")
def test_flite_says_a_word():
    assert "slt" in single_words.flite_voices()
    (sound,) = single_words.by_flite("slt", ["apple"])
    assert sound.ndim == 1 and len(sound) > 4000 and sound.abs().max() > 0.05
