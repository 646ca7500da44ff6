"""A network with style vectors: asked for the manner of one of several teachers, or a mixture.

As in distillation model merging (Song et al. 2025, arXiv 2504.12364): an embedding of each style,
through a small MLP, is added to the network's embedding of time. The last layer of that begins at 0
(the release's does not say), so that every style begins as the network it was made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from genkit.denoisers.base import NetworkDenoiser
from genkit.guidance import Cond
from genkit.networks.around import AroundNetwork, built, described

__all__ = ["ModelMixin", "StyledDenoiser", "StyledNetwork", "mixed", "styled"]

# {class: the submodule whose output (b, width) is the embedding of time}
TIME = {
    "MLPDenoiser": "time",
    "UNet2DModel": "time_embedding",
    "UNet2DConditionModel": "time_embedding",
    "PixArtTransformer2DModel": "adaln_single.emb.timestep_embedder",
    "SD3Transformer2DModel": "time_text_embed.timestep_embedder",
}


def mixed(style: int | Sequence[float], styles: int) -> Tensor:
    """The weights (1, styles) of one style by its number, or of a mixture by a weight for each.

    ValueError for a number that is none of the trained ones, and weights that are no mixture.
    """
    if isinstance(style, int):
        if not 0 <= style < styles:
            raise ValueError(f"style {style} was not trained; give 0 to {styles - 1}, or weights")
        return nn.functional.one_hot(torch.tensor([style]), styles).float()
    weights = torch.as_tensor(list(style), dtype=torch.float32)
    if weights.shape != (styles,):
        raise ValueError(f"style has {len(weights)} weights; give one for each of {styles} styles")
    if weights.min() < 0 or abs(weights.sum().item() - 1) > 1e-4:
        raise ValueError(
            f"style weights {weights.tolist()} are no mixture; give parts that add up to 1"
        )
    return weights[None]


class StyleVectors(nn.Module):
    """(b,) int64 styles, or weights (b, styles) of them, -> (b, width)."""

    def __init__(self, styles: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(styles, width)
        self.enter, self.leave = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, style: Tensor) -> Tensor:
        table = self.embedding.weight
        chosen = style.to(table.dtype) @ table if style.ndim == 2 else table[style]
        return self.leave(nn.functional.silu(self.enter(chosen)))


class StyledNetwork(AroundNetwork):
    """A network of one class, called as it is, with `style=` beside: numbers (b,) int64, or weights
    (b, styles) or (1, styles); without it, style 0."""

    @register_to_config
    def __init__(
        self,
        network_class: str,
        network_config: dict[str, Any],
        styles: int,
        networks: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.networks = built(network_class, network_config, 1, networks)
        width = [m for m in self._time().modules() if isinstance(m, nn.Linear)][-1].out_features
        self.style = StyleVectors(styles, width)

    ignore_for_config = ["networks"]

    def _time(self) -> nn.Module:
        name = type(self.inner).__name__
        if name not in TIME:
            raise ValueError(f"{name} has no known place for a style; known: {', '.join(TIME)}")
        return self.inner.get_submodule(TIME[name])

    def forward(self, *args: Any, style: Tensor | None = None, **kwargs: Any) -> Any:
        """What the network answers in this style."""
        if style is None:
            style = torch.zeros(1, dtype=torch.int64, device=self.device)
        vector = self.style(style)
        handle = self._time().register_forward_hook(lambda module, given, made: made + vector)
        try:
            return self.inner(*args, **kwargs)
        finally:
            handle.remove()


class StyledDenoiser(NetworkDenoiser):
    """A Denoiser on a StyledNetwork; cond["style"], where there is one, is its style."""

    def raw(self, x_t: Tensor, timestep: Tensor, cond: Cond, s: Tensor | None = None) -> Tensor:
        network: Any = self.network
        if "style" in cond:
            network = partial(network, style=cond["style"])
        return self.call(network, x_t, timestep, cond, s)


def styled(denoiser: nn.Module, styles: int) -> nn.Module:
    """The denoiser with so many styles, each beginning as it; its own where it has styles already.
    ValueError for another number of those, and for a network that has no place for one."""
    assert isinstance(denoiser, NetworkDenoiser), "only a network can be given styles"
    rest = (denoiser.path, denoiser.kind, denoiser.time_scale, denoiser.two_time)
    network: Any = denoiser.network
    if isinstance(network, StyledNetwork):
        if (there := network.style.embedding.num_embeddings) != styles:
            raise ValueError(f"it has {there} styles, not {styles}; give as many teachers")
        return StyledDenoiser(network, denoiser.call, *rest)
    made = StyledNetwork(**described(network), styles=styles, networks=[network])
    made = made.to(next(network.parameters()).device).train(network.training)
    return StyledDenoiser(made, denoiser.call, *rest)
