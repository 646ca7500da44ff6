"""Students whose network is not the teacher's: several behind a router, one of several styles, one
of two times; whole runs on tiny networks, with adapters and without."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import genkit
from genkit import api
from genkit.cli import main
from genkit.denoisers.diffusers import as_denoiser
from genkit.hub import Pipeline, save_pipeline, trained
from genkit.networks.mlp import MLPDenoiser
from genkit.networks.routed import RoutedNetwork
from genkit.networks.styled import StyledNetwork
from genkit.rng import generator, sample_noise

SHORT: dict[str, Any] = {
    "max_steps": 4,
    "batch_size": 16,
    "pairs": 40,
    "measure_n": 20,
    "sample_every": 0,
    "measure_every": 2,
    "evaluate_n": 0,
}


@pytest.fixture(scope="module")
def other_teacher(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of digits with other random weights."""
    pipeline = Pipeline.from_pretrained(tiny_teacher)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in pipeline.network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    facts = {"steps": 4, "guidance": 1.0, "method": "flow_matching", "data": "digits"}
    return save_pipeline(pipeline, tmp_path_factory.mktemp("teachers") / "other", facts)


@pytest.mark.parametrize("lora", [None, 2])
def test_several_students_leave_as_one_pipeline(lora: int | None, tiny_teacher: Path, tmp_path):
    settings = {**SHORT, "students": 2, "fake_turns": 1, "lora": lora}
    student = genkit.distill(tiny_teacher, "msd", None, tmp_path / "run", **settings)
    assert api.finished(tmp_path / "run")
    assert type(student.network) is RoutedNetwork and len(student.network.networks) == 2
    assert student.network.router.table.tolist() == [0] * 5 + [1] * 5 + [0]
    assert not (tmp_path / "run" / "lora").exists(), "adapters of a changed network leave merged"
    one, two = student.network.networks
    assert not torch.equal(one.leave.weight, two.leave.weight) or lora
    on = {**SHORT, "max_steps": 1, "students": 2, "warmup_share": 0.0, "lr": 0.0, "fake_turns": 1}
    again = genkit.distill(
        tiny_teacher, "msd", None, tmp_path / "on", student=tmp_path / "run" / "pipeline", **on
    )
    for name, value in student.network.state_dict().items():
        assert torch.allclose(again.network.state_dict()[name], value, atol=1e-6), name


def test_several_smaller_students_learn_the_teacher_first(tiny_teacher: Path, tmp_path, capsys):
    """Each is of the size asked for, and the opened pipeline routes to it as the trainer does."""
    settings = {
        **SHORT,
        "max_steps": 8,
        "students": 2,
        "fake_turns": 1,
        "student_size": ("width=8",),
    }
    run, record = api.prepare(tiny_teacher, "msd", None, **settings)
    assert record["settings"]["tsm_share"] == 0.3
    assert [each.name for each in run.method.stages()][0] == "teacher score matching"
    student = api._go(run, record, tmp_path / "run", resume=False)
    opened = Pipeline.from_pretrained(tmp_path / "run" / "pipeline")
    assert [each.config["width"] for each in opened.network.networks] == [8, 8]
    assert opened.network.router.table.tolist() == [0] * 5 + [1] * 5 + [0]
    one, two = (each.leave.weight for each in opened.network.networks)
    assert not torch.equal(one, two), "each has trained on its own part"
    generators = [generator(0, "x", k) for k in range(10)]
    noise = sample_noise((1, 8, 8), generators)
    want = run.method.sample(as_denoiser(student).denoiser, noise, {"label": torch.arange(10)})
    generators = [generator(0, "x", k) for k in range(10)]
    call = {"generator": generators, "output_type": "latent"}
    got = opened(list(range(10)), **call).images
    assert torch.equal(got, want)
    with torch.no_grad():
        opened.network.networks[1].leave.weight.mul_(2)
    call["generator"] = [generator(0, "x", k) for k in range(10)]
    moved = (opened(list(range(10)), **call).images != got).flatten(1).any(1)
    assert moved.tolist() == [False] * 5 + [True] * 5
    record = {**settings, "student_size": ()}
    assert api.prepare(tiny_teacher, "msd", None, **record)[1]["settings"]["tsm_share"] == 0


def test_a_run_resumes_with_its_students(tiny_teacher: Path, tmp_path):
    settings = {**SHORT, "students": 3, "fake_turns": 1, "checkpoint_every": 2}
    whole = genkit.distill(tiny_teacher, "msd", None, tmp_path / "whole", **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.Run, "export", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            genkit.distill(tiny_teacher, "msd", None, tmp_path / "cut", **settings)
    again = genkit.distill(tiny_teacher, "msd", None, tmp_path / "cut", resume=True, **settings)
    pairs = zip(whole.network.parameters(), again.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def _interrupt(*given: Any) -> None:
    raise KeyboardInterrupt


def test_a_partition_that_leaves_a_class_out_is_refused(tiny_teacher: Path, tmp_path, capsys):
    words = ["--teacher", str(tiny_teacher), "--out", str(tmp_path / "run")]
    assert main(["train-distill", "msd", *words, "--routes", "0,0,0,0,0,1,1,1,1"]) == 2
    assert "leave class 9 out; give a student for each of 10" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("lora", [(), ("--lora", "2")])
def test_several_teachers_leave_as_one_pipeline_of_styles(
    lora: tuple[str, ...], tiny_teacher: Path, other_teacher: Path, tmp_path, capsys
):
    out, words = tmp_path / "run", [f"--{name.replace('_', '-')}={SHORT[name]}" for name in SHORT]
    words += ["--teacher", str(tiny_teacher), "--teachers", str(other_teacher), "--out", str(out)]
    assert main(["train-distill", "dmm", *words, *lora]) == 0
    held = json.loads((out / "config.json").read_text())
    assert held["teachers"] == [str(other_teacher)] and len(held["teachers_weights"]) == 1
    pipeline = Pipeline.from_pretrained(out / "pipeline")
    assert type(pipeline.network) is StyledNetwork and pipeline.network.config.styles == 2
    assert trained(pipeline)["steps"] == 4, "the teacher's"
    assert pipeline.network.style.leave.weight.any(), "styles are trained, with adapters too"
    assert main(["train-distill", "dmm", "--config", str(out / "config.json"), "--out", str(out),
                 "--resume"]) == 0  # fmt: skip
    generate = ["generate", str(out / "pipeline"), "3", "--out", str(tmp_path / "made")]
    capsys.readouterr()
    assert main([*generate, "--style", "1"]) == 0
    assert main([*generate, "--style", ".25,.75"]) == 0
    assert main([*generate, "--style", "2"]) == 2
    assert "style 2 was not trained; give 0 to 1" in capsys.readouterr().err


def test_teachers_that_cannot_be_merged_are_one_sentence(
    tiny_teacher: Path, other_teacher: Path, tmp_path
):
    def refused(sentence: str, teachers: list[Any], method: str = "dmm") -> None:
        with pytest.raises(ValueError, match=sentence):
            genkit.distill(tiny_teacher, method, None, tmp_path / "run", teachers=teachers)

    refused("dmd2 distils one teacher; those that merge several: dmm", [other_teacher], "dmd2")
    refused("teacher emoji-teacher has samples", ["emoji-teacher"])
    refused("nowhere", ["nowhere"])


def test_a_second_time_input_trains_whole_beside_adapters(tiny_teacher: Path, tmp_path, capsys):
    student = genkit.distill(tiny_teacher, "meanflow", None, tmp_path / "run", lora=2, **SHORT)
    network = student.network
    assert type(network) is MLPDenoiser and network.config.two_time
    assert network.second_time.weight.any(), "it began at 0"
    teacher = Pipeline.from_pretrained(tiny_teacher).network
    assert torch.equal(network.label.weight, teacher.label.weight), "no adapter, so as it was"
    assert not torch.equal(network.leave.weight, teacher.leave.weight)
    assert "they leave merged into it only" in capsys.readouterr().err
    assert not (tmp_path / "run" / "lora").exists()
