"""Write genkit/methods/README.md from the method files: `python scripts/write_methods_table.py`."""

from __future__ import annotations

from pathlib import Path

from genkit import catalogue

HEAD = """# Methods

One file per method; its name here, on the command line, in its test and in its file is one word.
This table is written by `python scripts/write_methods_table.py`, and a test holds it to the files.

Which of them suits a teacher is for `genkit compare` to say:

```
genkit compare --teacher digits-teacher --methods dmd2,reflow,consistency --budget 30s
genkit compare --teacher digits-teacher --methods regression,scm --budget 2M-nfe --seeds 2
```

Each method and seed gets that much training, in time or in network evaluations (one sample through
one network, forward; a guided teacher's are two), and what it spends on teacher pairs is charged to
it, whether they are made or lie in the cache. A few steps of each stage tell what a step costs (so
nothing else should run meanwhile; on a busy machine, give evaluations), and so how many there are;
pairs take at most a quarter. All bake in the teacher's own guidance (another by `--set guidance=2`)
and deliver their last student, which is measured like all others.
`runs/compare/comparison.html` has the table, quality against the cost of sampling and of training,
and samples on equal noise; `comparison.json` the same figures. Every run is whole in its own
folder. The same command goes on where it was stopped, methods and seeds can be added to it, and
what fails or collapses is a row with its sentence. `--set batch_size=64` is for all methods that
have such a setting, `--set dmd2.lr=1e-4` for one.

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
