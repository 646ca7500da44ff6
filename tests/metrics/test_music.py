"""Figures of music on sounds whose key, chords and tempo are known, and on shuffled answers."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from genkit.data import music_tones
from genkit.data.music_samples import HOP, RATE, plan_of
from genkit.harmony import Plan, notes_of
from genkit.metrics.music import (
    MusicFeatures,
    MusicFigures,
    agrees,
    beats_of,
    chords_of,
    chroma,
    keys_of,
    movement,
    tempi_of,
)


@dataclass(frozen=True)
class Asked:
    key: int
    plan: Plan
    first: int = 0


def chord(number: int, seconds: float) -> torch.Tensor:
    time = torch.arange(int(seconds * RATE)) / RATE
    pitches = [48 + note for note in notes_of(number)]
    tones = [torch.sin(2 * torch.pi * 440 * 2 ** ((p - 69) / 12) * time) for p in pitches]
    return torch.stack(tones).mean(0)


@pytest.mark.parametrize("number", [0, 4, 11, 12, 21])
def test_triads_are_heard(number):
    tones = chroma(chord(number, 1.0)[None])[0]
    assert chords_of(tones, [(0.0, 0.5), (0.5, 1.0)]).tolist() == [number] * 2


@pytest.mark.parametrize(("key", "degrees"), [(0, (0, 5, 7)), (19, (19, 12, 2))])
def test_keys_are_heard(key, degrees):
    audio = torch.cat([chord(number, 1.0) for number in (*degrees, degrees[0])])
    assert keys_of(chroma(audio[None])).tolist() == [key]


def test_a_held_chord_moves_less_than_one_that_changes():
    held = chord(0, 4.0)
    moving = torch.cat([chord(number, 0.5) for number in (0, 5, 7, 0, 9, 2, 7, 0)])
    still, moved = movement(chroma(torch.stack([held, moving]))).tolist()
    assert still < 0.01 and moved > 5 * still and moved > 0.1


@pytest.mark.parametrize("bpm", [72.0, 97.0, 120.0, 151.0])
def test_tempi_are_heard(bpm):
    rng = np.random.RandomState(0)
    audio = torch.zeros(10 * RATE)
    for beat in np.arange(0, 9.8, 60 / bpm):
        first = int(beat * RATE)
        audio[first : first + 400] += torch.from_numpy(rng.randn(400)).float() * 0.3
    assert agrees(float(tempi_of(audio[None])[0]), bpm)


def test_octaves_are_told_apart():
    assert agrees(103.9, 100) and not agrees(104.1, 100) and not agrees(50, 100)
    assert agrees(50, 100, True) and agrees(300, 100, True) and not agrees(150, 100, True)


def test_beats_lie_within_the_sample():
    asked = Asked(0, Plan(120.0, (0, 5, 7), (1, 1, 1)), first=30)
    beats = beats_of(asked, 3.0)
    start = 30 * HOP / RATE
    assert beats[0][0] == pytest.approx(1.5 - start) and beats[-1][1] <= 3.0
    assert [each[2] for each in beats] == [0, 5, 5, 5, 5]
    assert beats_of(Asked(0, Plan(0.0, (), ())), 3.0) == []


def test_tones_score_as_asked_and_shuffled_ones_do_not():
    """Real sound of known truth is the ceiling; the same sound with others' truth the floor."""
    data = music_tones.load("test", 10)
    keys, bpm = data.cond["key"].tolist(), data.cond["bpm"].tolist()
    asked = [
        Asked(key, plan_of(b, bars))
        for key, b, bars in zip(keys, bpm, data.cond["bars"], strict=True)
    ]
    figures = MusicFigures()
    right = figures(data.x_0, torch.zeros(0), asked)
    wrong = figures(data.x_0, torch.zeros(0), asked[3:] + asked[:3])
    for name in ("key", "tempo_octaves", "chords"):
        assert right[name] > wrong[name] + 0.2, name
    assert right["chords"] > 0.5 and right["tempo_octaves"] >= 0.8
    unknown = [Asked(24, Plan(0.0, (), ()))] * 10
    assert figures(data.x_0, torch.zeros(0), unknown) == {"movement": right["movement"]}


def test_features_are_of_level_spread_and_movement():
    loud, noise = torch.full((1, 8 * HOP), 0.0), torch.randn(1, 8 * HOP)
    made = MusicFeatures().features(torch.cat([loud, noise]))
    assert made.shape == (2, 60) and (made[0, 20:] == 0).all() and made[1, 20:].min() > 0
