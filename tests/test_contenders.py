"""Tests of genkit/contenders.py, on a teacher with random weights."""

from pathlib import Path

import pytest
import torch

from genkit import contenders
from genkit.contenders import Contender, samples, told
from genkit.data import load
from genkit.hub import Pipeline
from genkit.modalities import modality


def test_what_is_asked_is_in_the_name_of_the_cache():
    class Prompts:
        name = "words"

        def __init__(self, *words: str) -> None:
            self.words = words

        def asked(self, n: int) -> tuple[str, ...]:
            return self.words[:n]

    one, other = Prompts("a", "b"), Prompts("a", "c")
    assert told(one, 1) == told(other, 1) != told(one, 2) != told(other, 2)  # type: ignore[arg-type]


def test_samples_come_from_the_cache_until_something_changes(tiny_teacher: Path, monkeypatch):
    kind, pipeline = modality(load("digits")), Pipeline.from_pretrained(tiny_teacher)
    drawn: list[int] = []
    draw = contenders._draw

    def counted(who: Contender, kind, seed: int, n: int):
        drawn.append(seed)
        return draw(who, kind, seed, n)

    monkeypatch.setattr(contenders, "_draw", counted)
    first = samples(Contender("a", pipeline, 3, 1.0), kind, 77, 8)
    again = samples(Contender("renamed", pipeline, 3, 1.0), kind, 77, 8)
    assert torch.equal(first[0], again[0]) and first[1] == again[1] and len(drawn) == 1
    samples(Contender("a", pipeline, 2, 1.0), kind, 77, 8)
    samples(Contender("a", pipeline, 3, 2.0), kind, 77, 8)
    samples(Contender("a", pipeline, 3, 1.0), kind, 78, 8)
    samples(Contender("a", pipeline, 3, 1.0), kind, 77, 9)
    with torch.no_grad():
        pipeline.network.leave.bias.add_(1.0)
    samples(Contender("a", pipeline, 3, 1.0), kind, 77, 8)
    assert len(drawn) == 6


def test_a_damaged_cache_is_named_not_used(tiny_teacher: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path))
    kind, pipeline = modality(load("digits")), Pipeline.from_pretrained(tiny_teacher)
    samples(Contender("a", pipeline, 1, 1.0), kind, 0, 6)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match="delete it"):
        samples(Contender("a", pipeline, 1, 1.0), kind, 0, 6)
