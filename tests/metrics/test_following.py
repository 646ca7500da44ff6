"""Prompt following, on made-up detections and on real scenes."""

import math

import pytest
import torch

from genkit.data import emoji_scenes
from genkit.data.scenes import BACKGROUNDS, Asked
from genkit.metrics.detector import MOST, Seen, scene_detector
from genkit.metrics.following import (
    ATTRIBUTES,
    ceiling,
    chance,
    following,
    judge,
    read_captions,
    relation_of,
)


def seen(*scenes: tuple[list[tuple[int, str, float, float]], str]) -> Seen:
    """Detections of scenes, each ([(object, size, x, y)], background), the surest first."""
    n = len(scenes)
    score, place = torch.zeros(n, MOST), torch.zeros(n, MOST, 2)
    which, large = torch.zeros(n, MOST, dtype=torch.int64), torch.zeros(n, MOST, dtype=torch.bool)
    for i, (objects, _) in enumerate(scenes):
        for k, (name, size, x, y) in enumerate(objects):
            score[i, k] = 0.9 - 0.05 * k
            which[i, k], large[i, k], place[i, k] = name, size == "large", torch.tensor([x, y])
    ground = torch.tensor([list(BACKGROUNDS).index(colour) for _, colour in scenes])
    return Seen(score, which, large, place, ground)


CAT, STAR, FISH = 11, 6, 13
PAIR = Asked((CAT, STAR), 1, "left of", "small", "green")


@pytest.fixture(scope="module")
def net():
    return scene_detector()


def judged(asked: Asked, objects, background="green") -> dict[str, float]:
    return {k: float(v[0]) for k, v in judge(seen((objects, background)), [asked]).items()}


def test_all_right():
    right = judged(PAIR, [(CAT, "small", 8, 8), (STAR, "small", 22, 10)])
    assert right == dict.fromkeys(ATTRIBUTES, 1.0)


@pytest.mark.parametrize(
    ("objects", "background", "wrong"),
    [
        ([(STAR, "small", 8, 8), (CAT, "small", 22, 10)], "green", {"relation"}),
        ([(CAT, "small", 8, 8), (STAR, "small", 10, 22)], "green", {"relation"}),
        ([(CAT, "small", 8, 8), (STAR, "large", 22, 10)], "green", {"size"}),
        ([(CAT, "small", 8, 8), (STAR, "small", 22, 10)], "blue", {"background"}),
        ([(CAT, "small", 8, 8), (FISH, "small", 22, 10)], "green", {"objects", "relation"}),
        ([(CAT, "small", 8, 8)], "green", {"objects", "count", "relation"}),
        ([], "green", {"objects", "count", "relation", "size"}),
        (
            [(CAT, "small", 8, 8), (STAR, "small", 22, 10), (STAR, "small", 8, 25)],
            "green",
            {"count"},
        ),
        (
            [(CAT, "small", 8, 8), (STAR, "small", 22, 10), (FISH, "small", 8, 25)],
            "green",
            {"objects", "count"},
        ),
    ],
)
def test_each_attribute_is_judged_by_itself(objects, background, wrong):
    right = judged(PAIR, objects, background)
    assert {name for name, value in right.items() if value == 0} == wrong


def test_only_what_is_stated_counts():
    asked = Asked((FISH,), 3)
    three = [(FISH, "small", 8, 8), (FISH, "large", 22, 10), (FISH, "small", 8, 25)]
    right = judged(asked, three)
    assert right["objects"] == right["count"] == 1
    assert all(math.isnan(right[name]) for name in ("relation", "size", "background"))
    found = following(seen((three, "pink")), [asked])
    assert found["follows"] == found["attributes"] == 1 and math.isnan(found["relation"])


def test_relations():
    places = {0: [10.0, 10.0], 1: [20.0, 13.0], 2: [11.0, 25.0]}
    assert relation_of(places, (0, 1)) == "left of" and relation_of(places, (1, 0)) == "right of"
    assert relation_of(places, (0, 2)) == "above" and relation_of(places, (2, 0)) == "below"
    assert relation_of(places, (0, 3)) is None


def test_the_surest_of_two_alike_is_related():
    objects = [(CAT, "small", 25, 8), (STAR, "small", 15, 10), (CAT, "small", 5, 8)]
    assert judged(PAIR, objects)["relation"] == 0


def test_shares_are_over_captions_that_state_them():
    """Four scenes, known answers."""
    one = [(CAT, "large", 16, 16)]
    pair = [(CAT, "small", 8, 8), (STAR, "small", 22, 10)]
    found = following(
        seen((one, "green"), (one, "pink"), (pair, "green"), (pair[:1], "green")),
        [Asked((CAT,), 1, None, "large"), Asked((CAT,), 2, None, None, "blue"), PAIR, PAIR],
    )
    assert found["objects"] == 3 / 4 and found["count"] == 2 / 4 and found["relation"] == 1 / 2
    assert found["size"] == 1 and found["background"] == 2 / 3 and found["follows"] == 2 / 4
    assert found["attributes"] == pytest.approx((3 / 4 + 2 / 4 + 1 / 2 + 1 + 2 / 3) / 5)


def test_as_many_captions_as_scenes():
    with pytest.raises(ValueError, match="2 captions for 1 scenes"):
        judge(seen(([], "pink")), [PAIR, PAIR])


def test_ceiling_and_chance(net):
    real = emoji_scenes.load("test", n=500, seed=77)
    best = ceiling(real, net)
    assert best["follows"] >= 0.97 and all(best[name] >= 0.98 for name in ATTRIBUTES)
    luck = chance(net.see(real.x_0), read_captions(real.captions))
    assert luck["follows"] < 0.03 and luck["objects"] < 0.1
    assert 0.3 < luck["size"] < 0.7 and luck["background"] < 0.35


def test_a_mirrored_scene_has_its_relation_wrong(net):
    """The twin that is broken on purpose: nothing but left and right changes."""
    real = emoji_scenes.load("test", n=300, seed=78)
    asked = read_captions(real.captions)
    found = following(net.see(real.x_0.flip(3)), asked)
    upright = sum(a.relation in ("above", "below") for a in asked)
    share = upright / sum(a.relation is not None for a in asked)
    assert found["relation"] == pytest.approx(share, abs=0.02)
    assert found["objects"] > 0.97 and found["count"] > 0.97
