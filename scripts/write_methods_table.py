"""Write genkit/methods/README.md from the method files: `python scripts/write_methods_table.py`."""

from __future__ import annotations

from pathlib import Path

from genkit import catalogue

HEAD = """# Methods

One file per method; its name here, on the command line, in its test and in its file is one word.
This table is written by `python scripts/write_methods_table.py`, and a test holds it to the files.

"""


def table() -> str:
    """The page: one row per method, from the files' docstrings and class attributes."""
    lines = ["| method | family | what it does | paper | reads |", "|---|---|---|---|---|"]
    for name, entry in catalogue.methods().items():
        facts = entry.facts
        number = facts["paper"].removeprefix("arXiv ")
        paper = f"[{number}](https://arxiv.org/abs/{number})"
        row = [
            f"[`{name}`]({name}.py)",
            facts["family"],
            entry.summary.rstrip(".").replace("|", "\\|"),
            paper,
            ", ".join(facts["needs"]),
        ]
        lines.append(f"| {' | '.join(row)} |")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    page = Path(catalogue.__file__).parent / "methods" / "README.md"
    page.write_text(table(), encoding="utf-8")
    print(page)
