"""A network around networks of another class: how it is saved, opened and called like one.

Its config names the inner class and holds the inner config, whose keys it answers to as its own
(`sample_size`, `num_classes`, ...), so that pipelines and teachers read it as they read the inner.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from typing import Any

from diffusers.configuration_utils import ConfigMixin, FrozenDict
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

LIBRARIES = ("genkit", "diffusers")  # a stranger's config names no class of another


class AroundNetwork(ModelMixin, ConfigMixin):
    """Base of networks around others; `networks` holds those, all of one class and config."""

    networks: nn.ModuleList

    @property
    def config(self) -> Any:
        """Its own, and under it the inner networks'."""
        own = self._internal_dict
        return FrozenDict({**own["network_config"], **own})

    @property
    def inner(self) -> Any:
        """The first of the networks inside."""
        return self.networks[0]


def described(network: Any) -> dict[str, Any]:
    """{network_class, network_config} of a network, as plain data for a config."""
    kind = type(network)
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    return {"network_class": f"{kind.__module__}:{kind.__name__}", "network_config": config}


def built(
    network_class: str, network_config: Any, count: int, networks: Sequence[nn.Module] | None
) -> nn.ModuleList:
    """`networks` where they are given, else `count` new ones of that class and config.

    ValueError for a class that is neither genkit's nor diffusers'.
    """
    if networks is not None:
        assert len(networks) == count, f"{len(networks)} networks for {count}"
        return nn.ModuleList(networks)
    module, _, name = network_class.partition(":")
    if module.split(".")[0] not in LIBRARIES:
        raise ValueError(f"{network_class!r} is no network of {' or '.join(LIBRARIES)}")
    kind: Any = getattr(importlib.import_module(module), name)
    return nn.ModuleList(kind.from_config(dict(network_config)) for _ in range(count))


def copies(network: nn.Module, count: int) -> list[nn.Module]:
    """`count` networks that begin as this one, which is the first of them."""
    return [network, *(copy.deepcopy(network) for _ in range(count - 1))]
