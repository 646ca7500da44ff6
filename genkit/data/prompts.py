"""A file of prompts, one a line: all a text-to-image teacher needs to be distilled."""

from __future__ import annotations

import hashlib
from pathlib import Path

from genkit.data.base import Prompts


def read_prompts(file: Path) -> Prompts:
    """The prompts of a text file; empty lines and lines that begin with # are left out.

    The name holds a hash of the prompts, so that what was made for others is not taken for theirs.
    ValueError for a file without a prompt, or that is no text.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error})") from error
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise ValueError(f"{file} holds no prompt; write one a line")
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:8]
    return Prompts(prompts, f"{file.name}-{digest}")
