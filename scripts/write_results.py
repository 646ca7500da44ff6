"""Write docs/results-methods.md from the rows of `genkit bench methods`: give the file of rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from genkit.benchmarks.page import page

if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python scripts/write_results.py docs/figures/methods.json")
    file = Path(sys.argv[1])
    written = Path(__file__).resolve().parent.parent / "docs" / "results-methods.md"
    written.write_text(page(json.loads(file.read_text()), file.as_posix()), encoding="utf-8")
    print(written)
