"""All the figures of a set of samples at once, against a fixed reference.

A `Reference` is a held-out set of real samples, the training set, a feature network, fresh real
samples for the floor, and `extra`: the figures that a data set has of its own, of what its samples
were asked to be (class labels, captions; see extras.py). The suite knows no modality and no
condition. Figures with finite-sample bias compare only at equal n, so samples are cut into disjoint
groups of the size of the fresh set (smaller if there are fewer), every group is measured against
the whole held-out set, and the mean over the groups is given. `floor` does just that to the fresh
set itself: real against real, at the same n.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from genkit.metrics.frechet import frechet_distance
from genkit.metrics.kernel import kid, median_distance, rbf_mmd2
from genkit.metrics.manifold import density_coverage, precision_recall
from genkit.metrics.nearest import copied, nearest_distance
from genkit.metrics.paired import Paired, paired_bootstrap
from genkit.metrics.sliced import along, projected, sliced_wasserstein

Asked = Sequence[Any] | Tensor  # what samples were asked to be, one each


class Features(Protocol):
    """What the suite asks of a feature network, such as `FeatureNet`."""

    def features(self, x: Tensor) -> Tensor: ...


class Extra(Protocol):
    """A data set's own figures of samples (n, ...), their features (n, d) and what each of them was
    asked to be."""

    def __call__(self, samples: Tensor, features: Tensor, asked: Any) -> dict[str, float]: ...


@dataclass(frozen=True)
class Reference:
    """What samples are measured against; make one with `Reference.of`.

    real (m, ...) and features (m, d) are the held-out set; train (n, ...) what generators learn
    from; fresh (k, ...) real samples that the floor is measured on, and fresh_asked what each of
    them is; held_out_nearest (m,) the held-out samples' distances to train.
    """

    name: str
    net: Features
    real: Tensor
    features: Tensor
    train: Tensor
    fresh: Tensor
    fresh_asked: Asked
    bandwidth: float
    held_out_nearest: Tensor
    extra: Extra

    @classmethod
    def of(
        cls,
        name: str,
        real: Tensor,
        train: Tensor,
        net: Features,
        extra: Extra,
        fresh: tuple[Tensor, Asked],
    ) -> "Reference":
        """A reference of held-out samples (m, ...), training samples (n, ...), a feature network,
        the data set's own figures, and (samples of the floor (k, ...), what each of them is)."""
        return cls(
            name=name,
            net=net,
            real=real,
            features=net.features(real),
            train=train,
            fresh=fresh[0],
            fresh_asked=fresh[1],
            bandwidth=median_distance(real),
            held_out_nearest=nearest_distance(real, train),
            extra=extra,
        )


def measure(
    samples: Tensor,
    asked: Asked,
    reference: Reference,
    group: int | None = None,
    seed: int = 0,
    features: Tensor | None = None,
) -> dict[str, float]:
    """The figures of samples (n, ...), and of what each of them was asked to be: class labels (n,)
    or captions, whichever the data set has.

    group: samples per group, None is min(n, size of the fresh set); what is left over after whole
    groups is not used for the figures below "groups". seed: which sample is in which group.
    features: the samples' own (n, d), where they are at hand.

    n, group, groups: samples given, per group, number of groups.
    fd, kid: Frechet and kernel distance of features; mmd: squared MMD, Gaussian kernel, of pixels;
    sw: sliced Wasserstein-2 of pixels; precision and recall (k = 3), density and coverage (k = 5)
    of features; the data set's own figures (extras.py); nearest: median distance to the nearest
    training sample; copied: share nearer to one than all but 1% of the held-out samples are.
    """
    _check(samples, asked, reference)
    size = _group_size(group, len(samples), reference)
    features = reference.net.features(samples) if features is None else features
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    parts = [i for i in order.split(size) if len(i) == size]
    rows = [_distances(samples[i], features[i], reference) for i in parts]
    return {
        "n": len(samples),
        "group": size,
        "groups": len(parts),
        **{key: sum(row[key] for row in rows) / len(rows) for key in rows[0]},
        **reference.extra(samples, features, asked),
        **_closeness(nearest_distance(samples, reference.train), reference),
    }


def floor(reference: Reference, n: int | None = None, seed: int = 0) -> dict[str, float]:
    """The same figures for real samples: the fresh set against the held-out one.

    n: samples that will be compared with this floor; they are measured in groups of
    min(n, size of the fresh set), and so is this. None: the size of the fresh set.
    nearest and copied are those of the held-out samples: the fresh set may be the training set,
    which is its own neighbour.
    """
    size = _group_size(None, len(reference.fresh) if n is None else n, reference)
    figures = measure(reference.fresh, reference.fresh_asked, reference, size, seed)
    return figures | _closeness(reference.held_out_nearest, reference)


@dataclass(frozen=True)
class Seen:
    """What a bootstrap resamples of samples: features (n, d), and projections (n, p) of themselves,
    which are small where samples are large."""

    features: Tensor
    projections: Tensor

    @classmethod
    def of(cls, samples: Tensor, net: Features) -> "Seen":
        # A fourth of the directions: they are the same for all, so their noise cancels.
        return cls(net.features(samples), projected(samples, 64))


def compare(
    a: Seen, b: Seen, reference: Reference, n_boot: int = 100, seed: int = 0
) -> dict[str, Paired]:
    """Paired bootstraps of samples a against b, n each: fd on features, sw on samples.

    A share of 0.8 or more at "fd" reads: a is nearer than b in four of five resamples.
    """
    rng = torch.Generator().manual_seed(seed)
    real = projected(reference.real, a.projections.shape[1])
    return {
        "fd": paired_bootstrap(
            frechet_distance, a.features, b.features, reference.features, n_boot, rng
        ),
        "sw": paired_bootstrap(along, a.projections, b.projections, real, n_boot, rng),
    }


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
    size = min(n, len(reference.fresh)) if group is None else group
    if not 6 <= size <= n:
        raise ValueError(f"groups of {size} out of {n} samples: at least 6, at most all of them")
    return size


def _check(samples: Tensor, asked: Asked, reference: Reference) -> None:
    if samples.shape[1:] != reference.real.shape[1:]:
        ours, theirs = tuple(samples.shape[1:]), tuple(reference.real.shape[1:])
        raise ValueError(f"samples are {ours} each, those of {reference.name!r} {theirs}")
    if len(asked) != len(samples):
        raise ValueError(f"{len(asked)} labels or captions for {len(samples)} samples")
    broken = int((~samples.isfinite().flatten(1).all(1)).sum())
    if broken:
        raise ValueError(f"{broken} of {len(samples)} samples hold nan or inf: nothing to measure")
