"""Attention for training on a CPU: plain matrix products where gradients are wanted.

PyTorch's fused attention is slow backwards on a CPU for the few tokens of small pictures (a whole
step of a 4M transformer with 64 tokens takes 1.7 times as long). Without gradients nothing changes,
so that what a trainer samples is what the delivered pipeline samples, bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import AttentionMixin
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn


class TrainingAttention:
    """diffusers' plain processor where gradients are on and on a CPU, its fused one elsewhere."""

    def __init__(self) -> None:
        self.plain, self.fused = AttnProcessor(), AttnProcessor2_0()

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        on_cpu = hidden_states.device.type == "cpu"
        chosen = self.plain if on_cpu and torch.is_grad_enabled() else self.fused
        return chosen(attn, hidden_states, *args, **kwargs)


def quicken_training(module: nn.Module) -> None:
    """Give every diffusers network in `module` that runs stock fused attention this processor."""
    for each in module.modules():
        if isinstance(each, AttentionMixin) and each.attn_processors:
            stock = {type(one) for one in each.attn_processors.values()}
            if stock == {AttnProcessor2_0}:
                each.set_attn_processor(TrainingAttention())  # type: ignore[arg-type]
