"""The grammar of emoji scenes: what a scene may hold, its caption, and which combinations are new.

A scene is one to three of one object, or two objects in a relation, in one of two sizes on one of
eight backgrounds. Nothing is random but places and shades, so one caption has many pictures.

Splits are by combination: (objects, relation) and (count, background) of "validation" and "test"
are never seen in "train", though each object, relation, count and background is. "A left of B" and
"B right of A" are one combination.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

SPLITS = ("train", "validation", "test")
SIZES = ("small", "large")
RELATIONS = ("left of", "right of", "above", "below")
COUNTS = ("a", "two", "three")
BACKGROUNDS = {
    "white": (244, 244, 244),
    "gray": (152, 152, 156),
    "black": (38, 38, 44),
    "pink": (248, 176, 200),
    "yellow": (248, 228, 128),
    "green": (150, 214, 150),
    "blue": (132, 180, 240),
    "purple": (188, 156, 232),
}
# One word may be said in several ways; the first is the plain one.
SAID = {
    "a": ("a", "one"),
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "gray": ("gray", "grey"),
}


@dataclass(frozen=True)
class Asked:
    """What a caption says. objects: one index, or two with a relation. size, background: None where
    the caption leaves them open."""

    objects: tuple[int, ...]
    count: int = 1
    relation: str | None = None
    size: str | None = None
    background: str | None = None


def split_of(asked: Asked) -> str:
    """The split a combination belongs to; one without relation and background is everywhere's, and
    is called "train"."""
    names = list(BACKGROUNDS)
    if asked.relation is not None:
        first, second = asked.objects
        if asked.relation in ("right of", "below"):
            first, second = second, first
        upright = asked.relation in ("above", "below")
        number = (7 * first + 3 * second + 5 * upright) % 10
    elif asked.background is not None:
        # Of 24 combinations, one of each count is the test's and one the validation's.
        place = names.index(asked.background)
        number = (place - 3 * (asked.count - 1)) % len(names)
    else:
        return "train"
    return {0: "test", 1: "validation"}.get(number, "train")


def draw(rng: np.random.RandomState, split: str, objects: int) -> Asked:
    """A random scene's attributes, all of them given, of one split."""
    related = rng.randint(2)
    while True:
        size = SIZES[rng.randint(2)]
        background = list(BACKGROUNDS)[rng.randint(len(BACKGROUNDS))]
        if related:
            first, second = rng.choice(objects, 2, replace=False)
            relation = RELATIONS[rng.randint(len(RELATIONS))]
            asked = Asked((int(first), int(second)), 1, relation, size, background)
        else:
            count = 1 + rng.randint(len(COUNTS))
            asked = Asked((rng.randint(objects),), int(count), None, size, background)
        if split_of(asked) == split:
            return asked


def caption(asked: Asked, names: list[tuple[str, str]], rng: np.random.RandomState | None) -> str:
    """The sentence of `asked`; names are (singular, plural). rng chooses the words, None the plain
    ones."""

    def say(word: str) -> str:
        ways = SAID.get(word, (word,))
        return ways[0] if rng is None else ways[rng.randint(len(ways))]

    def noun(index: int, count: int) -> str:
        size = "" if asked.size is None else f"{say(asked.size)} "
        return f"{say(COUNTS[count - 1])} {size}{names[index][count > 1]}"

    said = noun(asked.objects[0], asked.count)
    if asked.relation is not None:
        said = f"{said} {say(asked.relation)} {noun(asked.objects[1], 1)}"
    if asked.background is not None:
        said = f"{said} on a {say(asked.background)} background"
    return said


def read(text: str, names: list[tuple[str, str]]) -> Asked:
    """What a caption asks for; the inverse of `caption`.

    ValueError for a sentence this grammar does not have.
    """
    means = {way: word for word, ways in SAID.items() for way in ways}
    rest, background = text.lower().strip(), None
    if match := re.fullmatch(r"(.*) on a (\w+) background", rest):
        rest, background = match[1], means.get(match[2], match[2])
    relation, nouns = None, [rest]
    for way in sorted((way for each in RELATIONS for way in SAID[each]), key=len, reverse=True):
        if f" {way} " in rest:
            relation, nouns = means[way], rest.split(f" {way} ")
            break
    counts, sizes, objects = [], [], []
    for noun in nouns:
        match = re.fullmatch(r"(\w+) (?:(\w+) )?(\w+)", noun)
        found = [i for i, both in enumerate(names) if match and match[3] in both]
        count = means.get(match[1], match[1]) if match else ""
        size = match and match[2] and means.get(match[2], match[2])
        if not found or count not in COUNTS or size not in (None, *SIZES):
            raise ValueError(f"{text!r} is no caption of an emoji scene")
        counts.append(COUNTS.index(count) + 1)
        sizes.append(size)
        objects.append(found[0])
    if background not in (None, *BACKGROUNDS):
        raise ValueError(f"{text!r} names the background {background!r}, which no scene has")
    return Asked(tuple(objects), counts[0], relation, sizes[0], background)
