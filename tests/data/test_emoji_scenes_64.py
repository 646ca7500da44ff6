"""Tests of genkit/data/emoji_scenes_64.py."""

import pytest

from genkit.data import emoji_scenes, load
from genkit.data.emoji_scenes import COUNT


def test_they_are_the_same_scenes_twice_as_large(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(COUNT, "validation", 5)
    large, small = load("emoji-scenes-64", "validation"), emoji_scenes.load("validation")
    assert large.name == "emoji-scenes-64" and large.captions == small.captions
    assert large.x_0.shape == (5, 3, 64, 64) and small.x_0.shape == (5, 3, 32, 32)
