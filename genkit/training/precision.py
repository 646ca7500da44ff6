"""Networks in bfloat16 where that is safe and fast; weights, samples, schedulers stay in float32.

Asked for on a CPU that has no instructions for it, bfloat16 would be emulated, at a tenth of
float32's speed where gradients are taken: there float32 is run, and said so once.
"""

from __future__ import annotations

import sys
from functools import cache

import torch


def precision_on(device: torch.device, asked: str) -> str:
    """The precision that networks run in, "no" or "bf16", where `asked` is asked for."""
    if asked == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        _say_float32()
        return "no"
    return asked


def autocast(device: torch.device, asked: str) -> torch.autocast:
    """The context in which networks run: "bf16" casts where the device can, "no" changes nothing.

    The same that accelerate puts around training, for sampling outside of it.
    """
    half = precision_on(device, asked) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


@cache
def cpu_has_bf16() -> bool:
    """Whether oneDNN, which does a CPU's products, has bfloat16 ones here."""
    if not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def _say_float32() -> None:
    print("bf16: this CPU has no instructions for it; float32 instead", file=sys.stderr, flush=True)
