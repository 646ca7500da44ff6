"""All the figures of a set of samples at once, against a fixed reference.

A `Reference` is a held-out set of real samples, the training set and a feature network; the suite
knows no modality. Figures with finite-sample bias compare only at equal n, so samples are cut into
disjoint groups of the size of the training set (smaller if there are fewer), every group is
measured against the whole held-out set, and the mean over the groups is given. `floor` does just
that to the training set itself: real against real, at the same n.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from genkit.metrics.diversity import class_accuracy, class_diversity, class_total_variation
from genkit.metrics.frechet import frechet_distance
from genkit.metrics.kernel import kid, median_distance, rbf_mmd2
from genkit.metrics.manifold import density_coverage, precision_recall
from genkit.metrics.nearest import copied, nearest_distance
from genkit.metrics.paired import Paired, paired_bootstrap
from genkit.metrics.sliced import sliced_wasserstein


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


class Features(Protocol):
    """What the suite asks of a feature network, such as `FeatureNet`."""

    def features(self, x: Tensor) -> Tensor: ...
    def classify(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Reference:
    """What samples are measured against; make one with `Reference.of`.

    real (m, ...), labels (m,) and features (m, d) are the held-out set; train (n, ...) and
    train_labels (n,) what generators learn from; held_out_nearest (m,) its distances to train.
    """

    name: str
    net: Features
    real: Tensor
    labels: Tensor
    features: Tensor
    train: Tensor
    train_labels: Tensor
    num_classes: int
    bandwidth: float
    held_out_nearest: Tensor

    @classmethod
    def of(cls, train: Labelled, held_out: Labelled, net: Features) -> "Reference":
        """A reference from two splits of a data set and a feature network for it."""
        return cls(
            name=held_out.name,
            net=net,
            real=held_out.x_0,
            labels=held_out.cond["label"],
            features=net.features(held_out.x_0),
            train=train.x_0,
            train_labels=train.cond["label"],
            num_classes=held_out.num_classes,
            bandwidth=median_distance(held_out.x_0),
            held_out_nearest=nearest_distance(held_out.x_0, train.x_0),
        )


def measure(
    samples: Tensor, labels: Tensor, reference: Reference, group: int | None = None, seed: int = 0
) -> dict[str, float]:
    """The figures of samples (n, ...) that were asked to be of classes labels (n,).

    group: samples per group, None is min(n, size of the training set); what is left over after
    whole groups is not used for the figures below "groups". seed: which sample is in which group.

    n, group, groups: samples given, per group, number of groups.
    fd, kid: Frechet and kernel distance of features; mmd: squared MMD, Gaussian kernel, of pixels;
    sw: sliced Wasserstein-2 of pixels; precision and recall (k = 3), density and coverage (k = 5)
    of features; diversity and diversity_worst: spread within a class relative to the real one, the
    mean over the classes and the least; class_accuracy; class_tv: total variation between the
    classes seen and those of the held-out set; nearest: median distance to the nearest training
    sample; copied: share nearer to one than all but 1% of the held-out samples are.
    """
    _check(samples, labels, reference)
    size = _group_size(group, len(samples), reference)
    features = reference.net.features(samples)
    predicted = reference.net.classify(samples)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    parts = [i for i in order.split(size) if len(i) == size]
    rows = [_distances(samples[i], features[i], reference) for i in parts]
    spread = class_diversity(
        features, labels, reference.features, reference.labels, reference.num_classes
    )
    spread = spread[~spread.isnan()]
    return {
        "n": len(samples),
        "group": size,
        "groups": len(parts),
        **{key: sum(row[key] for row in rows) / len(rows) for key in rows[0]},
        "diversity": float(spread.mean()),
        "diversity_worst": float(spread.min()) if len(spread) else float("nan"),
        "class_accuracy": class_accuracy(predicted, labels),
        "class_tv": class_total_variation(predicted, reference.labels, reference.num_classes),
        **_closeness(nearest_distance(samples, reference.train), reference),
    }


def floor(reference: Reference, n: int | None = None, seed: int = 0) -> dict[str, float]:
    """The same figures for real samples: the training set against the held-out one.

    n: samples that will be compared with this floor; they are measured in groups of
    min(n, size of the training set), and so is this. None: the size of the training set.
    nearest and copied are those of the held-out samples, as the training set is its own neighbour.
    """
    size = _group_size(None, len(reference.train) if n is None else n, reference)
    figures = measure(reference.train, reference.train_labels, reference, size, seed)
    return figures | _closeness(reference.held_out_nearest, reference)


def compare(
    a: Tensor, b: Tensor, reference: Reference, n_boot: int = 100, seed: int = 0
) -> dict[str, Paired]:
    """Paired bootstraps of samples a (n, ...) against b (n, ...): fd on features, sw on pixels.

    A share of 0.8 or more at "fd" reads: a is nearer than b in four of five resamples.
    """
    net, rng = reference.net, torch.Generator().manual_seed(seed)
    fd = paired_bootstrap(
        frechet_distance, net.features(a), net.features(b), reference.features, n_boot, rng
    )
    sw = paired_bootstrap(
        _quick_sliced, a.flatten(1), b.flatten(1), reference.real.flatten(1), n_boot, rng
    )
    return {"fd": fd, "sw": sw}


def _quick_sliced(samples: Tensor, real: Tensor) -> float:
    # A fourth of the directions: they are the same for a and b, so their noise cancels.
    return sliced_wasserstein(samples, real, n_projections=64)


def _distances(samples: Tensor, features: Tensor, reference: Reference) -> dict[str, float]:
    """The figures that depend on how many samples there are."""
    return {
        "fd": frechet_distance(features, reference.features),
        "kid": kid(features, reference.features),
        "mmd": rbf_mmd2(samples, reference.real, reference.bandwidth),
        "sw": sliced_wasserstein(samples, reference.real),
        **precision_recall(features, reference.features)._asdict(),
        **density_coverage(features, reference.features)._asdict(),
    }


def _closeness(nearest: Tensor, reference: Reference) -> dict[str, float]:
    return {
        "nearest": float(nearest.median()),
        "copied": copied(nearest, reference.held_out_nearest),
    }


def _group_size(group: int | None, n: int, reference: Reference) -> int:
    size = min(n, len(reference.train)) if group is None else group
    if not 6 <= size <= n:
        raise ValueError(f"groups of {size} out of {n} samples: at least 6, at most all of them")
    return size


def _check(samples: Tensor, labels: Tensor, reference: Reference) -> None:
    if samples.shape[1:] != reference.real.shape[1:]:
        ours, theirs = tuple(samples.shape[1:]), tuple(reference.real.shape[1:])
        raise ValueError(f"samples are {ours} each, those of {reference.name!r} {theirs}")
    if len(labels) != len(samples):
        raise ValueError(f"{len(labels)} labels for {len(samples)} samples")
    broken = int((~samples.isfinite().flatten(1).all(1)).sum())
    if broken:
        raise ValueError(f"{broken} of {len(samples)} samples hold nan or inf: nothing to measure")
