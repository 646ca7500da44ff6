"""Pictures and players: the loudest is the brightest, and all stands in the page itself."""

import torch

from genkit.audio.pictures import player, rows, spectrogram


def test_a_spectrogram_has_its_low_bands_at_the_bottom():
    x = torch.full((10, 80), -1.0)
    x[:, 0] = 1.0
    picture = spectrogram(x)
    assert picture.size == (20, 80)
    assert sum(picture.getpixel((3, 79))) > 400 > sum(picture.getpixel((3, 0)))


def test_a_player_needs_nothing_from_outside():
    page = rows([("teacher", [player(torch.zeros(4, 80), torch.zeros(1024), "<hi>")])])
    assert page.count("data:") == 2 and "http" not in page and "&lt;hi&gt;" in page
