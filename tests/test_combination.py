"""Combining the checkpoints of a finished run, on a tiny network."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import genkit
from genkit import combination
from genkit.cli import main
from genkit.hub import Pipeline, trained
from genkit.training.checkpoints import Checkpoints

SHORT: dict[str, Any] = {
    "max_steps": 8,
    "batch_size": 16,
    "pairs": 40,
    "measure_n": 40,
    "measure_every": 0,
    "sample_every": 0,
    "checkpoint_every": 2,
    "evaluate_n": 0,
}


@pytest.fixture(scope="module")
def combined(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that kept its last three checkpoints, combined."""
    out = tmp_path_factory.mktemp("runs") / "reflow"
    genkit.distill(tiny_teacher, "reflow", "digits", out, **SHORT, keep_weights=3, lr=0.01)
    assert main(["search", "lcsc", str(out), "--evaluations", "20", "-n", "40"]) == 0
    return out


def test_raw_weights_are_kept_not_averages(combined: Path):
    kept = Checkpoints(combined / "checkpoints").kept_weights()
    assert list(kept) == [4, 6, 8]
    whole = Checkpoints(combined / "checkpoints").load()
    assert whole is not None
    for name, value in kept[8].items():
        assert name.startswith("student/") and torch.equal(value, whole[0]["weights"][name])
    averages = whole[0]["averages"]
    assert any(
        not torch.equal(value, averages[name.replace("student/", "student.export/")])
        for name, value in kept[8].items()
    )


def test_a_pipeline_lies_beside_the_run_s(combined: Path):
    told = json.loads((combined / "lcsc" / "lcsc.json").read_text())
    assert told["steps"] == [4, 6, 8] and sum(told["weights"]) == pytest.approx(1)
    assert told["search"]["distance"] <= min(told["began"].values())
    assert {len(each) for each in told["fresh"].values()} == {2}
    assert set(told["fresh"]) == {"combined", "delivered", "last checkpoint"}
    pipeline = Pipeline.from_pretrained(combined / "lcsc" / "pipeline")
    assert trained(pipeline)["method"] == "reflow"
    kept = Checkpoints(combined / "checkpoints").kept_weights()
    for name, value in pipeline.network.state_dict().items():
        rows = [each[f"student/network.{name}"] for each in kept.values()]
        expected = sum(w * row for w, row in zip(told["weights"], rows, strict=True))
        assert torch.allclose(value, expected, atol=1e-5), name
    card = (combined / "lcsc" / "pipeline" / "README.md").read_text()
    assert "coefficient" in card and "fresh noise" in card
    ours, theirs = (
        Pipeline.from_pretrained(combined / each / "pipeline").network for each in (".", "lcsc")
    )
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_search_noise_and_fresh_noise_differ():
    seeds = {combination.MEASURE_SEED, combination.REFERENCE_SEED}
    fresh = {combination.FRESH + 2 * each + k for each in combination.FRESH_SEEDS for k in (0, 1)}
    assert not seeds & fresh and len(fresh) == 4


def test_what_cannot_be_is_one_sentence(
    combined: Path, tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    genkit.distill(tiny_teacher, "regression", "digits", tmp_path / "run", **SHORT)
    for words, sentence in (
        ([str(tmp_path / "run")], "kept no checkpoints to combine; train with --keep-weights"),
        ([str(tmp_path)], "kept no checkpoints"),
        ([str(combined)], "is there already"),
    ):
        assert main(["search", "lcsc", *words]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["search", "lcs"]) == 2
    assert "did you mean 'lcsc'" in capsys.readouterr().err
