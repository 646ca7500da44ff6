"""Write docs/results-methods.md from the rows of `genkit bench methods`, and of comparisons on
trained teachers (genkit compare).

    python scripts/write_results.py docs/figures/methods.json [COMPARISON.json ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from genkit.benchmarks.page import page
from genkit.comparison.results import section

if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    rows, *trained = (Path(name) for name in sys.argv[1:])
    text = page(json.loads(rows.read_text()), rows.as_posix())
    text += "".join(section(json.loads(file.read_text()), file.as_posix()) for file in trained)
    written = Path(__file__).resolve().parent.parent / "docs" / "results-methods.md"
    written.write_text(text, encoding="utf-8")
    print(written)
