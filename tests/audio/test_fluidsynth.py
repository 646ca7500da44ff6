"""Tests of genkit/audio/fluidsynth.py."""

import shutil
from pathlib import Path

import pytest
import torch

from genkit.audio import fluidsynth
from genkit.audio.midi import midi_bytes
from genkit.data.songs import compose

there = shutil.which("fluidsynth") is not None and fluidsynth.FONT.is_file()
needs = pytest.mark.skipif(not there, reason="needs apt-get install fluidsynth timgm6mb-soundfont")


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/" + name)
    with pytest.raises(ValueError, match="apt-get install timgm6mb-soundfont"):
        fluidsynth.check_installed(tmp_path / "none.sf2")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="apt-get install fluidsynth"):
        fluidsynth.check_installed(tmp_path / "none.sf2")


def test_levels_are_one_loudness_below_the_peak():
    soft = torch.sin(torch.arange(1000.0)) * 0.01
    assert fluidsynth.levelled(soft).square().mean().sqrt().item() == pytest.approx(0.12)
    click = torch.zeros(1000)
    click[3] = 0.2
    assert fluidsynth.levelled(click).max().item() == pytest.approx(0.95)


@needs
def test_a_song_is_rendered_and_one_without_end_is_left(monkeypatch, tmp_path):
    song, midi = compose("test", 0, 4.0), tmp_path / "song.mid"
    midi.write_bytes(midi_bytes(song.notes, song.programs, song.plan.bpm))
    sound = fluidsynth.rendered(midi, fluidsynth.FONT, 22050, {"synth.reverb.level": 0.2})
    assert sound.ndim == 1 and len(sound) > 3 * 22050 and sound.abs().max() > 0.01
    assert list(tmp_path.iterdir()) == [Path(midi)]
    monkeypatch.setattr(fluidsynth, "LIMIT", 1e-3)
    with pytest.raises(ValueError, match="has not ended"):
        fluidsynth.rendered(midi, fluidsynth.FONT, 22050, {})
