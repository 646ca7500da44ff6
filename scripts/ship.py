"""Put a run's pipeline among the shipped ones, in bfloat16, with its config, log and figures.

    python scripts/ship.py runs/emoji-teacher emoji-teacher --guidance 3
    python scripts/ship.py runs/speech-teacher speech-teacher --vocoder runs/vocoder/vocoder
    python scripts/ship.py runs/music-consistency-0 music-fewstep --steps 1

What is measured afterwards is the shipped pipeline, so its rounded weights are in the figures. What
is written beside it names runs as runs/NAME, wherever they were.
"""

import argparse
import shutil
from pathlib import Path

import torch

from genkit import hub
from genkit.contenders import at_steps
from genkit.networks.vocoder import open_vocoder
from genkit.runs import description

HOME = Path(__file__).parents[1] / "pipelines" / "genkit_pipelines" / "pretrained"


def _told(file: Path, run: Path) -> str:
    """The text of a run's file, without the folder of this machine that holds the runs."""
    folder = f"{run.resolve().parent}/"
    return file.read_text(encoding="utf-8").replace(folder, "runs/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--guidance", type=float, help="the pipeline's default scale")
    parser.add_argument("--vocoder", help="of speech, trained beside the teacher, not before it")
    parser.add_argument("--steps", type=int, help="its default steps, where its method trains any")
    asked = parser.parse_args()
    pipeline = hub.Pipeline.from_pretrained(asked.run / "pipeline")
    if asked.vocoder:
        pipeline.register_modules(vocoder=open_vocoder(asked.vocoder))
    facts = hub.trained(pipeline)
    if asked.guidance is not None:
        facts["guidance"] = asked.guidance
    if asked.steps is not None:
        pipeline = at_steps(asked.name, pipeline, asked.steps)
        facts["steps"] = asked.steps
        facts["description"] = description(facts)
    card = _told(asked.run / "pipeline" / "README.md", asked.run)
    text = card[card.index("## How it was trained") :]
    out = HOME / asked.name
    shutil.rmtree(out, ignore_errors=True)
    hub.save_pipeline(pipeline.to(dtype=torch.bfloat16), out, facts, text)
    for name in ("config.json", "log.jsonl", "metrics.json"):
        if (asked.run / name).exists():
            (out / name).write_text(_told(asked.run / name, asked.run), encoding="utf-8")
    size = sum(file.stat().st_size for file in out.rglob("*.safetensors")) / 1e6
    print(f"{out}: {size:.1f} MB of weights")


if __name__ == "__main__":
    main()
