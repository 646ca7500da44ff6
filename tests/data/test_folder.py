"""Tests of genkit/data/folder.py."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from genkit.data import open_data
from genkit.data.folder import picture, read_pictures


def draw(file: Path, colour: str, size: tuple[int, int] = (8, 8)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)


def test_captions_stand_beside_their_pictures(tmp_path: Path):
    draw(tmp_path / "a.png", "red")
    draw(tmp_path / "deep" / "b.jpg", "white", (16, 10))
    (tmp_path / "a.txt").write_text("a red square\n")
    (tmp_path / "deep" / "b.txt").write_text("a white one")
    data = read_pictures(tmp_path, 4)
    assert data.captions == ("a red square", "a white one")
    assert data.x_0.shape == (2, 3, 4, 4)
    assert data.x_0[0, :, 0, 0].tolist() == [1, -1, -1]
    assert torch.allclose(data.x_0[1], torch.ones(3, 4, 4), atol=0.02)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_captions_stand_in_a_table(tmp_path: Path, kind: str):
    draw(tmp_path / "a.png", "blue")
    row = {"file_name": "a.png", "text": "blue, all of it"}
    if kind == "jsonl":
        (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    else:
        (tmp_path / "metadata.csv").write_text('file_name,text\na.png,"blue, all of it"\n')
    assert read_pictures(tmp_path, 4).captions == ("blue, all of it",)


def test_the_middle_square_is_taken_and_transparency_is_white(tmp_path: Path):
    wide = Image.new("RGB", (12, 4), "red")
    wide.paste("blue", (4, 0, 8, 4))
    assert picture(wide, 4)[:, 2, 2].tolist() == [-1, -1, 1]
    assert picture(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), 4).min() == 1


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no pictures"):
        open_data(str(tmp_path), 4)


def test_an_unreadable_picture_is_named(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"not a picture")
    (tmp_path / "a.txt").write_text("nothing")
    with pytest.raises(ValueError, match="a.png cannot be read as a picture"):
        read_pictures(tmp_path, 4)


def test_captions_and_pictures_must_match(tmp_path: Path):
    draw(tmp_path / "a.png", "red")
    with pytest.raises(ValueError, match="1 of 1 pictures .* have no caption, the first is a.png"):
        read_pictures(tmp_path, 4)
    rows = [{"file_name": name, "text": name} for name in ("a.png", "lost.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ValueError, match="belong to no picture there, the first is of lost.png"):
        read_pictures(tmp_path, 4)


def test_a_broken_table_is_named(tmp_path: Path):
    draw(tmp_path / "a.png", "red")
    (tmp_path / "metadata.jsonl").write_text("{")
    with pytest.raises(ValueError, match="line 1 of .*metadata.jsonl is no JSON"):
        read_pictures(tmp_path, 4)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}')
    with pytest.raises(ValueError, match="row 1 .* needs the columns file_name and text"):
        read_pictures(tmp_path, 4)
