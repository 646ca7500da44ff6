"""English text as phonemes: a dictionary, letter-to-sound rules of our own, numbers read out."""

from genkit.phonemes.reading import (
    SYMBOLS,
    dictionary_words,
    has_dictionary,
    ids,
    phonemes,
    sentences,
)

__all__ = ["SYMBOLS", "dictionary_words", "has_dictionary", "ids", "phonemes", "sentences"]
