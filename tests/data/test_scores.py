"""Tests of genkit/data/scores.py."""

import zipfile

import pytest

from genkit.data.scores import is_free, rights

SCORE = """<?xml version="1.0"?>
<score-partwise><identification><rights>Public Domain</rights>
<rights>Encoding:
  CC0</rights></identification></score-partwise>"""


def test_a_score_says_its_rights(tmp_path):
    plain, packed = tmp_path / "air.xml", tmp_path / "air.mxl"
    plain.write_text(SCORE)
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("META-INF/container.xml", "<container/>")
        file.writestr("air.musicxml", SCORE)
    assert rights(plain) == rights(packed) == "Public Domain | Encoding: CC0"
    plain.write_text("<score-partwise/>")
    assert rights(plain) == ""


@pytest.mark.parametrize("content", [b"X:1", b"PK\x03\x04", b""])
@pytest.mark.parametrize("ending", [".xml", ".mxl"])
def test_what_is_no_score_is_one_sentence(content, ending, tmp_path):
    file = tmp_path / f"air{ending}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is no MusicXML"):
        rights(file)


def test_only_what_says_a_free_licence_is_free():
    free = ("Public Domain", "released as CC0", "under a CC-BY-SA 3.0 license", "CC BY 4.0")
    assert all(is_free(said) for said in free)
    kept = ("", "Copyright ©", "All Rights Reserved", "CC-BY-NC 4.0", "CC BY-ND", "free to look at")
    kept += ("Creative Commons, non-commercial",)
    assert not any(is_free(said) for said in kept)
