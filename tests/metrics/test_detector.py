"""The shipped detector of emoji scenes."""

import numpy as np
import pytest
import torch

from genkit.data import emoji_scenes
from genkit.data.emoji_scenes import LENGTHS, paste, rendered, scenes, sprites
from genkit.data.scenes import BACKGROUNDS
from genkit.metrics.detector import (
    FOUND,
    WEIGHTS,
    SceneDetector,
    scene_detector,
    scene_detector_record,
)
from genkit.metrics.following import following

N = 400


@pytest.fixture(scope="module")
def net():
    return scene_detector()


@pytest.fixture(scope="module")
def made():
    return scenes("test", N, seed=1234)


@pytest.fixture(scope="module")
def x(made):
    return rendered(made)


def test_attributes_of_real_scenes_are_read(net, made, x):
    record = scene_detector_record()["test"]
    assert min(record.values()) >= 0.99
    shares = following(net.see(x), [each.asked for each in made])
    assert shares["follows"] >= 0.98 and shares["attributes"] >= 0.99


def test_places_are_those_of_the_boxes(net, made, x):
    seen = net.see(x)
    for i, each in enumerate(made):
        half = LENGTHS[each.asked.size] / 2
        boxes = torch.tensor(each.boxes, dtype=torch.float32) + half
        if int(seen.count[i]) == len(boxes):
            apart = torch.cdist(seen.place[i, : len(boxes)], boxes).amin(0)
            assert apart.max() < 3


def test_it_is_small():
    record = scene_detector_record()
    assert WEIGHTS.stat().st_size < 2**20 and record["parameters"] < 400_000
    assert record["parameters"] == sum(p.numel() for p in SceneDetector().parameters())


def test_objects_are_named_one_by_one(net):
    """Mixed objects and sizes, which no caption asks for, and no two the same."""
    picture = np.full((32, 32, 3), 0.9, dtype=np.float32)
    placed = ((0, 16, 0, 0), (15, 12, 18, 2), (9, 12, 3, 19), (4, 16, 16, 16))
    for which, length, left, top in placed:
        paste(picture, sprites(length)[which], left, top)
    seen = net.see(torch.from_numpy(picture * 2 - 1).permute(2, 0, 1)[None])
    assert int(seen.count) == 4
    found = dict(zip(seen.object[0, :4].tolist(), seen.large[0, :4].tolist(), strict=True))
    assert found == {0: True, 15: False, 9: False, 4: True}


def test_nothing_is_seen_where_nothing_is(net):
    colours = torch.tensor(list(BACKGROUNDS.values())) / 127.5 - 1
    seen = net.see(colours[:, :, None, None].expand(-1, -1, 32, 32))
    assert seen.count.tolist() == [0] * len(BACKGROUNDS)
    assert seen.background.tolist() == list(range(len(BACKGROUNDS)))
    assert net.see(torch.randn(20, 3, 32, 32, generator=torch.Generator())).count.sum() == 0


def test_slight_flaws_are_forgiven_and_grave_ones_not(net, made, x):
    asked, rng = [each.asked for each in made], torch.Generator().manual_seed(0)
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    for flawed in (x + 0.08 * torch.randn(x.shape, generator=rng), blurred.lerp(x, 0.4), 0.95 * x):
        assert following(net.see(flawed), asked)["follows"] > 0.95
    pale = x.lerp(x.median(3, True).values.median(2, True).values, 0.8)
    assert following(net.see(pale), asked)["count"] < 0.1
    tiles = x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)
    pieces = tiles[:, :, torch.randperm(64, generator=rng)].unflatten(2, (8, 8))
    pieces = pieces.permute(0, 1, 2, 4, 3, 5).reshape(x.shape)
    assert following(net.see(pieces), asked)["objects"] < 0.2


def test_features_are_standardised_on_training_scenes(net):
    features = net.features(emoji_scenes.rendered(scenes("train", 1500)))
    assert features.shape == (1500, 64) and not features.requires_grad
    assert features.mean(0).abs().max() < 0.1
    assert (features.std(0) - 1).abs().max() < 0.1


def test_features_see_places_objects_and_flaws(net, x):
    """Each of these moves the mean of the features, or single scenes, far more than chance does."""
    features = net.features(x)
    flipped = net.features(x.flip(2)) - features
    assert flipped.norm(dim=1).median() > 3
    rng = torch.Generator().manual_seed(0)
    noisy = net.features(x + 0.15 * torch.randn(x.shape, generator=rng)) - features
    assert noisy.mean(0).abs().max() > 0.3


def test_what_lies_outside_a_picture_is_clamped(net, x):
    far = x[:5] * 1.5
    assert torch.equal(net.features(far), net.features(far.clamp(-1, 1)))


def test_parts_change_nothing_but_rounding(net, x):
    assert torch.allclose(net.features(x)[300:304], net.features(x[300:304]), atol=1e-3)
    seen, part = net.see(x), net.see(x[300:304])
    assert len(seen) == N and torch.equal(seen.count[300:304], part.count)
    assert (seen.score[:, :-1] >= seen.score[:, 1:]).all() and 0 < FOUND < 1


def test_a_wrong_shape_is_said(net):
    with pytest.raises(ValueError, match=r"scenes must be \(n, 3, 32, 32\)"):
        net.see(torch.zeros(2, 3, 64, 64))
    with pytest.raises(ValueError, match="scenes must be"):
        net.features(torch.zeros(3, 32, 32))
