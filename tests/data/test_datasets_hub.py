"""Tests of genkit/data/datasets_hub.py, on a folder that `datasets` reads without a network."""

from pathlib import Path

import pytest
from PIL import Image

from genkit.data import open_data

pytest.importorskip("datasets", reason="the extra genkit[data] is not installed")


def test_a_folder_of_datasets_is_read(tmp_path: Path):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "train" / "a.png")
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "red"}\n')
    data = open_data(f"datasets:{tmp_path}", 4)
    assert data.captions == ("red",) and data.x_0.shape == (1, 3, 4, 4)


def test_what_datasets_cannot_load_is_said(tmp_path: Path):
    with pytest.raises(ValueError, match="datasets could not load"):
        open_data(f"datasets:{tmp_path / 'nothing'}", 4)
