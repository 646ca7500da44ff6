"""Figures that a data set has of its own, of what its samples were asked to be: the `extra` of a
`Reference`. Classes have diversity and accuracy, scenes with captions diversity and following.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from genkit.data import emoji_scenes
from genkit.data.scenes import Asked
from genkit.metrics.detector import SceneDetector
from genkit.metrics.diversity import (
    class_accuracy,
    class_diversity,
    class_spread,
    class_total_variation,
)
from genkit.metrics.following import chance, following, read_captions


class Classifier(Protocol):
    """A feature network that knows the classes."""

    def features(self, x: Tensor) -> Tensor: ...
    def classify(self, x: Tensor) -> Tensor: ...


class ClassFigures:
    """Of samples asked to be of classes, labels (n,), against real features and labels.

    diversity and diversity_worst: spread within a class relative to the real one, the mean over the
    classes and the least; class_accuracy; class_tv: total variation between the classes seen and
    those of the held-out set.
    """

    def __init__(self, net: Classifier, real: Tensor, labels: Tensor, num_classes: int):
        self.net, self.labels, self.num_classes = net, labels, num_classes
        self.features = net.features(real)

    def __call__(self, samples: Tensor, features: Tensor, asked: Tensor) -> dict[str, float]:
        predicted = self.net.classify(samples)
        spread = class_diversity(features, asked, self.features, self.labels, self.num_classes)
        spread = spread[~spread.isnan()]
        return {
            "diversity": float(spread.mean()),
            "diversity_worst": float(spread.min()) if len(spread) else float("nan"),
            "class_accuracy": class_accuracy(predicted, asked),
            "class_tv": class_total_variation(predicted, self.labels, self.num_classes),
        }


class SceneFigures:
    """Of samples asked for by captions of emoji scenes.

    objects, count, relation, size, background, attributes, follows: prompt following, see
    following.py; attributes_chance, follows_chance: the same against shuffled captions; diversity:
    of the samples of one prompt, as `prompt_diversity` has it.
    """

    def __init__(self, net: SceneDetector):
        self.net = net

    def __call__(self, samples: Tensor, features: Tensor, asked: Sequence[str]) -> dict[str, float]:
        wanted, seen = read_captions(asked), self.net.see(samples)
        luck = chance(seen, wanted)
        return {
            **following(seen, wanted),
            **{f"{name}_chance": luck[name] for name in ("attributes", "follows")},
            "diversity": prompt_diversity(features, wanted, self.net),
        }


def prompt_diversity(
    features: Tensor, asked: Sequence[Asked], net: SceneDetector, scenes: int = 6, seed: int = 0
) -> float:
    """Mean distance between two samples of one prompt, relative to real scenes of that prompt.

    features (n, d) of `net`; samples that are asked for the same, in whatever words, are of one
    prompt; prompts with one sample do not count, and nan is that there are no others. scenes: real
    ones made for each prompt. 1 is as diverse as real, 0 one picture a prompt; noise is diverse
    too, so read it beside `follows`. Ratio of the means over prompts.
    """
    prompts = {each: i for i, each in enumerate(dict.fromkeys(asked))}
    labels = torch.tensor([prompts[each] for each in asked])
    spread = class_spread(features, labels, len(prompts))
    often = [(each, i) for each, i in prompts.items() if not spread[i].isnan()]
    if not often:
        return float("nan")
    x = emoji_scenes.rendered(
        each for who, i in often for each in emoji_scenes.scenes_of(who, scenes, seed + i)
    )
    theirs = torch.arange(len(often)).repeat_interleave(scenes)
    real = class_spread(net.features(x), theirs, len(often))
    return float(spread[[i for _, i in often]].mean() / real.mean())
