"""Draw docs/digits.png: the teacher at few and many steps above its one-step students, same noise.

python scripts/draw_digits.py [PIPELINE ...]      pipelines below the teacher's rows
"""

from __future__ import annotations

import sys
from pathlib import Path

import genkit
from genkit import hub
from genkit.data import load
from genkit.modalities import modality
from genkit.rng import sample_generators

N, SEED = 20, 12


def main(students: list[str]) -> None:
    """Sample each row from the same generators and write the picture."""
    digits = modality(load("digits"))
    asked = digits.asked(N)
    teacher = genkit.Pipeline.from_pretrained("digits-teacher")
    wanted = [(f"teacher, {k} step{'s' if k > 1 else ''}", teacher, k) for k in (50, 4, 2, 1)]
    for name in students:
        student = genkit.Pipeline.from_pretrained(name)
        facts = hub.trained(student)
        wanted.append((f"{facts['method']}, {facts['steps']} step", student, facts["steps"]))
    rows = {
        label: digits.generate(pipeline, asked, sample_generators(SEED, N), steps, 1.0)
        for label, pipeline, steps in wanted
    }
    print(digits.render(rows, Path(__file__).parent.parent / "docs" / "digits"))


if __name__ == "__main__":
    main(sys.argv[1:] or ["digits-onestep"])
