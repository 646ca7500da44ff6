"""What every method file must keep, found in the tree, so that a new method is tested at once."""

import copy
import importlib.util
import json
import pathlib
import re
import shutil

import pytest
import torch

from genkit.data.streams import TensorStream
from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.lora import adapted, has_adapters, merged
from genkit.methods import base
from genkit.methods.base import Moment, begin_student
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import PATHS
from genkit.rng import sample_generators

HERE = pathlib.Path(__file__).parent
NAMES = sorted(
    file.stem
    for file in pathlib.Path(base.__file__).parent.glob("*.py")
    if file.stem not in ("__init__", "base")
)


def method_class(name):
    return importlib.import_module(f"genkit.methods.{name}").Method


def network(path, kind="velocity"):
    built = MLPDenoiser(width=16, depth=3)
    # Both begin at zero: nothing would leave the network, and its condition would change nothing.
    for begins_at_zero in (built.leave, built.blocks[0].modulation):
        torch.nn.init.normal_(begins_at_zero.weight, std=0.1)
    return NetworkDenoiser(built, network_call(built), path, kind, 1000 / path.t_max)


def trained(method, out, kind, resume=False, **config):
    """(the Trainer's result, teacher or None, the student) of four steps on random data."""
    from genkit.hub import make_scheduler
    from genkit.training.config import TrainerConfig
    from genkit.training.trainer import Trainer

    torch.manual_seed(0)
    path = method.path

    def begin():
        return method.fresh(method.config, network(path, kind))

    who = network(path, kind) if method.has_teacher else begin()
    method.scheduler = make_scheduler(
        method.sampler(), path, who.kind, who.time_scale, who.sigma_data
    )
    x_0, cond = torch.randn(64, 1, 8, 8), {"label": torch.arange(64) % 10}
    pairs = TensorStream({"eps": torch.randn_like(x_0), "x_0": x_0, "cond": cond})
    delivered = {}
    teacher = who if method.has_teacher else None
    trainer = Trainer(
        method,
        out,
        TrainerConfig(**({"max_steps": 4, "batch_size": 8} | config)),
        streams={"data": TensorStream({"x_0": x_0, "cond": cond})},
        network=begin,
        teacher=teacher,
        make_pairs=lambda teacher, stage, number: pairs,
        export=lambda parts, out: delivered.update(parts),
    )
    return trainer.run(resume), teacher, delivered["network"]


def kind_of(name):
    """What the tests' networks predict: the velocity, where the method takes it."""
    kinds = method_class(name).kinds
    return "velocity" if "velocity" in kinds else kinds[0]


@pytest.fixture
def make():
    def build(name, path=None, **config):
        cls = method_class(name)
        uncond, first = {"label": torch.tensor([10])}, PATHS[cls.paths[0]]()
        return cls(cls.Config(**config), path or first, (1, 8, 8), uncond=uncond)

    return build


@pytest.mark.parametrize("name", NAMES)
class TestMethod:
    def test_has_a_test_and_says_where_it_comes_from(self, name):
        cls = method_class(name)
        assert (HERE / f"test_{name}.py").exists()
        assert cls.paper.startswith("arXiv ") and cls.family
        assert set(cls.needs) <= {"data", "prompts", "pairs", "paths"} and cls.needs
        source = pathlib.Path(importlib.import_module(cls.__module__).__file__).read_text()
        assert source.count("\n") <= 200
        assert "twin" in (HERE / f"test_{name}.py").read_text(), "no deliberately broken twin"

    def test_stages_turns_and_sampler_are_consistent(self, name, make):
        method = make(name)
        assert method.name == name
        roles = method.nets()
        assert "student" in roles and "export" in roles["student"].ema
        assert sum(stage.share for stage in method.stages()) == pytest.approx(1)
        for stage in method.stages():
            turns = method.turns(Moment(stage, 0, 10))
            assert sum("student" in turn for turn in turns) == 1
            assert all(role in roles for turn in turns for role in turn)
        assert method.sampler().steps >= 1

    def test_trains_through_the_trainer_and_samples(self, name, make, tmp_path):
        method = make(name)
        result, teacher, student = trained(method, tmp_path / "run", kind_of(name))
        assert result.finished and result.steps == 4
        assert all(p.isfinite().all() for p in student.parameters())
        noise = torch.randn(2, 1, 8, 8)
        label = {"label": torch.tensor([1, 2])}
        assert method.sample(student, noise, label).shape == noise.shape
        if teacher is not None:
            change = method.nets()["student"].change or (lambda network: network)
            before, after = change(copy.deepcopy(teacher)).state_dict(), student.state_dict()
            changed = [not torch.equal(before[key], after[key]) for key in before]
            assert any(changed), "the student is still the teacher"
            assert all(p.grad is None for p in teacher.parameters())

    def test_trains_adapters_alone_where_it_starts_from_a_teacher(self, name, make, tmp_path):
        method = make(name)
        begins = method.nets()["student"].start is not None
        begin_student(method, copy.deepcopy, lambda network: adapted(network, 2))
        if not begins:
            with pytest.raises(ValueError, match="starts from a fresh network"):
                method.nets()
            return
        _, teacher, student = trained(method, tmp_path / "run", kind_of(name))
        network, frozen = student.network, teacher.network.state_dict()
        assert has_adapters(network)
        kept = 0
        for key, value in network.state_dict().items():
            plain = re.sub(r"networks\.\d+\.|base_layer\.", "", key)
            if plain in frozen:
                assert torch.equal(value, frozen[plain]), key
                kept += 1
        assert kept >= len(frozen)
        noise, label = torch.randn(2, 1, 8, 8), {"label": torch.tensor([1, 2])}
        draw = lambda: method.sample(student, noise, label, None, sample_generators(0, 2))  # noqa: E731
        before = draw()
        assert not has_adapters(merged(network))
        assert torch.allclose(draw(), before, atol=1e-4)

    def test_trains_on_every_path_it_claims(self, name, make, tmp_path):
        for path in method_class(name).paths:
            method = make(name, PATHS[path]())
            _, _, student = trained(method, tmp_path / path, kind_of(name), max_steps=2)
            noise, label = torch.randn(2, 1, 8, 8), {"label": torch.tensor([1, 2])}
            assert method.sample(student, noise, label).isfinite().all(), path

    def test_a_resumed_run_ends_with_the_same_bits(self, name, make, tmp_path):
        """All that a method remembers is in its checkpoints."""
        whole, part = tmp_path / "whole", tmp_path / "part"
        kind = kind_of(name)
        _, _, student = trained(make(name), whole, kind, checkpoint_every=1)
        shutil.copytree(whole, part)
        shutil.rmtree(part / "checkpoints" / "step-00000004")
        result, _, again = trained(make(name), part, kind, checkpoint_every=1, resume=True)
        assert result.finished
        for key, value in student.state_dict().items():
            assert torch.equal(value, again.state_dict()[key]), key

    def test_no_few_samples_are_the_whole_loss(self, name, make, tmp_path):
        """A network that predicts x_0 gives a velocity that divides by sigma, which is near 0 for
        some of many samples: their loss must not drown that of the others."""
        if "x_0" not in method_class(name).kinds:
            pytest.skip("it takes no network that predicts x_0")
        trained(make(name), tmp_path / "run", "x_0", batch_size=4096, log_every=1)
        rows = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
        totals = [row[key] for row in rows for key in row if key.endswith("/total")]
        assert len(totals) >= 4 and max(totals) < 500


def table_script():
    file = HERE.parent.parent / "scripts" / "write_methods_table.py"
    spec = importlib.util.spec_from_file_location("write_methods_table", file)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_table_of_methods_is_what_the_files_say():
    root, script = HERE.parent.parent, table_script()
    told, home = script.facts(), root / "genkit" / "methods"
    assert (home / "README.md").read_text() == script.table(told)
    assert json.loads((home / "table.json").read_text()) == told
    rows = {
        line.split("|")[1]: line
        for line in script.table(told).splitlines()
        if line.startswith("| [")
    }
    assert "teacher, student, fake, head" in rows[" [`dmd2`](dmd2.py) "]
    assert "the teacher's" in rows[" [`guidance_distill`](guidance_distill.py) "]


def test_figures_are_the_mean_over_seeds_at_the_fewest_steps(tmp_path, monkeypatch):
    script = table_script()
    rows = [
        {
            "bench": "analytic-digits",
            "name": "dmd2",
            "steps": k,
            "fate": "finished",
            "figures": {"sw": sw, "cover": 0.5},
        }
        for k, sw in ((4, 0.01), (1, 0.04), (1, 0.06))
    ]
    rows += [{**rows[0], "name": "lcm", "fate": "collapsed", "figures": {}}]
    rows += [{**rows[0], "bench": "spectral-fields", "name": "sid", "steps": 1}]
    (tmp_path / "methods.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(script, "ROWS", tmp_path / "methods.json")
    assert script.figures() == {"dmd2": "0.050, 50% at 1 step (2 seeds)", "sid": ""}
    monkeypatch.setattr(script, "ROWS", tmp_path / "none.json")
    assert script.figures() == {}


@pytest.mark.parametrize("name", [name for name in NAMES if method_class(name).any_steps])
def test_any_steps_means_that_training_does_not_ask_for_them(name, make, tmp_path):
    one, four = (
        trained(make(name, steps=k), tmp_path / str(k), kind_of(name))[2].state_dict()
        for k in (1, 4)
    )
    assert all(torch.equal(one[key], four[key]) for key in one)
