"""Which implementation runs: the one place that picks it, and says once why.

cpp: a compiled kernel, bfloat16 and float32 on a CPU. triton: kernels for GPUs. torch: plain
PyTorch, everywhere. reference: a dense mask, only where asked for.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType

import torch

from genkit_kernels import native, triton_attention

logger = logging.getLogger("genkit_kernels")
MODULES = {
    "torch": "genkit_kernels.gathered",
    "cpp": "genkit_kernels.native",
    "triton": "genkit_kernels.triton_attention",
}
COMPILED = {"cpp": native, "triton": triton_attention}
EXPECTED = {  # where a compiled kernel's absence is worth a warning
    "cpu": ("torch.float32", "torch.bfloat16"),
    "cuda": ("torch.float32", "torch.bfloat16", "torch.float16"),
}
NAMES = (*MODULES, "reference")
_asked: ContextVar[str | None] = ContextVar("implementation", default=None)


@contextmanager
def use(name: str) -> Iterator[None]:
    """Run one of NAMES inside; what it cannot do is then an error."""
    if name not in NAMES:
        raise ValueError(f"implementation {name!r} is not one of {', '.join(NAMES)}")
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def resolve(q: torch.Tensor) -> str:
    """The implementation for tensors like q (..., head dim): as `use` asks, or the fastest."""
    asked = _asked.get()
    if asked in ("torch", "reference"):
        return asked
    best = asked or ("triton" if q.device.type == "cuda" else "cpp")
    why = refusal(best, q.device.type, q.dtype, q.shape[-1])
    if asked and why:
        raise ValueError(f"the {asked} implementation cannot run here: {why}")
    name = "torch" if why else best
    _say(name, q.device.type, str(q.dtype), why)
    return name


def refusal(name: str, device: str, dtype: torch.dtype, head_dim: int) -> str:
    """Why an implementation cannot take such tensors here, or nothing."""
    return COMPILED[name].refusal(device, dtype, head_dim) if name in COMPILED else ""


@cache
def _say(name: str, device: str, dtype: str, why: str) -> None:
    """One line of the log per kind of tensors; a warning where a compiled kernel was expected."""
    text = f"sparse attention in {dtype} on {device} runs the {name} implementation"
    expected = why and dtype in EXPECTED.get(device, ())
    logger.log(logging.WARNING if expected else logging.INFO, text + (f": {why}" if why else ""))


@cache
def implementation_named(name: str) -> ModuleType:
    """The module that holds an implementation."""
    return importlib.import_module(MODULES[name])
