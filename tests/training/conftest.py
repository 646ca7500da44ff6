"""Makes training_toys importable, also in spawned processes; spares tests waiting for the disk."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    """No test pulls the plug, and a busy disk takes a second for every checkpoint."""
    import os

    monkeypatch.setattr(os, "fsync", lambda handle: None)
