"""The JSON of a bench holds what was asked and found, and no folder of the machine."""

import json
from dataclasses import dataclass

from genkit.benchmarks.record import write_record


@dataclass
class Settings:
    pipeline: str = "speech-onestep"
    json: str | None = None


def test_a_record_names_no_folder(tmp_path):
    file = tmp_path / "new" / "bench.json"
    write_record(str(file), Settings(json=str(file)), threads=2, rows=[{"ms": 1.5}])
    held = json.loads(file.read_text())
    assert held["settings"] == {"pipeline": "speech-onestep"}
    assert held["threads"] == 2 and held["rows"] == [{"ms": 1.5}] and held["cores"] >= 1
    assert str(tmp_path) not in file.read_text()
