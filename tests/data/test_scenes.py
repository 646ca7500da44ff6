"""The grammar of emoji scenes: what is held out, and captions and their reading."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from genkit.data import scenes
from genkit.data.scenes import BACKGROUNDS, RELATIONS, SIZES, SPLITS, Asked, caption, draw, read
from genkit.data.scenes import split_of as split

NAMES = [("apple", "apples"), ("cactus", "cacti"), ("fish", "fish"), ("star", "stars")]
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def everything(objects: int) -> list[Asked]:
    """Every combination, all attributes given."""
    looks = list(product(SIZES, BACKGROUNDS))
    counted = [
        Asked((which,), count, None, size, background)
        for which in range(objects)
        for count in (1, 2, 3)
        for size, background in looks
    ]
    related = [
        Asked(pair, 1, relation, size, background)
        for pair in permutations(range(objects), 2)
        for relation in RELATIONS
        for size, background in looks
    ]
    return counted + related


def unordered(asked: Asked) -> tuple:
    """What a split is made by: "A left of B" and "B right of A" are one."""
    if asked.relation is None:
        return asked.count, asked.background
    first, second = asked.objects
    if asked.relation in ("right of", "below"):
        first, second = second, first
    return first, second, asked.relation in ("above", "below")


def test_splits_are_disjoint_by_combination():
    found: dict[tuple, set[str]] = {}
    for each in everything(24):
        found.setdefault(unordered(each), set()).add(split(each))
    assert all(len(splits) == 1 for splits in found.values())
    for name, least, most in (("train", 0.7, 0.85), ("validation", 0.08, 0.15)):
        share = sum(splits == {name} for splits in found.values()) / len(found)
        assert least < share < most, name


def test_mirrored_relations_are_one_combination():
    for each in everything(8):
        if each.relation is not None:
            told = replace(each, objects=each.objects[::-1], relation=OPPOSITE[each.relation])
            assert split(told) == split(each)


def test_train_has_seen_every_part_of_what_is_held_out():
    train = [each for each in everything(24) if split(each) == "train"]
    assert {each.background for each in train if not each.relation} == set(BACKGROUNDS)
    for count in (1, 2, 3):
        assert {o for e in train if e.count == count and not e.relation for o in e.objects} == set(
            range(24)
        )
    for relation in RELATIONS:
        for place in (0, 1):
            seen = {each.objects[place] for each in train if each.relation == relation}
            assert seen == set(range(24))


@pytest.mark.parametrize("name", SPLITS)
def test_draws_are_of_their_split(name):
    rng = np.random.RandomState(0)
    drawn = [draw(rng, name, 24) for _ in range(500)]
    assert {split(each) for each in drawn} == {name}
    related = sum(each.relation is not None for each in drawn)
    assert 150 < related < 350
    assert all(len(set(each.objects)) == len(each.objects) for each in drawn)


def test_reading_is_the_inverse_of_saying():
    rng = np.random.RandomState(0)
    n = 0
    for each in everything(4):
        for size, background in product((each.size, None), (each.background, None)):
            asked = replace(each, size=size, background=background)
            for words in (None, rng, rng):
                assert read(caption(asked, NAMES, words), NAMES) == asked
                n += 1
    assert n > 5000


def test_plain_captions():
    asked = Asked((1,), 3, None, "small", "gray")
    assert caption(asked, NAMES, None) == "three small cacti on a gray background"
    asked = Asked((0, 3), 1, "left of")
    assert caption(asked, NAMES, None) == "a apple left of a star"
    assert read("One Star UNDER one Apple ", NAMES) == Asked((3, 0), 1, "below")


def test_every_way_to_say_a_word_means_that_word_only():
    ways = [way for said in scenes.SAID.values() for way in said]
    assert len(ways) == len(set(ways))
    assert all(said[0] == word for word, said in scenes.SAID.items())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a dog",
        "four stars",
        "a star beside a fish",
        "a pale star",
        "stars",
        "a star on a table",
    ],
)
def test_what_is_no_caption_is_said(text):
    with pytest.raises(ValueError, match="no caption of an emoji scene"):
        read(text, NAMES)


def test_an_unknown_background_is_named():
    with pytest.raises(ValueError, match="'orange', which no scene has"):
        read("a star on a orange background", NAMES)
