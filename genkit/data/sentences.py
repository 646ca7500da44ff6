"""Sentences to be spoken, by a small grammar of our own; some are held out, some words too.

A sentence with a word of the held-out lists is "test"; of the others a tenth, told by a hash, is
"validation", the rest "train". So validation has new sentences of known words, and every test
sentence a word that was never trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "validation", "test")
LISTED = 1 / 3  # of the sentences trained on, where there are further words
ALONE = 1 / 3  # of those, a word by itself
NOUNS = (
    "apple baker basket bell bird boat book bottle bridge brother candle captain castle cat chair "
    "child clock cloud coat cousin crow daisy doctor dog door dragon driver eagle engine farmer "
    "feather fence fiddle field fire fish flower forest fox friend garden ghost giant girl goat "
    "hammer harbour hat hill horse house island jacket journey judge kettle king kitchen ladder "
    "lamp leaf letter lion market meadow mirror monkey moon mother mouse needle neighbour nurse "
    "ocean orange owl painter paper path pencil piano pigeon pocket queen rabbit river road robin "
    "sailor school shadow sheep shoe singer sister soldier spoon star stone storm table teacher "
    "thief tiger tower train tree valley village violin wagon watch whale wheel window winter wolf"
).split()
ADJECTIVES = (
    "angry blue brave bright broken busy careful cheerful clever cold curious dark dusty early "
    "empty famous fast final foolish free gentle golden grateful green happy heavy hidden hungry "
    "large lazy little lonely long loud lucky modern narrow new noisy old patient pink pretty "
    "proud quick quiet red rich round sharp short silver simple sleepy slow small smooth soft "
    "strange strong sudden sweet tall thin tiny tired warm wet white wide wild wise wooden yellow"
).split()
VERBS = (
    "admires answers borrows breaks brings builds buys calls carries catches chases chooses cleans "
    "covers draws drops finds follows forgets gives guards hears helps hides holds keeps knows "
    "leaves likes loses loves makes meets misses moves needs notices opens paints passes pulls "
    "pushes reaches remembers repairs saves sees sells sends shakes shows steals studies takes "
    "teaches throws touches trusts visits wants washes watches"
).split()
PLACES = (
    "above the roof|across the bay|after supper|along the coast|among the trees|at midnight|"
    "before breakfast|behind the barn|below the cliff|beside the lake|between two walls|"
    "by the fireplace|during the night|for a while|from a distance|in the morning|in silence|"
    "inside the cave|near the station|on a sunny day|on the balcony|outside the church|"
    "over the fields|through the fog|towards the sea|under the stairs|with a smile|without a word"
).split("|")
COUNTS = ("two", "three", "four", "five", "six", "seven", "nine", "ten", "twelve", "twenty")
OPENINGS = ("today", "perhaps", "at last", "every week", "long ago", "suddenly", "of course")
HELD_OUT = set(
    "basket captain dragon engine feather harbour journey ladder mirror orange pigeon shadow "
    "thief violin whale brave clever golden lonely narrow patient silver sudden wild borrows "
    "chases draws guards notices repairs steals throws".split()
)


def _one(rng: np.random.RandomState, words: Sequence[str]) -> str:
    return words[rng.randint(len(words))]


def _thing(rng: np.random.RandomState) -> str:
    """A noun with what stands before it."""
    kind = rng.randint(4)
    noun = _one(rng, NOUNS)
    if kind == 3:
        plural = noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
        irregular = {"child": "children", "mouse": "mice", "sheep": "sheep", "wolf": "wolves"}
        irregular |= {"leaf": "leaves", "thief": "thieves", "fish": "fish"}
        irregular |= {"daisy": "daisies"}
        return f"{_one(rng, COUNTS)} {irregular.get(noun, plural)}"
    head = ("the", "my", "that")[kind]
    return f"{head} {_one(rng, ADJECTIVES)} {noun}" if rng.rand() < 0.6 else f"{head} {noun}"


def sentence(rng: np.random.RandomState) -> str:
    """A sentence of 3 to 14 words, or now and then of one or two."""
    form = rng.rand()
    if form < 0.05:
        return f"{_one(rng, NOUNS)}."
    if form < 0.1:
        return f"{_one(rng, ADJECTIVES)} {_one(rng, NOUNS)}."
    actor = f"the {_one(rng, ADJECTIVES)} {_one(rng, NOUNS)}"
    actor = f"the {_one(rng, NOUNS)}" if rng.rand() < 0.4 else actor
    said = f"{actor} {_one(rng, VERBS)} {_thing(rng)}"
    if form < 0.55:
        said = f"{said} {_one(rng, PLACES)}"
    elif form < 0.7:
        said = f"{_one(rng, OPENINGS)}, {said}"
    elif form < 0.8:
        return f"where is the {_one(rng, ADJECTIVES)} {_one(rng, NOUNS)}?"
    return f"{said}."


def words(text: str) -> list[str]:
    """The words of a sentence of this grammar."""
    return text.strip(".?").replace(",", "").split()


def split_of(text: str) -> str:
    """The split a sentence belongs to. A plural of a held-out noun is held out too."""
    forms = {form for word in words(text) for form in (word, word.removesuffix("s"))}
    forms |= {"thief"} if "thieves" in forms else set()
    if forms & HELD_OUT:
        return "test"
    first = hashlib.sha256(text.encode()).digest()[0]
    return "validation" if first < 26 else "train"


def listed(rng: np.random.RandomState, known: Sequence[str]) -> str:
    """One of the known words by itself, or two to five, one after the other."""
    if rng.rand() < ALONE:
        return f"{_one(rng, known)}."
    *first, last = (_one(rng, known) for _ in range(rng.randint(2, 6)))
    return f"{', '.join(first)} and {last}."


def sentences(split: str, n: int, seed: int = 0, known: Sequence[str] = ()) -> list[str]:
    """n different sentences of a split; the first of them are the same for any larger n.

    known: words beyond the grammar's, of which a third of "train" are lists, so that sounds stand
    in more company than the grammar's few hundred words have; the held-out ones are left out.
    """
    if split not in SPLITS:
        raise ValueError(f"sentences have no split {split!r}; choose one of {', '.join(SPLITS)}")
    rng = np.random.RandomState([SPLITS.index(split), seed])
    found: dict[str, None] = {}
    while len(found) < n:
        broad = split == "train" and len(known) > 0 and rng.rand() < LISTED
        made = listed(rng, known) if broad else sentence(rng)
        if split_of(made) == split:
            found[made] = None
    return list(found)


def vocabulary() -> list[str]:
    """Every word the grammar can say, sorted: for a recogniser's word loop."""
    rng = np.random.RandomState(0)
    fixed = {"the", "my", "that", "where", "is"}
    lists = [NOUNS, ADJECTIVES, VERBS, COUNTS, *(p.split() for p in (*PLACES, *OPENINGS))]
    plurals = {word for _ in range(20_000) for word in _thing(rng).split()}
    return sorted(fixed | plurals | {word for each in lists for word in each})
