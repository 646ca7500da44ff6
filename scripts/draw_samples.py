"""Draw docs/<data>.png: a teacher at many and few steps above its few-step students, same noise.

    python scripts/draw_samples.py emoji-onestep [STUDENT ...]

Each column is one thing asked for (held-out prompts, where the data has such) and one noise; the
teacher runs with the guidance on its card.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import genkit
from genkit import hub
from genkit.data import load
from genkit.modalities import modality
from genkit.rng import sample_generators

STEPS = (50, 4, 2, 1)
DOCS = Path(__file__).parent.parent / "docs"


def in_steps(k: int) -> str:
    """The number of steps in words."""
    return f"{k} step{'s' * (k > 1)}"


def main() -> None:
    """Sample each row from the same generators and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("students", nargs="+", help="shipped names or folders, of one teacher")
    parser.add_argument("-n", type=int, default=16, help="columns")
    parser.add_argument("--seed", type=int, default=12)
    asked = parser.parse_args()
    students = [genkit.Pipeline.from_pretrained(name) for name in asked.students]
    facts = [hub.trained(each) for each in students]
    teacher = genkit.Pipeline.from_pretrained(facts[0]["teacher"])
    w = hub.trained(teacher)["guidance"]
    wanted = [(f"teacher, {in_steps(k)}", teacher, k, w) for k in STEPS]
    wanted += [
        (f"{name} ({told['method']}), {in_steps(steps)}", each, steps, told["guidance"])
        for name, each, told in zip(asked.students, students, facts, strict=True)
        for steps in [told["steps"]]
    ]
    kind = modality(load(facts[0]["data"]))
    held = kind.asked(asked.n)
    rows = {
        label: kind.generate(pipeline, held, sample_generators(asked.seed, asked.n), steps, w)
        for label, pipeline, steps, w in wanted
    }
    if isinstance(held, tuple):
        print(*held, sep="\n")
    print(kind.picture(rows, DOCS / facts[0]["data"]))


if __name__ == "__main__":
    main()
