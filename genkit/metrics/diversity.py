"""Diversity within a condition, and whether samples are what they were asked to be.

A conditional generator can match the whole distribution's spread and still make one picture per
condition; the mean pairwise distance within a class, relative to the real class, sees that. Noise
is diverse too: read these beside a distance (Frechet, sliced Wasserstein), never alone.
"""

import torch
from torch import Tensor


def class_spread(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean distance between two different samples of a class, (num_classes,) float64.

    features (n, d), labels (n,) in 0..num_classes - 1; nan for a class with fewer than two.
    """
    spread = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    for c in range(num_classes):
        members = features[labels == c].double()
        if len(members) > 1:
            spread[c] = torch.cdist(members, members).sum() / (len(members) * (len(members) - 1))
    return spread


def class_diversity(
    samples: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, num_classes: int
) -> Tensor:
    """Spread of each class relative to the real class, (num_classes,); 1 is as diverse as real.

    0 means every sample of the class is the same; nan that one side has fewer than two of it.
    """
    ours = class_spread(samples, labels, num_classes)
    return ours / class_spread(real, real_labels, num_classes)


def class_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of samples a classifier takes for the class they were asked to be.

    Saturates early (.99 for poor samples too): passes or fails, does not rank.
    """
    if predicted.shape != labels.shape:
        raise ValueError(f"{tuple(predicted.shape)} classes but {tuple(labels.shape)} labels")
    return float((predicted == labels).double().mean())


def class_total_variation(predicted: Tensor, labels: Tensor, num_classes: int) -> float:
    """Half the sum of |p_c - q_c| over the shares of the classes; 0 equal, 1 disjoint."""
    shares = [torch.bincount(v, minlength=num_classes) / len(v) for v in (predicted, labels)]
    return float((shares[0] - shares[1]).abs().sum() / 2)
