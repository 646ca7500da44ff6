"""Networks in bfloat16 where that is safe; weights, samples and schedulers stay in float32.

The same autocast that accelerate puts around training, for sampling outside of it.
"""

from __future__ import annotations

import torch


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which networks run: precision "bf16" casts, "no" changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
