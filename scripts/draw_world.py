"""Draw docs/world.png: true clips, how the teacher and world-onestep go on with them, and clips
that world-onestep begins.

    python scripts/draw_world.py

Each row of a block is one string of actions; all blocks have the same noise.
"""

from pathlib import Path

import genkit
from genkit.data import load
from genkit.modalities.actions import ActionClips, follow
from genkit.rng import sample_generators

ROWS = 3
DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    """Make each block and write the picture."""
    teacher, student = (
        genkit.Pipeline.from_pretrained(f"world-{k}") for k in ("teacher", "onestep")
    )
    kind, real = ActionClips.of(load("world")), load("world", "test")
    begun, then = kind.asked(2 * ROWS).split(ROWS)
    past = real.x_0[:ROWS], real.cond["action"][:ROWS]
    draws = [sample_generators(0, ROWS) for _ in range(4)]
    opening = student.scheduler.config["opening"]
    rows = {
        "true clips": past[0],
        "gone on with by the teacher, 20 steps": follow(teacher, then, draws[0], 20, past),
        "by the teacher, 1 step": follow(teacher, then, draws[1], 1, past),
        "by world-onestep, 1 step": follow(student, then, draws[2], 1, past),
        f"begun by world-onestep, {opening} steps the first frame": follow(
            student, begun, draws[3], 1
        ),
    }
    print(kind.render(rows, DOCS / "world"))


if __name__ == "__main__":
    main()
