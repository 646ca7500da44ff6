"""Prompt following: is in a scene what its caption asks for?

Attributes are objects (the set of objects seen is the set asked for), count (as many objects in all
as asked for), relation (of the surest of each of the two objects; the larger of the distances
across and along decides), size (of every object seen) and background. Only what a caption states
counts. `follows` is the share of scenes with all that is stated right; `attributes` the mean of the
attributes' shares. What the detector misses is counted against the generator: read the figures
beside `ceiling`, the same on real scenes, and beside `chance`, the same against shuffled captions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genkit.data import emoji_scenes
from genkit.data.base import Samples
from genkit.data.scenes import BACKGROUNDS, Asked, read
from genkit.metrics.detector import SceneDetector, Seen

ATTRIBUTES = ("objects", "count", "relation", "size", "background")


def read_captions(captions: Sequence[str]) -> list[Asked]:
    """What the captions of emoji scenes ask for. ValueError for what is no such caption."""
    return [read(caption, emoji_scenes.names()) for caption in captions]


def judge(seen: Seen, asked: Sequence[Asked]) -> dict[str, Tensor]:
    """{attribute: (n,) float64}: 1 right, 0 wrong, nan where nothing of it is asked."""
    if len(seen) != len(asked):
        raise ValueError(f"{len(asked)} captions for {len(seen)} scenes")
    counts, colours = seen.count.tolist(), list(BACKGROUNDS)
    which, large, places = seen.object.tolist(), seen.large.tolist(), seen.place.tolist()
    rows = []
    for i, (each, count, ground) in enumerate(
        zip(asked, counts, seen.background.tolist(), strict=True)
    ):
        there, sizes = which[i][:count], large[i][:count]
        first = {name: places[i][k] for k, name in reversed(list(enumerate(there)))}
        rows.append(
            {
                "objects": set(there) == set(each.objects),
                "count": count == (2 if each.relation else each.count),
                "relation": each.relation and each.relation == relation_of(first, each.objects),
                "size": each.size and bool(sizes) and set(sizes) == {each.size == "large"},
                "background": each.background and colours[ground] == each.background,
            }
        )
    return {
        name: torch.tensor(
            [math.nan if row[name] is None else float(row[name]) for row in rows],
            dtype=torch.float64,
        )
        for name in ATTRIBUTES
    }


def relation_of(places: dict[int, list[float]], objects: tuple[int, ...]) -> str | None:
    """How the first object lies to the second, at places {object: (x, y)}; None: one is missing."""
    if any(each not in places for each in objects):
        return None
    (x, y), (other_x, other_y) = (places[each] for each in objects)
    if abs(x - other_x) >= abs(y - other_y):
        return "left of" if x < other_x else "right of"
    return "above" if y < other_y else "below"


def following(seen: Seen, asked: Sequence[Asked]) -> dict[str, float]:
    """Shares of right scenes: each attribute over the captions that state it (nan: none does),
    `attributes`, the mean of these, and `follows`, all that is stated at once."""
    right = judge(seen, asked)
    shares = {name: float(value.nanmean()) for name, value in right.items()}
    stated = [share for share in shares.values() if not math.isnan(share)]
    whole = torch.stack([value != 0 for value in right.values()]).all(0)
    return {
        **shares,
        "attributes": sum(stated) / len(stated),
        "follows": float(whole.double().mean()),
    }


def chance(seen: Seen, asked: Sequence[Asked], seed: int = 0) -> dict[str, float]:
    """`following` of the same scenes with the captions shuffled: what there is to gain by luck."""
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(asked), generator=rng).tolist()
    return following(seen, [asked[i] for i in order])


def ceiling(real: Samples, net: SceneDetector) -> dict[str, float]:
    """`following` of real scenes and their own captions: the most that can be measured."""
    return following(net.see(real.x_0), read_captions(real.captions))
