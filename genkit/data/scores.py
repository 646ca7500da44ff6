"""Scores in MusicXML: what each file itself says of its licence."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

ENDINGS = (".mxl", ".musicxml", ".xml")
FREE = re.compile(
    r"public domain|\bcc0\b|\bcc[- ]by\b|\bcc-sa-by\b|creative commons", re.IGNORECASE
)
NOT_FREE = re.compile(r"\bnc\b|\bnd\b|non-?commercial|all rights reserved", re.IGNORECASE)


def rights(file: Path) -> str:
    """What a score, compressed or not, says of its rights; "" where it says nothing.

    ValueError for a file that is no MusicXML.
    """
    try:
        if file.suffix.lower() == ".mxl":
            with zipfile.ZipFile(file) as packed:
                names = [name for name in packed.namelist() if not name.startswith("META-INF")]
                text = packed.read(
                    next(n for n in names if n.lower().endswith((".xml", ".musicxml")))
                )
        else:
            text = file.read_bytes()
        said = ElementTree.fromstring(text).iter("rights")
    except (ElementTree.ParseError, zipfile.BadZipFile, StopIteration) as error:
        raise ValueError(f"{file} is no MusicXML") from error
    return " | ".join(" ".join((each.text or "").split()) for each in said)


def is_free(said: str) -> bool:
    """Whether rights are of the public domain or of a licence that allows any use and change: CC0,
    CC BY, CC BY-SA. What says nothing is not free."""
    return FREE.search(said) is not None and NOT_FREE.search(said) is None
