"""Tests of genkit/data/prompts.py."""

from pathlib import Path

import pytest

from genkit.data import open_data
from genkit.data.base import Prompts
from genkit.data.prompts import read_prompts


def test_prompts_are_lines(tmp_path: Path):
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n\n# not this\n  a dog in Zürich \n", encoding="utf-8")
    data = open_data(str(file), 32)
    assert isinstance(data, Prompts) and data.prompts == ("a cat", "a dog in Zürich")


def test_the_name_changes_with_the_prompts(tmp_path: Path):
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n")
    first = read_prompts(file).name
    file.write_text("a dog\n")
    assert first.startswith("prompts.txt-") and read_prompts(file).name != first


def test_a_file_without_prompts_is_refused(tmp_path: Path):
    file = tmp_path / "prompts.txt"
    file.write_text("# nothing\n\n")
    with pytest.raises(ValueError, match="holds no prompt"):
        read_prompts(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        read_prompts(file)
