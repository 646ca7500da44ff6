"""The figures that data sets have of their own."""

import math

import pytest
import torch

from genkit.data import emoji_scenes
from genkit.data.emoji_scenes import rendered, scenes_of
from genkit.metrics.detector import scene_detector
from genkit.metrics.extras import ClassFigures, SceneFigures, prompt_diversity
from genkit.metrics.following import read_captions


class _Plane:
    """Points of the plane are their own features; their class is the half they lie in."""

    def features(self, x):
        return x

    def classify(self, x):
        return (x[:, 0] > 0).long()


@pytest.fixture(scope="module")
def net():
    return scene_detector()


@pytest.fixture(scope="module")
def asked():
    captions = ["a cat left of a star", "two small frogs on a pink background", "three big keys"]
    return read_captions(captions * 8)


def drawn(asked, net, seed=None):
    """Features of a real scene for each; all of one prompt from one seed, where there is one."""
    seeds = [50_000 + i if seed is None else seed for i in range(len(asked))]
    made = [scenes_of(each, 1, s)[0] for each, s in zip(asked, seeds, strict=True)]
    return net.features(rendered(made))


def test_class_figures_of_known_points():
    real, labels = torch.tensor([[-1.0, 0], [-1, 2], [1, 0], [1, 4]]), torch.tensor([0, 0, 1, 1])
    extra = ClassFigures(_Plane(), real, labels, 2)
    x = torch.tensor([[-1.0, 0], [-1, 1], [1, 0], [-1, 4]])
    found = extra(x, x, labels)
    assert found["class_accuracy"] == found["class_tv"] + 0.5 == 0.75
    assert found["diversity_worst"] == pytest.approx(0.5)
    assert found["diversity"] == pytest.approx((0.5 + math.hypot(2, 4) / 4) / 2)


def test_real_scenes_are_as_diverse_as_real_and_one_picture_is_not(net, asked):
    assert prompt_diversity(drawn(asked, net), asked, net, 12) == pytest.approx(1, abs=0.12)
    assert prompt_diversity(drawn(asked, net, seed=5), asked, net) == 0


def test_prompts_with_one_sample_do_not_count(net, asked):
    features = drawn(asked[:3], net)
    assert math.isnan(prompt_diversity(features, asked[:3], net))
    both = prompt_diversity(features[[0, 1, 0]], [asked[0], asked[1], asked[0]], net)
    assert both == 0


def test_the_same_prompt_in_other_words_is_one(net):
    first = read_captions(["a small cat above a small star", "one tiny cat over one little star"])
    assert first[0] == first[1]
    assert not math.isnan(prompt_diversity(drawn(first, net), first, net))


def test_scene_figures(net):
    real = emoji_scenes.load("test", n=200, seed=5)
    found = SceneFigures(net)(real.x_0, net.features(real.x_0), real.captions)
    assert found["follows"] > 0.97 > 0.05 > found["follows_chance"]
    assert found["attributes"] > 0.98 and found["attributes_chance"] < 0.4
    assert {"objects", "count", "relation", "size", "background"} <= found.keys()
    assert 0.7 < found["diversity"] < 1.3


def test_what_is_no_caption_is_refused(net):
    with pytest.raises(ValueError, match="no caption"):
        SceneFigures(net)(torch.zeros(1, 3, 32, 32), torch.zeros(1, 64), ["a dog"])
