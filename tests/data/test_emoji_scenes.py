"""Emoji scenes: fixed pictures, places and relations, and that captions tell the truth."""

import hashlib
from itertools import combinations

import numpy as np
import pytest
import torch

from genkit import data
from genkit.data import emoji_scenes
from genkit.data.emoji_scenes import LENGTHS, Scene, load, names, scenes, scenes_of
from genkit.data.scenes import BACKGROUNDS, SPLITS, Asked, read, split_of


@pytest.fixture(scope="module")
def made() -> list[Scene]:
    return [each for split in SPLITS for each in scenes(split, 700)]


def middles(each: Scene) -> list[tuple[float, float]]:
    half = LENGTHS[each.asked.size or "small"] / 2
    return [(left + half, top + half) for left, top in each.boxes]


def test_the_scenes_never_change():
    """Committed figures stand on these very pictures."""
    samples = load("test", n=50)
    pixels = (samples.x_0 * 127.5 + 127.5).round().byte().numpy().tobytes()
    found = hashlib.sha256(pixels + "\n".join(samples.captions).encode()).hexdigest()[:16]
    assert found == "4c2ae8eef2e0abb5"


def test_the_first_scenes_do_not_depend_on_how_many_there_are():
    few, many = scenes("validation", 5, seed=3), scenes("validation", 20, seed=3)
    assert few == many[:5] and few != scenes("validation", 5, seed=4)
    assert load("test", n=3).captions == load("test", n=9).captions[:3]


def test_sizes_and_values():
    small, large = load("validation", n=6), load("validation", size=64, n=6)
    assert small.x_0.shape == (6, 3, 32, 32) and large.x_0.shape == (6, 3, 64, 64)
    assert small.x_0.dtype == torch.float32 and small.x_0.is_contiguous()
    assert small.x_0.abs().max() <= 1 and large.x_0.abs().max() <= 1
    assert small.captions == large.captions
    assert (small.name, large.name) == ("emoji-scenes", "emoji-scenes-64")
    halved = torch.nn.functional.avg_pool2d(large.x_0, 2)
    assert (halved - small.x_0).abs().mean() < 0.03


def test_captions_tell_what_is_in_the_scene_or_leave_it_open(made):
    test = made[1400:]
    said = emoji_scenes.captions(test, "test")
    open_size = open_background = 0
    for each, caption in zip(test, said, strict=True):
        told, there = read(caption, names()), each.asked
        assert (told.objects, told.count, told.relation) == (
            there.objects,
            there.count,
            there.relation,
        )
        assert told.size in (None, there.size) and told.background in (None, there.background)
        open_size += told.size is None
        open_background += told.background is None
    assert 60 < open_size < 160 and 60 < open_background < 160


def test_every_scene_is_of_its_split(made):
    for i, each in enumerate(made):
        assert split_of(each.asked) == SPLITS[i // 700]


def test_training_captions_hold_out_what_students_are_measured_on():
    train = load("train", n=10)
    test = load("test", n=20)
    assert len(train.held_out) == emoji_scenes.COUNT["test"] and not test.held_out
    assert train.held_out[:20] == test.captions


def test_objects_lie_within_the_scene_and_hide_none(made):
    for each in made:
        length = LENGTHS[each.asked.size or "small"]
        assert (
            len(each.boxes) == len(each.objects) == (2 if each.asked.relation else each.asked.count)
        )
        sides = [side for box in each.boxes for side in box]
        assert all(0 <= side <= 32 - length and side % emoji_scenes.GRID == 0 for side in sides)
        for (x, y), (other_x, other_y) in combinations(each.boxes, 2):
            assert max(abs(x - other_x), abs(y - other_y)) >= length - 2


def test_relations_are_plain_to_see(made):
    seen = set()
    for each in made:
        if each.asked.relation is None:
            continue
        (x, y), (other_x, other_y) = middles(each)
        across, along = other_x - x, other_y - y
        wanted = {
            "left of": across > 1.5 * abs(along),
            "right of": -across > 1.5 * abs(along),
            "above": along > 1.5 * abs(across),
            "below": -along > 1.5 * abs(across),
        }
        assert wanted[each.asked.relation]
        seen.add(each.asked.relation)
    assert len(seen) == 4


def test_what_is_drawn_is_where_the_boxes_say(made):
    """Outside of the boxes lies the background; inside of each, mostly something else."""
    for each in made[::40]:
        picture = (each.render() + 1) / 2
        differs = np.abs(picture - np.float32(each.shade)).max(2) > 0.02
        length, boxes = LENGTHS[each.asked.size or "small"], np.zeros((32, 32), dtype=bool)
        for left, top in each.boxes:
            boxes[top : top + length, left : left + length] = True
            assert differs[top : top + length, left : left + length].mean() > 0.15
        assert not differs[~boxes].any()


def test_shades_stay_nearest_to_their_own_background(made):
    colours = np.array(list(BACKGROUNDS.values())) / 255
    for each in made:
        nearest = np.abs(colours - np.array(each.shade)).sum(1).argmin()
        assert list(BACKGROUNDS)[nearest] == each.asked.background


def test_scenes_of_a_caption_are_what_it_asks_for_and_differ():
    asked = read("a tiny cat above a star", names())
    found = scenes_of(asked, 40)
    told = {(each.asked.objects, each.asked.relation, each.asked.size) for each in found}
    assert told == {((11, 6), "above", "small")}
    assert {each.asked.background for each in found} == set(BACKGROUNDS)
    assert len({each.boxes for each in found}) > 20
    assert found[:3] == scenes_of(asked, 3) and found[0] != scenes_of(asked, 1, seed=1)[0]
    assert {each.asked.size for each in scenes_of(Asked((3,), 2), 20)} == {"small", "large"}


def test_there_are_24_objects_with_names_of_their_own():
    words = [word for both in names() for word in set(both)]
    assert len(names()) == 24 and len(words) == len(set(words))


def test_it_is_found_by_its_name():
    assert "emoji-scenes" in data.names() and data.describe("emoji-scenes").startswith("Emoji")
    with pytest.raises(ValueError, match="train, validation, test"):
        load("valid")
