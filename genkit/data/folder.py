"""A folder of pictures with captions, as anybody keeps one.

A caption is in a text file of the picture's name beside it (cat.png, cat.txt), or in a
metadata.jsonl or metadata.csv with the columns file_name and text, as `datasets` has it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genkit.data.base import Samples

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
TABLES = ("metadata.jsonl", "metadata.csv")


def read_pictures(folder: Path, size: int) -> Samples:
    """The pictures below `folder`, the middle square of each brought to size x size in [-1, 1].

    ValueError for a folder without pictures, a picture that cannot be read, and captions that do
    not match the pictures.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    if not files:
        raise ValueError(f"{folder} holds no pictures ({', '.join(PICTURES)})")
    said = (
        _table(folder)
        if any((folder / name).exists() for name in TABLES)
        else _beside(folder, files)
    )
    _match(folder, {str(p.relative_to(folder)) for p in files}, set(said))
    pictures = torch.stack([picture(p, size) for p in files])
    captions = tuple(said[str(p.relative_to(folder))] for p in files)
    return Samples(pictures, {}, str(folder), captions=captions)


def picture(file: Any, size: int, name: str = "") -> Tensor:
    """A picture file, or an open picture, as (3, size, size) float32 in [-1, 1]: its middle square,
    on white where it is transparent. ValueError if it cannot be read."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        opened = file if isinstance(file, Image.Image) else Image.open(file)
        whole = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise ValueError(f"{name or file} cannot be read as a picture ({error})") from error
    white = Image.new("RGBA", whole.size, "white")
    square = ImageOps.fit(
        Image.alpha_composite(white, whole).convert("RGB"), (size, size), Image.Resampling.LANCZOS
    )
    return torch.from_numpy(np.asarray(square, np.float32) / 127.5 - 1).permute(2, 0, 1)


def _beside(folder: Path, files: list[Path]) -> dict[str, str]:
    """Captions in text files beside the pictures, by the picture's path below the folder."""
    found = {}
    for file in files:
        text = file.with_suffix(".txt")
        if text.exists():
            found[str(file.relative_to(folder))] = text.read_text(encoding="utf-8").strip()
    return found


def _table(folder: Path) -> dict[str, str]:
    """Captions of the folder's metadata file, by file name."""
    file = next(folder / name for name in TABLES if (folder / name).exists())
    found = {}
    for number, row in enumerate(_rows(file), 1):
        if not isinstance(row.get("file_name"), str) or not isinstance(row.get("text"), str):
            raise ValueError(f"row {number} of {file} needs the columns file_name and text")
        found[row["file_name"]] = row["text"].strip()
    return found


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix == ".csv":
            yield from csv.DictReader(lines)
            return
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} of {file} is no JSON ({error})") from error
            yield row if isinstance(row, dict) else {}


def _match(folder: Path, pictures: set[str], captioned: set[str]) -> None:
    """ValueError unless every picture has a caption, and every caption a picture."""
    without, lost = sorted(pictures - captioned), sorted(captioned - pictures)
    if without:
        raise ValueError(
            f"{len(without)} of {len(pictures)} pictures in {folder} have no caption, the first is "
            f"{without[0]}; write it into a text file of the picture's name, or into metadata.jsonl"
        )
    if lost:
        raise ValueError(
            f"{len(lost)} captions in {folder} belong to no picture there, the first is of "
            f"{lost[0]}"
        )
