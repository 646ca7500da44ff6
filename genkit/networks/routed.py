"""Several networks and a router between them: each row of a batch goes through one of them.

What multi-student distillation leaves (Song et al. 2024, arXiv 2410.23274): as fast as one network,
several times as large. Classes are routed by a table; prompts to the nearest of as many centroids
of embeddings' means over tokens, and those far from all of them to the student of most prompts.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from genkit.denoisers.base import AnyKind, NetworkDenoiser
from genkit.guidance import Cond
from genkit.networks.around import AroundNetwork, built, copies, described

__all__ = ["ModelMixin", "RoutedDenoiser", "RoutedHead", "RoutedNetwork", "Router", "routed"]

FAR = 2.0  # times the largest distance of any prompt the centroids were made of
ROUTED = ("label", "encoder_hidden_states")  # conditions by which a batch is routed
ARGUMENTS = ("class_labels", "encoder_hidden_states")  # what networks call them


class Router(nn.Module):
    """Conditions (b,) int64 or (b, tokens, width) -> the number (b,) of the network for each.

    table: the network of each class, and last of no class; or empty. width: of the embeddings of
    prompts, or 0. Until `fit` has seen prompts, all go to network 0.
    """

    table: Tensor
    centroids: Tensor
    radius: Tensor
    fallback: Tensor

    def __init__(self, count: int, classes: int, width: int) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("table", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("centroids", torch.zeros(count if width else 0, width))
        self.register_buffer("radius", torch.zeros(()))
        self.register_buffer("fallback", torch.zeros((), dtype=torch.int64))

    def forward(self, cond: Tensor) -> Tensor:
        if not cond.is_floating_point():
            return self.table[cond]
        distance, nearest = self._nearest(_pooled(cond))
        return torch.where(distance <= FAR * self.radius, nearest, self.fallback)

    def _nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(distance to, number of) the nearest centroid of each point (n, width)."""
        # In float64 and without a matrix product: no route depends on the batch around it.
        apart = (points.double()[:, None] - self.centroids.double()).square().sum(-1)
        squared, nearest = apart.min(-1)
        return squared.sqrt(), nearest

    @torch.no_grad()
    def fit(self, cond: Tensor, rounds: int = 20) -> None:
        """Centroids of prompts (n, tokens, width) by k-means, begun at points far apart.

        ValueError for fewer different prompts than networks.
        """
        points = _pooled(cond).unique(dim=0)
        if len(points) < self.count:
            raise ValueError(
                f"the first batch has {len(points)} different prompts for {self.count} students; "
                "give fewer students or a larger batch"
            )
        self.centroids.copy_(_far_apart(points, self.count))
        for _ in range(rounds):
            _, nearest = self._nearest(points)
            for k in range(self.count):
                if (mine := points[nearest == k]).numel():
                    self.centroids[k] = mine.mean(0)
        distance, nearest = self._nearest(points)
        self.radius.copy_(distance.max())
        self.fallback.copy_(torch.bincount(nearest, minlength=self.count).argmax())


def _pooled(cond: Tensor) -> Tensor:
    """(b, tokens, width) or (b, width) as (b, width), float32."""
    return (cond.mean(1) if cond.ndim == 3 else cond).float()


def _far_apart(points: Tensor, count: int) -> Tensor:
    """`count` of the points: the one nearest to the mean, then each the farthest from those."""
    chosen = [int((points - points.mean(0)).square().sum(-1).argmin())]
    while len(chosen) < count:
        apart = torch.cdist(points.double(), points[chosen].double()).amin(-1)
        chosen.append(int(apart.argmax()))
    return points[chosen]


class RoutedNetwork(AroundNetwork):
    """`count` networks of one class behind a router, called as one of them is.

    classes: entries of the router's table, no class among them; text_width: of embeddings of
    prompts.
    """

    @register_to_config
    def __init__(
        self,
        network_class: str,
        network_config: dict[str, Any],
        count: int,
        classes: int = 0,
        text_width: int = 0,
        networks: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.networks = built(network_class, network_config, count, networks)
        self.router = Router(count, classes, text_width)
        self._signature = inspect.signature(type(self.inner).forward)

    ignore_for_config = ["networks"]

    def rows(self, cond: Tensor) -> list[tuple[int, Tensor]]:
        """(network, its rows of the batch) of every network that has any."""
        route = self.router(cond)
        each = [(k, (route == k).nonzero()[:, 0]) for k in range(len(self.networks))]
        return [(k, rows) for k, rows in each if len(rows)]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the networks answer for (b, ...), rows in their places."""
        given = dict(self._signature.bind(self, *args, **kwargs).arguments)
        del given["self"]
        size = len(next(iter(given.values())))
        rows = self.rows(next(given[name] for name in ARGUMENTS if name in given))
        parts = [self.networks[k](**_taken(given, here, size)) for k, here in rows]
        if isinstance(parts[0], tuple):  # diffusers' return_dict=False
            return (_placed([part[0] for part in parts], rows),)
        return _placed(parts, rows)


def _taken(value: Any, rows: Tensor, size: int) -> Any:
    """`rows` of every tensor of `size` rows in a value; the rest as it is."""
    if isinstance(value, Mapping):
        return {name: _taken(each, rows, size) for name, each in value.items()}
    whole = isinstance(value, Tensor) and value.ndim > 0 and len(value) == size
    return value[rows] if whole else value


def _placed(parts: Sequence[Tensor], rows: Sequence[tuple[int, Tensor]]) -> Tensor:
    """The parts' rows in the order of the batch."""
    return torch.cat(list(parts))[torch.cat([here for _, here in rows]).argsort()]


class RoutedDenoiser(NetworkDenoiser):
    """A Denoiser on a RoutedNetwork; features are traced by names within one of its networks, and
    "route" beside them is the network (b,) that each row's come from."""

    def one(self, k: int) -> NetworkDenoiser:
        """The k-th network as a Denoiser."""
        network: Any = self.network
        rest = (self.call, self.path, self.kind, self.time_scale, self.two_time)
        return NetworkDenoiser(network.networks[k], *rest)

    def trace(
        self,
        x_t: Tensor,
        t: Tensor,
        cond: Cond,
        kind: AnyKind,
        names: Sequence[str],
        until: str | None = None,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        network: Any = self.network
        rows = network.rows(next(cond[name] for name in ROUTED if name in cond))
        size, values, traced = len(x_t), [], []
        for k, here in rows:
            x, time, own = (_taken(each, here, size) for each in (x_t, t, cond))
            value, features = self.one(k).trace(x, time, own, kind, names, until)
            values.append(value)
            traced.append(features | {"route": torch.full_like(here, k)})
        features = {name: _placed([each[name] for each in traced], rows) for name in traced[0]}
        return None if until else _placed(values, rows), features


def routed(denoiser: nn.Module, router: Router) -> nn.Module:
    """As many networks as the router has, each beginning as this denoiser's; its own networks and
    router where it is routed already. ValueError for another number of those."""
    assert isinstance(denoiser, NetworkDenoiser), "only networks are routed"
    count, inner = router.count, denoiser.network
    rest = (denoiser.path, denoiser.kind, denoiser.time_scale, denoiser.two_time)
    if isinstance(inner, RoutedNetwork):
        if len(inner.networks) != count:
            raise ValueError(f"it has {len(inner.networks)} students, not {count}; ask for as many")
        return RoutedDenoiser(inner, denoiser.call, *rest)
    network: Any = RoutedNetwork(
        **described(inner),
        count=count,
        classes=len(router.table),
        text_width=router.centroids.shape[1],
        networks=copies(inner, count),
    )
    network.router.load_state_dict(router.state_dict())
    network = network.to(next(inner.parameters()).device).train(inner.training)
    return RoutedDenoiser(network, denoiser.call, *rest)


class RoutedHead(nn.Module):
    """A head for each network: {name: (b, tokens, d), "route": (b,)} -> logits (b, heads). Features
    without a route, of a teacher that is one network, are read by the first."""

    def __init__(self, head: nn.Module, count: int) -> None:
        super().__init__()
        self.names: list[str] = head.names  # type: ignore[assignment]
        self.heads = nn.ModuleList(copies(head, count))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        if "route" not in features:
            return self.heads[0](features)
        route = features["route"]
        rows = [(k, (route == k).nonzero()[:, 0]) for k in range(len(self.heads))]
        rows = [(k, here) for k, here in rows if len(here)]
        named = {name: features[name] for name in self.names}
        return _placed([self.heads[k](_taken(named, here, len(route))) for k, here in rows], rows)
