"""Data sets of music: songs by rule, MIDI, folders with captions, held-out combinations."""

import json
import struct

import pytest
import torch

from genkit.audio.files import write
from genkit.audio.midi import Note, midi_bytes
from genkit.data import load, music_tones, open_data
from genkit.data.music_folder import holds, read_folder
from genkit.data.music_samples import BARS, HOP, RATE, gather, plan_of
from genkit.data.songs import INSTRUMENTS, SPLITS, compose, split_of
from genkit.harmony import CHORDS, KEYS, SECTIONS, notes_of


def test_songs_are_made_of_seeds_and_held_out_ones_are():
    for split in SPLITS:
        song, again = (compose(split, 5, 30.0) for _ in range(2))
        assert song == again != compose(split, 6, 30.0)
        assert split_of(song.key, song.plan.bpm, song.instrument) == split
        assert song.plan.end_in_s <= 30.0 and song.instrument in song.text
    combos = [(k, b, i) for k in range(24) for b in range(70, 160, 10) for i in INSTRUMENTS]
    shares = [sum(split_of(*each) == split for each in combos) / len(combos) for split in SPLITS]
    assert shares[0] > 0.85 and min(shares[1:]) > 0.03


def test_the_bass_plays_the_chords_it_says():
    song = compose("train", 0, 30.0)
    for bar, chord in enumerate(song.plan.chords):
        begin = bar * song.plan.bar_in_s
        first = [n for n in song.notes if n.channel == 2 and abs(n.start - begin) < 0.1]
        assert [n.pitch % 12 for n in first] == [notes_of(chord)[0]]


def test_one_condition_has_many_songs():
    """Melody, voicing and timing are drawn: two songs of one plan differ."""
    a, b = compose("train", 1, 30.0), compose("train", 2, 30.0)
    lead = lambda song: [n.pitch - song.key for n in song.notes if n.channel == 0]  # noqa: E731
    assert lead(a) != lead(b)


def test_a_midi_file_has_its_notes():
    held = midi_bytes([Note(0.0, 0.5, 60, 90, 0), Note(1.0, 0.5, 64, 80, 0)], {0: 5}, 120.0)
    assert held[:4] == b"MThd" and struct.unpack(">IHHH", held[4:14]) == (6, 0, 1, 480)
    track = held[22:]
    assert struct.unpack(">I", held[18:22])[0] == len(track)
    assert b"\xff\x51\x03" + struct.pack(">I", 500_000)[1:] in track and bytes([0xC0, 5]) in track
    # Half a second is 480 ticks at 120 beats a minute: 0x83 0x60 as a varying quantity.
    assert b"\x90\x3c\x5a" + bytes([0x83, 0x60]) + b"\x80\x3c\x00" in track
    assert track.endswith(b"\x00\xff\x2f\x00")


def test_tones_are_samples_with_their_truth():
    data = music_tones.load("test", 3)
    assert data.x_0.shape == (3, music_tones.LENGTH * HOP) and data.x_0.abs().max() <= 0.61
    song = compose("test", 1, music_tones.LENGTH * HOP / RATE)
    assert plan_of(float(data.cond["bpm"][1]), data.cond["bars"][1]) == song.plan
    assert KEYS[int(data.cond["key"][1])] == KEYS[song.key]
    assert data.classes[int(data.cond["instrument"][1])] == song.instrument
    with pytest.raises(ValueError, match="no split"):
        music_tones.load("other")


def tone(seconds: float) -> torch.Tensor:
    return 0.3 * torch.sin(torch.arange(int(seconds * RATE)) * 0.1)


def test_a_folder_with_a_table(tmp_path):
    rows = []
    for number, split in enumerate(("train", "test")):
        write(tmp_path / f"{number}.wav", tone(10.0), RATE)
        rows.append(
            {
                "file_name": f"{number}.wav",
                "text": "slow organ",
                "bpm": 96,
                "key": "A minor",
                "instrument": "organ",
                "chords": ["Am", "F", "G", "Am"],
                "split": split,
            }
        )
    table = tmp_path / "metadata.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert holds(tmp_path)
    data = open_data(str(tmp_path), 64)
    assert data.captions == ("slow organ",) and data.held_out == ("slow organ",)
    assert int(data.cond["key"][0]) == KEYS.index("A minor") and data.classes == ("organ",)
    plan = plan_of(96.0, data.cond["bars"][0])
    assert [CHORDS[c] for c in plan.chords] == ["Am", "F", "G", "Am"]
    assert int(data.cond["frames"][0]) == 10 * RATE // HOP
    for wrong, told in (
        ({"chords": ["C7"]}, "'C7' is no chord"),
        ({"bpm": 0.5}, "bpm is 0.5"),
        ({"sections": [SECTIONS[0]]}, "1 sections for 4 chords"),
        ({"split": "dev"}, "'dev'"),
    ):
        table.write_text(json.dumps(rows[0] | wrong) + "\n")
        with pytest.raises(ValueError, match=told):
            read_folder(tmp_path)
    table.write_text("{}\n")
    with pytest.raises(ValueError, match="line 1 of .* file_name and text"):
        read_folder(tmp_path)


def test_a_folder_with_captions_beside(tmp_path):
    write(tmp_path / "a.wav", tone(85.0), RATE)
    with pytest.raises(ValueError, match="has no caption"):
        read_folder(tmp_path)
    (tmp_path / "a.txt").write_text("calm piano\n")
    found = {split: 0 for split in SPLITS}
    for split in SPLITS:
        try:
            data = load(str(tmp_path), split)
        except ValueError:
            continue
        found[split] = len(data)
        # Nothing is known of it, and a recording is cut into several.
        assert (data.cond["bars"] == -1).all() and data.cond["bars"].shape == (3, BARS, 2)
        assert data.cond["key"].tolist() == [24] * 3 and data.cond["bpm"].tolist() == [0.0] * 3
    assert sum(found.values()) == 3


def test_short_and_silent_sounds_are_said(tmp_path, capsys):
    from genkit.data.music_samples import Piece

    with pytest.raises(ValueError, match="no piece of at least 8.9 s"):
        gather([Piece(tone(2.0), "x")], "mine", [])
    assert "1 pieces under 8.9 s left out" in capsys.readouterr().err
    write(tmp_path / "a.wav", torch.zeros(10 * RATE), RATE)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="holds no sound"):
        for split in SPLITS:
            try:
                read_folder(tmp_path, split)
            except ValueError as error:
                if "of the split" not in str(error):
                    raise


def test_what_is_not_made_yet_says_how(monkeypatch, tmp_path):
    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="apt-get install fluidsynth .*, then python .*_music.py"):
        load("music")
