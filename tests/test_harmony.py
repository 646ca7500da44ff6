"""Keys, chords and plans: names, phases and forms, and what frames are told."""

import math

import pytest
import torch

from genkit.harmony import (
    CHORDS,
    KEYS,
    RATE,
    SECTIONS,
    WIDTH,
    Plan,
    check_bpm,
    chord_number,
    degree,
    following,
    form,
    key_number,
    loops,
    notes_of,
    planned,
    scale_of,
)


def test_names_are_numbers():
    assert [key_number(name) for name in KEYS] == list(range(24))
    assert [chord_number(name) for name in CHORDS] == list(range(24))
    assert key_number("Am") == key_number("a minor") == 21
    assert key_number("Db major") == key_number("C#") == 1 and key_number("B♭ min") == 22


@pytest.mark.parametrize("name", ["", "H major", "C dorian", "C##", 3, None])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="no key; give one such as"):
        key_number(name)


@pytest.mark.parametrize("bpm", [0, -3, 1000, float("nan"), "fast"])
def test_tempi_that_are_none_are_refused(bpm):
    with pytest.raises(ValueError, match="give beats per minute"):
        check_bpm(bpm)


def test_chords_are_those_of_the_key():
    assert notes_of(chord_number("Am")) == (9, 0, 4)
    assert degree(key_number("G major"), "V") == chord_number("D")
    assert degree(key_number("A minor"), "iv") == chord_number("Dm")
    for key in range(24):
        for loop in loops(key):
            strange = {n for chord in loop for n in notes_of(chord)} - set(scale_of(key))
            # Minor's own dominant has the leading note.
            assert strange <= ({(key - 1) % 12} if key >= 12 else set())


def test_no_progression_is_of_two_keys():
    """Else a piece could not tell its key."""
    held: dict[tuple[int, ...], int] = {}
    for key in range(24):
        for loop in loops(key):
            turns = [loop[i:] + loop[:i] for i in range(4)]
            assert held.setdefault(min(map(tuple, turns)), key) == key


def test_a_form_ends_as_it_should():
    for bars in (1, 7, 8, 17, 120):
        assert len(form(bars)) == bars
    assert form(8) == (0, 0, 1, 1, 1, 1, 3, 3) and 2 in form(12)


def test_a_piece_fits_and_comes_home():
    plan = planned(key_number("A minor"), 120.0, 60.9, 3)
    assert plan.end_in_s == 60.0 and len(plan.chords) == 30
    assert [CHORDS[c] for c in plan.chords[-2:]] == ["E", "Am"]
    assert plan == planned(21, 120.0, 60.9, 3) and plan != planned(21, 120.0, 60.9, 5)
    assert following(["C", "Am"], 120.0, 6.1).chords == (0, 21, 0)
    assert len(planned(0, 60.0, 0.1, 0).chords) == 1


def test_frames_are_told_of_beats_and_chords():
    plan = Plan(120.0, (0, 21, 5), (0, 1, 3))
    whole = plan.told(0, 200)
    assert whole.shape == (200, WIDTH)
    assert torch.equal(plan.told(37, 50), whole[37:87])
    for frame in (0, 10, 60, 100):
        seconds = (frame + 0.5) / RATE
        assert whole[frame, 0] == pytest.approx(math.sin(2 * math.pi * seconds * 2), abs=1e-4)
        assert whole[frame, 3] == pytest.approx(math.cos(2 * math.pi * seconds / 2), abs=1e-4)
        chord = plan.chord_at(seconds)
        notes = whole[frame, 11:23].nonzero()[:, 0].tolist()
        assert notes == sorted(notes_of(chord)) and whole[frame, 23 + chord % 12] == 1
        assert whole[frame, 6 : 6 + len(SECTIONS)].sum() == 1
    after = whole[int(6.1 * RATE) :]
    assert (after[:, 10] == 1).all() and not after[:, 11:35].any() and plan.chord_at(6.1) is None
    assert not Plan(0.0, (), ()).told(0, 5).any()
