"""Collapse: a run that has gone wrong stops with a sentence that says what was seen."""

from __future__ import annotations


class Collapse(RuntimeError):
    """Training has collapsed; the message says what was seen."""
