"""Write docs/results-methods.md from the rows of `genkit bench methods`, and of comparisons on
trained teachers (genkit compare).

    python scripts/write_results.py docs/figures/methods.json [COMPARISON.json ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from genkit.benchmarks.page import page

if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    files = [Path(name) for name in sys.argv[1:]]
    rows, *trained = ({file.as_posix(): json.loads(file.read_text())} for file in files)
    ((name, told),) = rows.items()
    beside = {file: each for pair in trained for file, each in pair.items()}
    written = Path(__file__).resolve().parent.parent / "docs" / "results-methods.md"
    written.write_text(page(told, name, beside), encoding="utf-8")
    print(written)
