"""Tests of genkit/evaluation.py, on a teacher with random weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from genkit import evaluation
from genkit.contenders import Contender, at_steps, told
from genkit.data import emoji_scenes, load
from genkit.evaluation import evaluate, figures, table
from genkit.hub import Pipeline, save_pipeline
from genkit.metrics.references import emoji_scenes_reference
from genkit.modalities import modality
from tests.denoisers import tiny_families


@pytest.fixture(scope="module")
def student(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-step student of the tiny teacher: the teacher itself, a little off."""
    pipeline = Pipeline.from_pretrained(tiny_teacher)
    with torch.no_grad():
        pipeline.network.leave.bias.add_(0.5)
    facts = {"steps": 2, "guidance": 1.0, "teacher": str(tiny_teacher), "data": "digits"}
    return save_pipeline(pipeline, tmp_path_factory.mktemp("students") / "student", facts)


@pytest.fixture(scope="module")
def result(student: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    file = tmp_path_factory.mktemp("figures") / "deep" / "figures.json"
    found = evaluate(
        student, steps=(1, 3), n=300, seeds=(0, 5), json=file, bootstraps=3, quiet=True
    )
    assert json.loads(file.read_text()) == json.loads(json.dumps(found))
    return found


def test_teacher_takes_the_steps_asked_for_and_the_student_its_own(result: dict):
    runs = {(row["pipeline"], row["steps"], row["seed"]) for row in result["rows"]}
    assert runs == {
        *(("tiny", steps, seed) for steps in (1, 3) for seed in (0, 5)),
        *(("student", 2, seed) for seed in (0, 5)),
    }


def test_rows_hold_what_the_issue_asks_for(result: dict):
    wanted = {"pipeline", "steps", "seed", "n", "fd", "sw", "mmd", "recall", "seconds_per_sample"}
    assert all(wanted <= row.keys() and "precision" in row for row in result["rows"])
    assert wanted - {"pipeline", "steps", "seed", "seconds_per_sample"} <= result["floor"].keys()
    assert result["floor"]["group"] == result["rows"][0]["group"] == 300


def test_student_is_compared_with_every_teacher_row_of_its_seed(result: dict):
    pairs = {(row["against_steps"], row["seed"]) for row in result["comparisons"]}
    assert pairs == {(steps, seed) for steps in (1, 3) for seed in (0, 5)}
    assert all(0 <= row["sw_share"] <= 1 for row in result["comparisons"])
    assert all(row["mse_same_noise"] > 0 for row in result["comparisons"])


def test_spread_is_between_seeds_of_one_pipeline(result: dict):
    rows = [row for row in result["rows"] if row["pipeline"] == "student"]
    spread = next(row for row in result["spread"] if row["pipeline"] == "student")
    assert spread["sw_spread"] == pytest.approx(abs(rows[0]["sw"] - rows[1]["sw"]))
    assert spread["sw_mean"] == pytest.approx((rows[0]["sw"] + rows[1]["sw"]) / 2)


def test_table_names_n_seeds_floor_and_both_precision_and_recall(result: dict):
    text = table(result)
    for word in ("n = 300", "seeds 0, 5", "floor", "recall", "precision", "3 paired bootstraps"):
        assert word in text


def test_columns_are_those_the_rows_hold(result: dict):
    """Classes are followed, but no sentences are: the digits' table has no such column."""
    assert "follows" not in table(result) and "follows_mean" not in result["spread"][0]
    assert all("class_accuracy" in row for row in result["rows"])


def test_scenes_are_measured_by_what_their_captions_ask(monkeypatch):
    kind, reference = modality(emoji_scenes.load("train", n=50)), emoji_scenes_reference(scenes=60)
    monkeypatch.setattr(evaluation, "samples", lambda who, kind, seed, n: (reference.fresh, 0.1))
    found = figures([Contender("real", None, 1, 1.0)], [], kind, reference, 60, (0, 1))
    assert all(row["follows"] > 0.95 > 0.1 > row["follows_chance"] for row in found["rows"])
    assert found["floor"]["follows"] > 0.95 and found["spread"][0]["follows_spread"] == 0
    text = table(found)
    assert "emoji-scenes, n = 60" in text and text.splitlines()[2].split()[2] == "follows"
    assert kind.asked(60) == reference.fresh_asked and kind.asked(4001)[4000] == kind.asked(1)[0]


def test_samples_of_a_latent_pipeline_are_decoded_before_they_are_measured():
    pipeline = tiny_families.build(tiny_families.stable_diffusion)
    kind, _ = evaluation._measured(pipeline, "emoji-scenes", "tiny", "validation")
    size = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    latents = torch.zeros(2, *kind.latent)
    pictures = kind.decode(latents)
    assert pictures.shape == (2, 3, size * latents.shape[-2], size * latents.shape[-1])
    assert kind.asked(1)[0] in load("emoji-scenes", "validation").captions


def test_a_pipeline_without_a_teacher_takes_all_steps(tiny_teacher: Path):
    found = evaluate(tiny_teacher, steps=(1, 2), n=300, seeds=(0,), quiet=True)
    assert [row["steps"] for row in found["rows"]] == [1, 2] and not found["comparisons"]


def test_a_copy_of_the_teacher_is_no_better_and_at_no_distance(tiny_teacher: Path):
    twin = Pipeline.from_pretrained(tiny_teacher)
    found = evaluate(twin, tiny_teacher, (2,), n=300, seeds=(0,), bootstraps=2, quiet=True)
    row = found["comparisons"][0]
    assert row["mse_same_noise"] == 0 and row["fd_share"] == row["sw_share"] == 0.5


def test_the_teacher_also_takes_better_solvers(student: Path, tiny_teacher: Path):
    found = evaluate(
        student, tiny_teacher, (1, 4), n=300, seeds=(0,), bootstraps=1, orders=(1, 3), quiet=True
    )
    rows = {(row["pipeline"], row["steps"]): row["sw"] for row in found["rows"]}
    assert rows.keys() == {("tiny", 1), ("tiny", 4), ("tiny, order 3", 4), ("student", 2)}
    assert rows["tiny", 4] != rows["tiny, order 3", 4]


def test_guidance_is_swept_for_teachers_and_told_in_their_names(student: Path):
    found = evaluate(
        student, steps=(1,), n=10, seeds=(0,), bootstraps=1, guidance=(1.0, 2.5), quiet=True
    )
    scales = {row["pipeline"]: row["guidance"] for row in found["rows"]}
    assert scales.pop("student") == 1.0
    assert sorted(scales.items()) == [("tiny, guidance 1", 1.0), ("tiny, guidance 2.5", 2.5)]
    x = {row["pipeline"]: row["fd"] for row in found["rows"]}
    assert x["tiny, guidance 1"] != x["tiny, guidance 2.5"]


def test_a_student_of_any_steps_takes_several_beside_other_pipelines(tiny_teacher: Path, tmp_path):
    facts = {"guidance": 1.0, "teacher": str(tiny_teacher), "data": "digits"}
    pipeline = Pipeline.from_pretrained(tiny_teacher)
    for name, method in (("any", "consistency"), ("one", "regression"), ("many", "lcm")):
        save_pipeline(pipeline, tmp_path / name, facts | {"steps": 1, "method": method})
    given = {"n": 10, "seeds": (0,), "bootstraps": 1, "quiet": True}
    beside = (tmp_path / "one", tmp_path / "many")
    found = evaluate(tmp_path / "any", None, (4,), **given, student_steps=(1, 2), beside=beside)
    rows = {(row["pipeline"], row["steps"]): row["sw"] for row in found["rows"]}
    assert rows.keys() == {
        ("tiny", 4),
        ("any", 1),
        ("any", 2),
        ("one", 1),
        ("many", 1),
        ("many", 2),
    }
    assert rows["any", 1] == rows["one", 1] != rows["any", 2]
    # Noised again between its evaluations, as a consistency student is, and not on the ODE.
    twice = at_steps("any", Pipeline.from_pretrained(tmp_path / "any"), 2)
    assert twice.scheduler.stochastic
    with pytest.raises(ValueError, match="regression for its own number of steps, 1, alone"):
        evaluate(tmp_path / "one", **given, student_steps=(2,))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps": (0, 1)}, "at least 1"),
        ({"student_steps": (0,)}, "at least 1"),
        ({"steps": ()}, "at least 1"),
        ({"n": 3}, "at least 6"),
        ({"seeds": (0, 0)}, "different"),
        ({"bootstraps": 0}, "at least 1"),
        ({"orders": (1, 4)}, "orders"),
        ({"data": "digit"}, "digits"),
        ({"split": "validation"}, "have no split 'validation'"),
        ({"mixed_precision": "fp8"}, "no or bf16"),
    ],
)
def test_bad_requests_are_refused(tiny_teacher: Path, given: dict, says: str):
    with pytest.raises(ValueError, match=says):
        evaluate(tiny_teacher, quiet=True, **given)


def test_a_pipeline_that_names_no_data_asks_for_it(tiny_teacher: Path, tmp_path: Path):
    pipeline = Pipeline.from_pretrained(tiny_teacher)
    folder = save_pipeline(pipeline, tmp_path / "plain", {"steps": 4})
    with pytest.raises(ValueError, match="which data"):
        evaluate(folder, quiet=True)


def test_a_nan_sample_is_refused(tiny_teacher: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path))
    pipeline = Pipeline.from_pretrained(tiny_teacher)
    who = Contender("a", pipeline, 1, 1.0)
    file = tmp_path / "samples" / f"{who.key(0, 6, told(modality(load('digits')), 6))}.safetensors"
    file.parent.mkdir()
    save_file({"x": torch.full((6, 1, 8, 8), float("nan"))}, file, {"seconds": "1.0"})
    with pytest.raises(ValueError, match="nan"):
        evaluate(pipeline, steps=(1,), n=6, seeds=(0,), quiet=True)
