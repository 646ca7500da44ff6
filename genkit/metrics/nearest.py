"""Distance to the nearest training example: does a generator copy?

To be read against the same distance of held-out real samples: much less means copies, or averages
(few-step samples near a class mean are nearer to everything), so beside recall and diversity.
"""

import torch
from torch import Tensor


def nearest_distance(samples: Tensor, train: Tensor) -> Tensor:
    """Euclidean distance of each sample (n, ...) to the nearest of (m, ...), (n,) float64."""
    samples, train = samples.flatten(1).double(), train.flatten(1).double()
    return torch.cat([torch.cdist(part, train).amin(1) for part in samples.split(2048)])


def copied(samples: Tensor, held_out: Tensor, quantile: float = 0.01) -> float:
    """Share of samples nearer to training data than the nearest `quantile` of held-out ones.

    Both arguments are `nearest_distance`s. About `quantile` for a generator that does not copy.
    """
    return float((samples < torch.quantile(held_out, quantile)).double().mean())
