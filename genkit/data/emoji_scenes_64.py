"""Emoji scenes at 64x64 pixels: the scenes and captions of emoji-scenes, twice as large.

Takes 1.5 GB of memory for the training split.
"""

from genkit.data import emoji_scenes
from genkit.data.base import Samples


def load(split: str = "train") -> Samples:
    """The scenes of a split: x_0 (n, 3, 64, 64) float32 in [-1, 1], and a caption each."""
    return emoji_scenes.load(split, size=64)
