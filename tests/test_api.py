"""Tests of genkit/api.py, runs.py, settings.py and lora.py: whole runs, on tiny networks."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import genkit
from genkit import api, catalogue, runs
from genkit.data import open_data
from genkit.hub import Pipeline, trained
from genkit.lora import adapted, merged
from genkit.methods.base import Stage
from genkit.modalities import ClassImages
from genkit.networks.mlp import MLPDenoiser
from genkit.opening import open_teacher
from genkit.rng import sample_generators
from genkit.settings import RunConfig, Settings
from genkit.training.config import TrainerConfig

SHORT: dict[str, Any] = {
    "max_steps": 6,
    "batch_size": 16,
    "pairs": 40,
    "measure_n": 20,
    "measure_every": 3,
    "checkpoint_every": 3,
    "evaluate_n": 0,
}


@pytest.fixture(scope="module")
def reflow(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its evaluation."""
    out = tmp_path_factory.mktemp("runs") / "reflow"
    judged = {"evaluate_n": 300, "evaluate_seeds": (0,), "evaluate_steps": (1,), "bootstraps": 2}
    genkit.distill(str(tiny_teacher), "reflow", "digits", out, **{**SHORT, **judged})
    return out


# ---- Whole runs ----


def test_a_run_leaves_everything(reflow: Path):
    there = {each.name for each in reflow.iterdir()}
    assert there >= {"config.json", "log.jsonl", "samples", "checkpoints", "pipeline"}
    assert there >= {"metrics.json", "report.html"}
    config = json.loads((reflow / "config.json").read_text())
    assert config["method"] == "reflow" and config["settings"]["max_steps"] == 6
    assert any("distance" in json.loads(line) for line in open(reflow / "log.jsonl"))
    rows = json.loads((reflow / "metrics.json").read_text())["rows"]
    assert {row["pipeline"] for row in rows} == {"reflow (student)", "tiny"}


def test_the_pipeline_says_where_it_comes_from(reflow: Path, tiny_teacher: Path):
    facts = trained(Pipeline.from_pretrained(reflow / "pipeline"))
    assert facts["steps"] == 1 and facts["method"] == "reflow" and facts["data"] == "digits"
    assert facts["teacher"] == str(tiny_teacher)
    card = (reflow / "pipeline" / "README.md").read_text()
    for word in ("max_steps = 6", "floor", "n = 300", "seeds 0", "fd"):
        assert word in card, word


def test_the_pipeline_gives_what_the_trainer_sampled(tiny_teacher: Path, tmp_path: Path):
    held: dict[str, Any] = {}
    save = runs.Run.save

    def keep(self: runs.Run, network: Any, out: Path, card: str) -> Any:
        held["run"], held["network"] = self, network
        return save(self, network, out, card)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Run, "save", keep)
        pipeline = genkit.distill(
            tiny_teacher, "consistency", None, tmp_path / "run", **SHORT, steps=2
        )
    run, generators = held["run"], sample_generators(9, 5)
    denoiser = dataclasses.replace(run).teacher.denoiser
    denoiser.network.load_state_dict(held["network"].state_dict())
    noise = torch.cat([torch.randn(1, 1, 8, 8, generator=each) for each in generators])
    expected = run.method.sample(denoiser, noise, {"label": torch.arange(5)}, None, generators)
    made = pipeline(
        class_labels=[0, 1, 2, 3, 4], generator=sample_generators(9, 5), output_type="latent"
    ).images
    assert torch.equal(made, expected)


def test_a_teacher_trains_from_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ClassImages, "network", lambda self: MLPDenoiser(width=16, depth=1))
    pipeline = genkit.train("digits", tmp_path / "teacher", **SHORT, steps=3)
    facts = trained(pipeline)
    assert facts["steps"] == 3 and "teacher" not in facts
    assert pipeline(class_labels=[4]).images[0].size == (8, 8)


def test_dmd2_runs_through_its_stages(tiny_teacher: Path, tmp_path: Path):
    out = tmp_path / "dmd2"
    genkit.distill(tiny_teacher, "dmd2", "digits", out, **SHORT, fake_turns=1, teacher_data=True)
    stages = {json.loads(line).get("stage") for line in open(out / "log.jsonl")}
    assert {"warm-up", "match"} <= stages and api.finished(out)


@pytest.mark.parametrize("name, settings", [("meanflow", {"steps": 2}), ("sid", {})])
def test_students_of_other_samplers_leave_as_pipelines(
    name: str, settings: dict[str, Any], tiny_teacher: Path, tmp_path: Path
):
    """One is told two times at every step, one starts at a middle noise level."""
    out = tmp_path / name
    student = genkit.distill(tiny_teacher, name, "digits", out, **SHORT | settings)
    assert api.finished(out)
    again = open_teacher(out / "pipeline")[0]
    assert again.denoiser.two_time is (name == "meanflow")
    noise, labels = torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3])
    steps = trained(student)["steps"]
    x = again.denoiser.sample(noise, {"label": labels}, student.scheduler, steps)
    drawn = student(class_labels=labels.tolist(), latents=noise, output_type="pt").images
    assert torch.allclose(drawn, (x / 2 + 0.5).clamp(0, 1), atol=1e-6)
    assert not torch.allclose(drawn[0], drawn[1])


# ---- Folders ----


def test_an_unfinished_run_is_gone_on_with(tiny_teacher: Path, tmp_path: Path):
    whole = genkit.distill(tiny_teacher, "reflow", None, tmp_path / "whole", **SHORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Run, "export", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            genkit.distill(tiny_teacher, "reflow", None, tmp_path / "cut", **SHORT)
    assert not api.finished(tmp_path / "cut")
    again = genkit.distill(tiny_teacher, "reflow", None, tmp_path / "cut", resume=True, **SHORT)
    for a, b in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)


def _interrupt(*given: Any) -> None:
    raise KeyboardInterrupt


def test_a_finished_run_is_opened_not_run_again(reflow: Path, capsys: pytest.CaptureFixture):
    config = api.read_config(reflow / "config.json")
    assert config.pop("command") == "train-distill"
    before = {each: each.stat().st_mtime_ns for each in reflow.rglob("*") if each.is_file()}
    pipeline = genkit.distill(out=reflow, resume=True, **config)
    assert trained(pipeline)["method"] == "reflow"
    assert "report.html" in capsys.readouterr().err
    assert before == {each: each.stat().st_mtime_ns for each in before}
    with pytest.raises(ValueError, match="finished run"):
        genkit.distill(out=reflow, **config)
    with pytest.raises(ValueError, match="max_steps was 6 and is 7"):
        genkit.distill(out=reflow, resume=True, **{**config, "max_steps": 7})


def test_a_run_that_ran_out_of_time_can_go_on(tiny_teacher: Path, tmp_path: Path):
    out, brief = tmp_path / "run", {**SHORT, "max_minutes": 1e-9}
    genkit.distill(tiny_teacher, "reflow", None, out, **brief)
    assert (out / "report.html").exists() and not api.finished(out)
    genkit.distill(tiny_teacher, "reflow", None, out, resume=True, **SHORT)
    assert api.finished(out)


def test_a_folder_of_something_else_is_left_alone(tiny_teacher: Path, tmp_path: Path):
    (tmp_path / "log.jsonl").write_text("mine")
    with pytest.raises(ValueError, match="no run"):
        genkit.distill(tiny_teacher, "reflow", None, tmp_path, **SHORT)
    assert (tmp_path / "log.jsonl").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_to_resume_where_nothing_is_starts_the_run(tiny_teacher: Path, tmp_path: Path):
    genkit.distill(tiny_teacher, "reflow", None, tmp_path / "new", resume=True, **SHORT)
    assert api.finished(tmp_path / "new")


# ---- What is made for training ----


def run_of(teacher: Path, **config: Any) -> runs.Run:
    settings = Settings.of(catalogue.method_class("reflow"), {**SHORT, **config})
    loaded, name, _ = open_teacher(teacher)
    who = runs.Teacher.of(name, loaded, settings.run.pair_steps, settings.run.pair_order, 64)
    samples = open_data("digits", 8)
    kind = api.modality(samples)
    method = api._method("reflow", settings, who.denoiser, kind)
    return runs.Run(method, settings, kind, samples, who)


def test_pairs_are_the_teachers_own_samples(tiny_teacher: Path):
    run = run_of(tiny_teacher, pair_steps=4, pair_order=1)
    assert run.teacher is not None
    pairs = run.make_pairs(run.teacher.denoiser, Stage("reflow"), 0).tensors
    assert len(pairs["eps"]) == 40
    pipeline = Pipeline.from_pretrained(tiny_teacher)
    made = pipeline(
        class_labels=pairs["cond"]["label"].tolist(), latents=pairs["eps"], output_type="latent"
    ).images
    assert torch.allclose(pairs["x_0"], made, atol=1e-6)


def test_a_higher_order_comes_nearer_to_the_teachers_ode(tiny_teacher: Path):
    def x_0(**given: int) -> torch.Tensor:
        run = run_of(tiny_teacher, **given)
        assert run.teacher is not None
        return run.make_pairs(run.teacher.denoiser, Stage("reflow"), 0).tensors["x_0"]

    exact = x_0(pair_steps=400, pair_order=1)
    few, third = x_0(pair_steps=16, pair_order=1), x_0(pair_steps=16, pair_order=3)
    assert (third - exact).norm() < 0.3 * (few - exact).norm()


@pytest.mark.usefixtures("cpu_with_bf16")
def test_pairs_change_with_what_makes_them(tiny_teacher: Path):
    first = run_of(tiny_teacher)
    assert first.teacher is not None
    denoiser = first.teacher.denoiser
    base = first.make_pairs(denoiser, Stage("reflow"), 0).tensors
    again = first.make_pairs(denoiser, Stage("reflow"), 0).tensors
    assert torch.equal(base["x_0"], again["x_0"])
    renewed = first.make_pairs(denoiser, Stage("distill"), 1).tensors
    assert not torch.equal(base["eps"], renewed["eps"])
    other = run_of(tiny_teacher, pair_steps=2).make_pairs(denoiser, Stage("reflow"), 0).tensors
    assert torch.equal(base["eps"], other["eps"]) and not torch.equal(base["x_0"], other["x_0"])
    half = run_of(tiny_teacher, pair_precision="bf16")
    rounded = half.make_pairs(denoiser, Stage("reflow"), 0).tensors["x_0"]
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - base["x_0"]).abs().max() < 0.05 * base["x_0"].abs().max()
    with torch.no_grad():
        denoiser.network.leave.bias.add_(1)
    moved = first.make_pairs(denoiser, Stage("reflow"), 0).tensors
    assert torch.equal(base["eps"], moved["eps"]) and not torch.equal(base["x_0"], moved["x_0"])


def test_no_noise_is_shared_by_training_and_judging(tiny_teacher: Path):
    run = run_of(tiny_teacher)
    assert run.teacher is not None
    pairs = run.make_pairs(run.teacher.denoiser, Stage("reflow"), 0).tensors["eps"].flatten(1)
    for seed in (0, 1, runs.MEASURE_SEED, runs.PREVIEW_SEED, runs.REFERENCE_SEED):
        noise = torch.cat(
            [torch.randn(1, 64, generator=each) for each in sample_generators(seed, 40)]
        )
        assert torch.cdist(pairs, noise).min() > 1


def test_the_distance_is_to_the_teacher_on_other_noise(tiny_teacher: Path):
    run = run_of(tiny_teacher)
    assert run.teacher is not None
    measure, denoiser = run.measure(), run.teacher.denoiser
    exact = measure(
        lambda noise, cond, generator=None, steps=None: run.teacher.sample(  # type: ignore[union-attr]
            denoiser, noise, cond, generator
        )
    )
    assert exact["mse_same_noise"] == 0
    assert exact["distance"] > 0, "the teacher's samples were compared with themselves"
    off = measure(lambda noise, cond, generator=None, steps=None: 3 * noise)
    assert off["distance"] > 2 * exact["distance"] and off["mse_same_noise"] > 0.1


def test_guidance_is_baked_into_what_the_student_is_compared_with(tiny_teacher: Path):
    plain, guided = run_of(tiny_teacher), run_of(tiny_teacher, guidance=3.0)
    a, b = plain.preview().reference, guided.preview().reference
    assert a is not None and b is not None and not torch.allclose(a, b)


def test_all_are_judged_at_the_precision_asked_for(
    tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Any] = []
    monkeypatch.setattr(runs, "figures", lambda ours, theirs, *_, **__: seen.extend(ours + theirs))
    run = run_of(tiny_teacher, evaluate_n=10, evaluate_steps=(1, 2), evaluate_precision="bf16")
    assert run.teacher is not None
    run.evaluate(run.teacher.pipeline)
    assert [who.precision for who in seen] == ["bf16"] * 3


# ---- Going on with an earlier student ----


@pytest.mark.parametrize("lora", [None, 2])
def test_a_student_goes_on_from_an_earlier_one(
    lora: int | None, reflow: Path, tiny_teacher: Path, tmp_path: Path
):
    earlier, out = Pipeline.from_pretrained(reflow / "pipeline"), tmp_path / "run"
    settings = {**SHORT, "max_steps": 1, "measure_every": 0, "warmup_share": 0.0, "lr": 0.0}
    student = genkit.distill(
        tiny_teacher, "dmd2", None, out, student=reflow / "pipeline", lora=lora, **settings
    )
    held = json.loads((out / "config.json").read_text())
    assert held["student"] == str(reflow / "pipeline") and len(held["student_weights"]) == 64
    # At learning rate 0 it is what it began as, and not its teacher.
    teacher = Pipeline.from_pretrained(tiny_teacher).network.state_dict()
    for name, weight in student.network.state_dict().items():
        assert torch.allclose(weight, earlier.network.state_dict()[name], atol=1e-6), name
    assert not torch.equal(teacher["leave.weight"], earlier.network.leave.weight)
    assert api.read_config(out / "config.json")["student"] == str(reflow / "pipeline")


def test_another_teachers_student_is_refused(reflow: Path, tiny_teacher: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="has samples .* the teacher"):
        genkit.distill("emoji-teacher", "dmd2", None, tmp_path / "run", student=reflow / "pipeline")
    with pytest.raises(ValueError, match="nowhere"):
        genkit.distill(tiny_teacher, "dmd2", None, tmp_path / "run", student="nowhere")
    assert not (tmp_path / "run").exists()


# ---- LoRA ----


def test_adapters_alone_train_and_merge_into_the_network(tiny_teacher: Path):
    run = run_of(tiny_teacher)
    assert run.teacher is not None
    denoiser = run.teacher.denoiser
    student: Any = adapted(denoiser, 2)
    trainable = [name for name, each in student.named_parameters() if each.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    x, t, cond = torch.randn(3, 1, 8, 8), torch.full((3,), 0.5), {"label": torch.arange(3)}
    assert torch.allclose(student.predict(x, t, cond, "x_0"), denoiser.predict(x, t, cond, "x_0"))
    with torch.no_grad():
        for name, each in student.named_parameters():
            if "lora_B" in name:
                each.normal_()
    before = student.predict(x, t, cond, "x_0")
    network: Any = merged(student.network)
    assert type(network) is MLPDenoiser
    assert network.state_dict().keys() == denoiser.network.state_dict().keys()
    assert torch.allclose(student.predict(x, t, cond, "x_0"), before, atol=1e-4)
    assert not torch.allclose(before, denoiser.predict(x, t, cond, "x_0"), atol=1e-2)


def test_lora_runs_end_to_end_and_leaves_the_rest_as_it_was(tiny_teacher: Path, tmp_path: Path):
    student = genkit.distill(tiny_teacher, "reflow", None, tmp_path / "run", lora=2, **SHORT)
    teacher = Pipeline.from_pretrained(tiny_teacher)
    assert torch.equal(student.network.label.weight, teacher.network.label.weight)
    assert not torch.equal(student.network.leave.weight, teacher.network.leave.weight)


# ---- Settings ----


def test_settings_find_their_dataclass():
    given = {"lr": 3e-3, "max_steps": 5, "pairs": 7, "evaluate_seeds": [3]}
    settings = Settings.of(catalogue.method_class("reflow"), given)
    assert settings.method.lr == 3e-3 and settings.trainer.max_steps == 5
    assert settings.run.pairs == 7 and settings.run.evaluate_seeds == (3,)
    assert settings.flat().items() >= {"lr": 3e-3, "max_steps": 5, "pairs": 7}.items()


def test_no_name_means_two_settings():
    for name in catalogue.methods():
        kinds = (catalogue.method_class(name).Config, TrainerConfig, RunConfig)
        names = [field.name for kind in kinds for field in dataclasses.fields(kind)]
        assert len(names) == len(set(names)), name


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_stps": 3}, "did you mean 'max_steps'"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"steps": -1}, "steps is -1"),
        ({"lora": 0}, "lora is 0"),
        ({"pairs": 0}, "pairs is 0"),
        ({"pair_steps": 0}, "pair_steps is 0"),
        ({"evaluate_n": 3}, "evaluate_n is 3"),
        ({"evaluate_steps": (0,)}, "evaluate_steps"),
        ({"evaluate_precision": "fp8"}, "evaluate_precision is 'fp8'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_made(
    given: dict, says: str, tiny_teacher: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match=says):
        genkit.distill(tiny_teacher, "reflow", None, tmp_path / "run", **{**SHORT, **given})
    assert not (tmp_path / "run").exists()


def test_methods_for_the_other_verb_are_refused(tiny_teacher: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="needs a teacher"):
        genkit.train("digits", tmp_path, "reflow")
    with pytest.raises(ValueError, match="from data alone"):
        genkit.distill(tiny_teacher, "flow_matching", None, tmp_path)
    with pytest.raises(ValueError, match="lora"):
        genkit.train("digits", tmp_path / "run", lora=2)
    with pytest.raises(ValueError, match="did you mean 'reflow'"):
        genkit.distill(tiny_teacher, "reflo", None, tmp_path)
