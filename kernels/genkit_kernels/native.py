"""The compiled CPU kernel (not there yet)."""
import torch
def refusal(device: str, dtype: torch.dtype, head_dim: int) -> str:
    return "it is not built"
