"""Every shipped pipeline opens, is what its record says, and still makes the figures beside it."""

import json
import pathlib

import pytest

import genkit
import genkit_pipelines
from genkit import hub
from genkit.data import load
from genkit.denoisers.diffusers import as_denoiser
from genkit.modalities import modality
from genkit.rng import sample_generators

HOME = pathlib.Path(genkit_pipelines.__file__).parent / "pretrained"
NAMES = sorted(folder.name for folder in HOME.iterdir() if folder.is_dir())
SHIPPED = {"digits-teacher", "digits-onestep", "emoji-teacher", "emoji-onestep"}
# Whose figures take minutes to make again, or data that a package of Debian's makes. What they make
# of one thing asked is held to instead: by so many steps, its mean and deviation.
MADE = {
    "speech-teacher": (4, -0.0562, 0.5433),
    "speech-onestep": (1, -0.0614, 0.5443),
    "world-teacher": (4, -0.0858, 0.4264),
    "world-onestep": (1, -0.0563, 0.4354),
    "music-teacher": (4, 0.0479, 1.0963),
    "music-fewstep": (1, 0.1000, 1.1760),
}
ASKED: dict[str, dict] = {
    "speech": {"text": "The king sold a red boat.", "speaker": "slt"},
    "world": {"actions": [2, 2, 3, 3]},
    "music": {
        "prompt": "flute melody, piano chords",
        "bpm": 96,
        "key": "D minor",
        "audio_end_in_s": 3.0,
    },
}
SHAPES = {"speech": (1, 105, 80), "world": (1, 4, 3, 64, 64), "music": (1, 65, 32)}
SHIPPED |= MADE.keys()
# Steps of the row that is made again, where the default ones would take minutes.
STEPS = {"emoji-teacher": 8}
# What a pipeline must do whatever its file says: the figure, and its least value.
LEAST = {"digits": ("class_accuracy", 0.97), "emoji-scenes": ("follows", 0.5)}


def test_what_is_shipped():
    assert set(NAMES) == set(hub.shipped()) == SHIPPED


@pytest.mark.parametrize("name", MADE)
def test_shipped_sounds_and_worlds_are_what_they_were(name):
    steps, mean, deviation = MADE[name]
    kind = name.partition("-")[0]
    made = genkit.Pipeline.from_pretrained(name)(
        **ASKED[kind],
        num_inference_steps=steps,
        generator=sample_generators(0, 1),
        output_type="latent",
        return_dict=False,
    )[0]
    assert tuple(made.shape) == SHAPES[kind]
    assert made.mean().item() == pytest.approx(mean, abs=0.005)
    assert made.std().item() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_has_its_record_beside_it(name):
    config = json.loads((HOME / name / "config.json").read_text())
    lines = (HOME / name / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == config["settings"]["max_steps"]
    facts = hub.trained(genkit.Pipeline.from_pretrained(name))
    assert facts["method"] == config["method"] and facts["data"] == config["data"]
    teacher = config.get("teacher")
    assert teacher is None or teacher in NAMES
    for file in (HOME / name).rglob("*"):
        assert file.suffix in {"", ".json", ".jsonl", ".md", ".safetensors"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - MADE.keys()))
def test_still_makes_the_figures_of_its_metrics(name):
    """fd and sw of seed 0 within 1% of the file (other machines round otherwise)."""
    from genkit.metrics import measure

    record = json.loads((HOME / name / "metrics.json").read_text())
    pipeline = genkit.Pipeline.from_pretrained(name)
    facts = hub.trained(pipeline)
    kind = modality(load(facts["data"], "test"), as_denoiser(pipeline))
    steps = STEPS.get(name, facts["steps"])
    own = (name, f"{facts['method']} (student)" if "teacher" in facts else facts["method"])
    row = next(
        row
        for row in record["rows"]
        if row["pipeline"] in own and row["seed"] == 0 and row["steps"] == steps
    )
    asked, noise = kind.asked(record["n"]), sample_generators(0, record["n"])
    samples = kind.generate(pipeline, asked, noise, steps, row["guidance"])
    found = measure(samples, asked, kind.reference())
    assert found["fd"] == pytest.approx(row["fd"], rel=0.01)
    assert found["sw"] == pytest.approx(row["sw"], rel=0.01)
    figure, least = LEAST[facts["data"]]
    assert found[figure] > least
