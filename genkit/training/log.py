"""The run's log: one JSON object per line in log.jsonl, the same numbers in tensorboard."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Log:
    """Appends to log.jsonl and tb/ of a run's folder.

    position: length of log.jsonl to begin with, so that what a killed run wrote after its last
    checkpoint does not stand twice. step: the step that belongs to it, for tensorboard.
    """

    def __init__(self, out: Path, position: int = 0, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.file = out / "log.jsonl"
        self.file.touch()
        os.truncate(self.file, position)
        self._lines = self.file.open("a")
        self._board = SummaryWriter(str(out / "tb"), purge_step=step + 1 if step else None)

    def write(self, step: int, **values: Any) -> None:
        """One line; numbers also go to tensorboard."""
        line = {"step": step, **{key: _plain(value) for key, value in values.items()}}
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        for key, value in values.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(key, value, step)

    def position(self) -> int:
        """The length of log.jsonl, once all of it is on the disk."""
        self._lines.flush()
        os.fsync(self._lines.fileno())
        return self.file.stat().st_size

    def close(self) -> None:
        """Write out what is pending."""
        self._lines.close()
        self._board.close()


def _plain(value: Any) -> Any:
    # JSON has no NaN and no infinity.
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def read_log(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl; a last line cut short by a kill is left out."""
    file = out / "log.jsonl"
    if not file.exists():
        return []
    lines = file.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def measured(lines: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines that hold a measured distance."""
    return [line for line in lines if "distance" in line]
