"""Pictures and players: the loudest is the brightest, and all stands in the page itself."""

import torch
from PIL import Image

from genkit.audio.pictures import lines, player, rows, spectrogram
from genkit.modalities.sheet import write_lines


def test_a_spectrogram_has_its_low_bands_at_the_bottom():
    x = torch.full((10, 80), -1.0)
    x[:, 0] = 1.0
    picture = spectrogram(x)
    assert picture.size == (20, 80)
    assert sum(picture.getpixel((3, 79))) > 400 > sum(picture.getpixel((3, 0)))


def test_a_player_needs_nothing_from_outside():
    page = rows([("teacher", [player(torch.zeros(4, 80), torch.zeros(1024), "<hi>")])])
    assert page.count("data:") == 2 and "http" not in page and "&lt;hi&gt;" in page


def test_a_sheet_shows_every_sound_under_its_label(tmp_path):
    loud, quiet = torch.full((10, 80), 1.0), torch.full((6, 80), -1.2)
    parts = {"student": [loud, quiet], "teacher": [quiet, loud]}
    file = write_lines(lines(parts), tmp_path / "both")
    with Image.open(file) as picture:
        assert picture.size == (2 * (20 + 4), 2 * (14 + 80))
        ink = [sum(picture.getpixel(at)) for at in ((5, 50), (30, 50), (5, 150), (30, 150))]
    assert ink[0] == ink[3] > 600 and ink[1] == ink[2] < 60
