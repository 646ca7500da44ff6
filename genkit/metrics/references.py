"""References by the name of their data set: which splits, which feature network, which figures.

A new data set with figures of its own adds one function here, its feature network and its extra
figures (extras.py); the rest of the metrics know none by name.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from genkit.metrics.clips import ClipFeatures, ClipFigures
from genkit.metrics.extras import ClassFigures, Classifier, SceneFigures
from genkit.metrics.following import read_captions
from genkit.metrics.suite import Reference

CLIPS = 256  # real, training and floor clips each: 126 MB of pixels
SCENES = 2000  # real, training and floor scenes each: `measure` then takes 6 s of one core


class Labelled(Protocol):
    """Real samples with class labels under cond["label"], as genkit.data hands them over."""

    @property
    def x_0(self) -> Tensor: ...
    @property
    def cond(self) -> Mapping[str, Tensor]: ...
    @property
    def name(self) -> str: ...
    @property
    def num_classes(self) -> int: ...


def class_reference(train: Labelled, held_out: Labelled, net: Classifier) -> Reference:
    """The reference of a data set with class labels; its floor is that of the training set."""
    labels = held_out.cond["label"]
    extra = ClassFigures(net, held_out.x_0, labels, held_out.num_classes)
    fresh = (train.x_0, train.cond["label"])
    return Reference.of(held_out.name, held_out.x_0, train.x_0, net, extra, fresh)


def digits_reference(split: str = "test") -> Reference:
    """Digits: the test split (899) as real samples, the train split (898) as training set."""
    if split != "test":
        raise ValueError(f"digits are measured against their test split; they have no {split!r}")
    from genkit.data import digits
    from genkit.metrics.features import digits_features

    return class_reference(digits.load("train"), digits.load("test"), digits_features())


def emoji_scenes_reference(split: str = "test", scenes: int = SCENES) -> Reference:
    """Emoji scenes: the first of the test split (held-out combinations), or of the validation
    split, as real samples; as many of the train split as training set.

    The floor is measured on other scenes of the real samples' own captions, which is what the best
    of generators would make of the captions it is asked for: real training scenes show other
    combinations, and test scenes of another seed were asked for by other captions (their Frechet
    distance is 0.43, of the same captions 0.35, means of five draws of 2,000 that differ by 0.03).
    The floor's `follows` is the ceiling of prompt following.
    """
    from genkit.data import emoji_scenes
    from genkit.metrics.detector import scene_detector

    real, train = (emoji_scenes.load(part, n=scenes) for part in (split, "train"))
    net, asked = scene_detector(), read_captions(real.captions)
    fresh = emoji_scenes.rendered(
        emoji_scenes.scenes_of(each, 1, seed)[0] for seed, each in enumerate(asked, start=10**6)
    )
    floor = (fresh, real.captions)
    return Reference.of(real.name, real.x_0, train.x_0, net, SceneFigures(net), floor)


def world_reference(split: str = "test", clips: int = CLIPS) -> Reference:
    """The river world: clips of a held-out split as real ones, as many of the train split as
    training set, and those of the other held-out split, whose starts and actions are held out too,
    for the floor."""
    from genkit.data import world

    other = "validation" if split == "test" else "test"
    real, train, fresh = (world.load(part, clips) for part in (split, "train", other))
    shown, trained = real.x_0[:], train.x_0[:]
    floor = (fresh.x_0[:], fresh.cond["action"])
    net = ClipFeatures(trained)
    return Reference.of(real.name, shown, trained, net, ClipFigures(shown), floor)


REFERENCES = {
    "digits": digits_reference,
    "emoji-scenes": emoji_scenes_reference,
    "world": world_reference,
}


def reference(name: str, split: str = "test") -> Reference:
    """The reference of the data set `name`; ValueError where there is none, or none of `split`."""
    if name not in REFERENCES:
        known = ", ".join(REFERENCES)
        raise ValueError(f"no features are known for data {name!r}; there are those of: {known}")
    return REFERENCES[name](split)
