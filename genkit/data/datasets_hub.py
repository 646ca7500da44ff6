"""Pictures with captions from Hugging Face `datasets`: its hub, or a folder it can read."""

from __future__ import annotations

from typing import Any

import torch

from genkit.data.base import Samples
from genkit.data.folder import picture

PREFIX = "datasets:"
CAPTIONS = ("text", "caption", "prompt")


def read_datasets(name: str, size: int) -> Samples:
    """The "train" split of the data set `name` (without the prefix), pictures size x size.

    ValueError where `datasets` is not installed, cannot load it, or where it has no column of
    pictures or of captions.
    """
    try:
        from datasets import Image, load_dataset  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f'{PREFIX}{name} needs the package datasets: pip install "genkit[data]"'
        ) from None
    try:
        loaded: Any = load_dataset(name, split="train")
    except Exception as error:  # datasets raises a dozen kinds; each says what is wrong
        raise ValueError(f"datasets could not load {name!r} ({error})") from error
    pictures = [key for key, kind in loaded.features.items() if isinstance(kind, Image)]
    captions = [key for key in CAPTIONS if key in loaded.features]
    if not pictures or not captions:
        raise ValueError(
            f"{name} has the columns {', '.join(loaded.features)}; one of pictures is needed, and "
            f"one of captions called {' or '.join(CAPTIONS)}"
        )
    x_0 = torch.stack([picture(row[pictures[0]], size, f"row of {name}") for row in loaded])
    said = tuple(str(each) for each in loaded[captions[0]])
    return Samples(x_0, {}, f"{PREFIX}{name}", captions=said)
