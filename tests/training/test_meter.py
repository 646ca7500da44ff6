"""What training costs: every evaluation of every network counts once, and looking costs nothing."""

import copy
import json

import pytest
import torch
from training_toys import TwoRoles, call, denoiser, two_roles

from genkit.data.pairs import cached_pairs
from genkit.data.streams import Cost
from genkit.denoisers.base import Guided
from genkit.denoisers.repathed import Repathed
from genkit.paths import VP
from genkit.training.meter import Meter, counted, networks

STEPS, BATCH = 12, 8
EACH = 4 * BATCH  # two turns of the fake, and one of the student that asks both


def told(out):
    return json.loads((out / "cost.json").read_text())


def test_a_run_costs_what_its_turns_ask_for(tmp_path):
    """Previews, measurements and the pairs' making are not of the turns."""
    trainer = two_roles(tmp_path / "run")
    trainer.run()
    cost = told(tmp_path / "run")
    assert (cost["steps"], cost["evaluations"]) == (STEPS, STEPS * EACH)
    assert cost["seconds"] > 0 and cost["made"] == {}
    left = (*trainer.networks.modules(), *trainer.networks.export_modules().values())
    assert all(each.call is call for each in networks(*left)), "nothing is counted any more"


class Blind(TwoRoles):
    """The broken twin: its student is asked past its Denoiser."""

    def loss(self, roles, batch, moment, rng):
        if "student" in roles.turn:
            network = roles["student"].network
            roles = type(roles)(roles | {"student": copy.copy(roles["student"])})
            roles.turn = ("student",)
            roles["student"].raw = lambda x, t, cond, s=None: network(x, t)
        return super().loss(roles, batch, moment, rng)


def test_the_broken_twin_is_cheaper_than_it_is(tmp_path):
    two_roles(tmp_path / "run", method=Blind()).run()
    assert told(tmp_path / "run")["evaluations"] == STEPS * (EACH - BATCH)


def test_a_resumed_run_costs_what_a_whole_one_does(tmp_path):
    out = tmp_path / "run"
    two_roles(out, {"max_minutes": 1e-9}).run()
    before = told(out)
    assert (before["steps"], before["evaluations"]) == (1, EACH)
    meter = Meter()
    meter.made["data 0"] = Cost(7, 0.5)
    two_roles(out, meter=meter).run(resume=True)
    after = told(out)
    assert after["evaluations"] == STEPS * EACH + 7
    assert after["trained"]["seconds"] > before["seconds"] and after["seconds"] > 0.5


@pytest.mark.parametrize(
    ("around", "times"),
    [
        (lambda inner: inner, 1),
        (lambda inner: Guided(inner, 2.0, {"label": torch.tensor([9])}), 2),
        (lambda inner: Repathed(inner, VP()), 1),
        (copy.deepcopy, 1),
    ],
)
def test_one_evaluation_is_one_sample_through_a_network(around, times):
    meter, inner = Meter(), denoiser().eval()
    meter.watch(inner)
    asked = around(inner)
    x, t, cond = torch.randn(5, 2), torch.full((5,), 0.5), {"label": torch.arange(5)}
    asked.predict(x, t, cond, "x_0")
    assert meter.trained.evaluations == 0, "no step is open"
    with meter.step("train"):
        asked.predict(x, t, cond, "x_0")
    assert meter.trained.evaluations == 5 * times
    with counted(asked) as apart, meter.step("train"):
        asked.predict(x, t, cond, "x_0")
    assert (apart.evaluations, meter.trained.evaluations) == (5 * times, 5 * times)
    with meter.step("train"):
        asked.jvp(x, t, cond, "velocity", x, torch.ones_like(t))
    assert meter.trained.evaluations == 2 * 5 * times


def test_pairs_on_the_disk_cost_what_they_cost_whoever_made_them(tmp_path):
    asked = denoiser().eval()

    def made():
        with counted(asked) as cost:

            def make(eps, cond, generators):
                return {"x_0": asked.predict(eps, torch.ones(len(eps)), cond, "x_0").detach()}

            cond = {"label": torch.arange(10)}
            return cached_pairs(
                tmp_path, "key", make, cond, (2,), 0, shard=4, evaluations=lambda: cost.evaluations
            ), cost.evaluations

    (first, now), (again, then) = made(), made()
    assert (now, then) == (10, 0)
    assert first.cost.evaluations == 10 and first.cost.seconds > 0 and again.cost == first.cost
    # A shard of before costs were kept is made anew.
    from safetensors.torch import load_file, save_file

    file = tmp_path / "key" / "pairs-00001.safetensors"
    save_file(load_file(file), file)
    third, after = made()
    assert after == 4 and third.cost.evaluations == 10
    assert torch.equal(third.tensors["x_0"], first.tensors["x_0"])
