"""Whole runs on other teachers than a flow's, and students of another size than theirs."""

from pathlib import Path
from typing import Any

import pytest
import torch

import genkit
from genkit import api
from genkit.denoisers.analytic import Gaussian
from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.diffusers import as_denoiser, load_denoiser
from genkit.hub import Pipeline, make_scheduler
from genkit.modalities import ClassImages
from genkit.networks.mlp import MLPDenoiser
from genkit.networks.size import parameters
from genkit.paths import RectifiedFlow
from genkit.rng import sample_generators, sample_noise
from genkit.runs import Teacher
from genkit.sampling import Sampler

SHORT: dict[str, Any] = {
    "max_steps": 4,
    "batch_size": 16,
    "pairs": 40,
    "measure_n": 20,
    "measure_every": 2,
    "checkpoint_every": 2,
    "evaluate_n": 0,
}


@pytest.fixture(scope="module")
def edm_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An EDM teacher with PFGM++'s noise, trained for a moment."""
    out = tmp_path_factory.mktemp("edm") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassImages, "network", lambda self: MLPDenoiser(width=16, depth=1))
        own = {"steps": 3, "sigma_data": 0.6, "dimensions": 16.0}
        genkit.train("digits", out, "edm", **SHORT, **own)
    return out / "pipeline"


def test_an_edm_teacher_leaves_with_preconditioning_and_prior(edm_teacher: Path):
    loaded = load_denoiser(edm_teacher)
    who = loaded.denoiser
    assert who.sigma_data == 0.6 and who.path.dimensions == 16 and who.kind == "x_0"
    noise = who.path.prior(sample_noise((1, 8, 8), sample_generators(0, 2)))
    with torch.no_grad():
        want = who.sample(noise, {"label": torch.tensor([3, 4])}, loaded.pipeline.scheduler, 3)
    made = loaded.pipeline([3, 4], generator=sample_generators(0, 2), output_type="latent").images
    assert torch.equal(made, want)


@pytest.mark.parametrize(
    "method, settings",
    [
        ("regression", {}),
        ("consistency", {"steps": 2}),
        ("dmd2", {"steps": 2, "fake_turns": 1}),
        ("reflow", {"guidance": 2.0, "lora": 2}),
    ],
)
def test_its_students_leave_as_pipelines_of_its_path(
    method: str, settings: dict[str, Any], edm_teacher: Path, tmp_path: Path
):
    """The last is a guided teacher's, whose pairs hold the prior's noise."""
    # A teacher of four steps has students that look collapsed.
    unseen = {**SHORT, "measure_every": 0, "sample_every": 0, **settings}
    student = genkit.distill(edm_teacher, method, "digits", tmp_path / "run", **unseen)
    opened = as_denoiser(student)
    assert opened.denoiser.sigma_data == 0.6 and opened.denoiser.path.dimensions == 16
    images = student([1, 2], generator=sample_generators(0, 2), output_type="latent").images
    assert images.isfinite().all() and not torch.equal(images[0], images[1])


def test_a_flow_teacher_has_the_prior_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ClassImages, "network", lambda self: MLPDenoiser(width=16, depth=1))
    pipeline = genkit.train("digits", tmp_path / "run", **SHORT, steps=3, dimensions=8.0)
    assert as_denoiser(pipeline).denoiser.path.dimensions == 8


@pytest.mark.parametrize("method", ["regression", "slimflow", "dmd2"])
def test_a_student_of_another_size_leaves_as_such(
    method: str, tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    size = ("width=12", "depth=2")
    student = genkit.distill(
        tiny_teacher, method, "digits", tmp_path / "run", **SHORT, student_size=size
    )
    opened = Pipeline.from_pretrained(tmp_path / "run" / "pipeline")
    assert opened.network.config["width"] == 12 and len(opened.network.blocks) == 2
    whole = parameters(Pipeline.from_pretrained(tiny_teacher).network)
    assert f"% of {whole:,}" in capsys.readouterr().err
    a, b = (each([1], generator=sample_generators(0, 1)).images[0] for each in (student, opened))
    assert a.tobytes() == b.tobytes()


def test_points_of_a_teacher_s_paths_lie_on_its_ode():
    path, cond = RectifiedFlow(), {"label": torch.zeros(5).long()}
    exact = Gaussian(path, 0.3, 0.5)
    who = NetworkDenoiser(
        torch.nn.Linear(1, 1), lambda net, x, t, *_: exact.velocity(x, t, {}), path, "velocity"
    )
    scheduler = make_scheduler(Sampler(24, order=3), path, "velocity", 1.0)
    teacher = Teacher("exact", who, (2,), scheduler, 24, None, 3)
    eps = torch.randn(5, 2).double()
    found = teacher.paths(who, eps, cond, sample_generators(0, 5), 3)
    assert found["t"].tolist() == [pytest.approx([1, 2 / 3, 1 / 3])] * 5
    assert torch.equal(found["x_t"][:, 0], eps)
    for k in range(3):
        want = exact.flow_map(eps, torch.ones(5), found["t"][:, k])
        assert torch.allclose(found["x_t"][:, k], want, atol=2e-3)
    assert torch.equal(found["x_0"], teacher.sample(who, eps, cond, sample_generators(0, 5)))
    with pytest.raises(ValueError, match="give 25"):
        teacher.paths(who, eps, cond, sample_generators(0, 5), 5)


def test_a_student_of_several_steps_learns_from_paths(tiny_teacher: Path, tmp_path: Path):
    settings = {**SHORT, "steps": 2, "pair_steps": 4}
    for run in ("run", "again"):  # the second finds its paths in the cache
        student = genkit.distill(tiny_teacher, "regression", "digits", tmp_path / run, **settings)
    images = student([1, 2], generator=sample_generators(0, 2), output_type="latent").images
    assert images.isfinite().all()
    with pytest.raises(ValueError, match="do not divide"):
        genkit.distill(
            tiny_teacher, "regression", "digits", tmp_path / "odd", **{**settings, "pair_steps": 5}
        )


def test_hipa_trains_adapters_and_says_how_many(
    tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    student = genkit.distill(tiny_teacher, "hipa", "digits", tmp_path / "run", **SHORT, lora=1)
    assert "the student trains" in capsys.readouterr().err
    teacher = Pipeline.from_pretrained(tiny_teacher).network
    assert torch.equal(student.network.label.weight, teacher.label.weight)
    assert (tmp_path / "run" / "lora" / "README.md").exists()


@pytest.mark.parametrize(
    "given, says",
    [
        ({"student_size": ("widht=8",)}, "widht.*width, depth"),
        ({"student_size": ("width",)}, "such as width=96"),
        ({"student_size": ("width=8",), "lora": 2}, "fresh one"),
    ],
)
def test_a_size_that_cannot_be_is_refused_before_anything_is_made(
    given: dict[str, Any], says: str, tiny_teacher: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match=says):
        genkit.distill(tiny_teacher, "regression", "digits", tmp_path / "run", **SHORT, **given)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="is of a student"):
        genkit.train("digits", tmp_path / "run", student_size=("width=8",))


def test_a_teacher_goes_on_from_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ClassImages, "network", lambda self: MLPDenoiser(width=16, depth=1))
    first = genkit.train("digits", tmp_path / "first", **SHORT)
    second = genkit.train("digits", tmp_path / "second", start=first, **SHORT, lr=0.0)
    fresh = genkit.train("digits", tmp_path / "fresh", **SHORT, lr=0.0)
    ours, theirs, others = (each.network.state_dict() for each in (second, first, fresh))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not all(torch.equal(ours[key], others[key]) for key in ours)
    assert "start" in api.read_config(tmp_path / "second" / "config.json")
    with pytest.raises(ValueError, match="its network is not of the size or kind"):
        genkit.train("digits", tmp_path / "third", start="emoji-teacher", **SHORT)
    assert not (tmp_path / "third").exists()
