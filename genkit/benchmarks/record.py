"""What a bench measured, as a JSON file that names no folder of the machine it was measured on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

WHERE = ("json", "out", "plot")  # settings that say where a bench writes


def write_record(file: str, settings: Any, **found: Any) -> None:
    """Write what was asked (a dataclass of settings), the cores there are and what was found.

    OSError where the file cannot be written.
    """
    asked = {name: value for name, value in asdict(settings).items() if name not in WHERE}
    held = {"settings": asked, "cores": os.cpu_count()} | found
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
