"""One turn: which batch, which noise, who steps, what is reported."""

import pytest
import torch
from training_toys import OneRole, TwoRoles, one_role, two_roles, weights

from genkit.training.health import Collapse
from genkit.training.turns import rows


class Spying(TwoRoles):
    """Keeps what every loss was given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def loss(self, roles, batch, moment, rng):
        losses = super().loss(roles, batch, moment, rng)
        noise = rng.fork("spy").normal((1,)).item()
        self.given.append((roles.turn, batch["data"]["x_0"].sum().item(), noise))
        return losses


def test_turns_come_in_order_each_with_its_own_batch_and_noise(tmp_path):
    method = Spying()
    two_roles(tmp_path / "run", {"max_steps": 3}, method).run()
    order = [turn for turn, _, _ in method.given]
    assert order == [("fake",), ("fake",), ("student",)] * 3
    assert len({total for _, total, _ in method.given}) == 9
    assert len({noise for _, _, noise in method.given}) == 9


def test_only_the_roles_of_the_turn_change(tmp_path):
    trainer = two_roles(tmp_path / "run", {"max_steps": 1})
    before, seen, run = weights(trainer), [], trainer.turns.run

    def spying(turn, *args):
        run(turn, *args)
        now = weights(trainer)
        parts = {key.split("/")[1] for key in before if not torch.equal(before[key], now[key])}
        seen.append((turn, {each for each in parts if "." not in each}))
        before.update(now)

    trainer.turns.run = spying
    trainer.run()
    # The student also runs in the fake's turn only where a method makes samples with it.
    assert [changed for turn, changed in seen if turn == ("fake",)] == [{"fake"}] * 2
    # Its input passes through the fake, whose call counter moves but whose weights do not.
    assert seen[-1][1] <= {"student", "fake"} and "student" in seen[-1][1]
    fake = trainer.networks.optimizers["fake"]
    assert fake.updates == 2 and trainer.networks.optimizers["student"].updates == 1


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_changes_nothing_but_rounding(tmp_path, accumulate):
    def run(name, parts):
        method = OneRole(build=lambda given: without_dropout())
        trainer = one_role(tmp_path / name, {"accumulate": parts}, method)
        trainer.run()
        return weights(trainer)

    def without_dropout():
        from training_toys import denoiser

        return denoiser(dropout=0.0)

    one, cut = run("one", 1), run("cut", accumulate)
    for key in one:
        if not key.endswith("calls"):
            torch.testing.assert_close(one[key], cut[key], rtol=1e-4, atol=1e-5, msg=key)


def test_a_batch_that_cannot_be_cut_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size 8 cannot be cut into 3"):
        one_role(tmp_path / "run", {"accumulate": 3})


def test_rows_are_cut_from_everything_in_a_batch():
    batch = {"x_0": torch.arange(6), "cond": {"text": list("abcdef"), "label": torch.arange(6)}}
    part = rows(batch, 2, 2, torch.device("cpu"))
    assert part["x_0"].tolist() == [2, 3] and part["cond"]["text"] == ["c", "d"]


def test_means_are_over_the_steps_since_the_last_line(tmp_path):
    trainer = one_role(tmp_path / "run", {"max_steps": 4, "log_every": 4, "checkpoint_every": 9})
    seen, loss = [], trainer.method.loss

    def spying(*args):
        losses = loss(*args)
        seen.append(losses["total"].item())
        return losses

    trainer.method.loss = spying
    trainer.run()
    from genkit.training.log import read_log

    line = read_log(tmp_path / "run")[0]
    assert line["student/total"] == pytest.approx(sum(seen) / 4, rel=1e-6)


class Breaking(OneRole):
    """Its loss turns NaN in one step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.broken = step

    def loss(self, roles, batch, moment, rng):
        losses = super().loss(roles, batch, moment, rng)
        factor = float("nan") if moment.step == self.broken else 1.0
        return {key: value * factor for key, value in losses.items()}


def test_a_loss_that_turns_nan_stops_before_it_reaches_the_weights(tmp_path):
    trainer = one_role(tmp_path / "run", {}, Breaking(7))
    with pytest.raises(Collapse, match=r"step 7: the loss of student turned nan .* of step 6"):
        trainer.run()
    assert all(torch.isfinite(each).all() for each in weights(trainer).values())
    assert trainer.checkpoints.steps() == [3, 6]
    assert (tmp_path / "run" / "checkpoints" / "collapsed" / "state.json").exists()
    assert "turned nan" in (tmp_path / "run" / "report.html").read_text()


def test_dropout_is_drawn_anew_in_every_turn_and_equal_on_resume(tmp_path):
    masks = []

    class Dropping(OneRole):
        def loss(self, roles, batch, moment, rng):
            masks.append(torch.nn.functional.dropout(torch.ones(64)).tolist())
            return super().loss(roles, batch, moment, rng)

    one_role(tmp_path / "a", {"max_steps": 3}, Dropping()).run()
    torch.rand(5)
    one_role(tmp_path / "b", {"max_steps": 3}, Dropping()).run()
    assert masks[:3] == masks[3:] and masks[0] != masks[1]


@pytest.mark.usefixtures("cpu_with_bf16")
def test_bfloat16_trains_and_samples_in_float32(tmp_path):
    kinds = []

    class Asking(OneRole):
        def loss(self, roles, batch, moment, rng):
            kinds.append(roles["student"].network.layers[0](torch.ones(1, 3)).dtype)
            return super().loss(roles, batch, moment, rng)

    trainer = one_role(tmp_path / "run", {"mixed_precision": "bf16", "max_steps": 2}, Asking())
    trainer.run()
    assert kinds == [torch.bfloat16] * 2
    assert all(
        each.dtype == torch.float32 for each in trainer.networks.nets["student"].parameters()
    )
    assert trainer.watch.sample(torch.zeros(1, 2), {}).dtype == torch.float32
    # A later run of the same process is free to choose again.
    one_role(tmp_path / "again", {"max_steps": 1}).run()


def test_a_condition_encoder_is_asked_once_and_its_losses_are_added(tmp_path):
    from training_toys import denoiser

    from genkit.training.log import read_log

    asked = []

    class Reading(OneRole):
        def loss(self, roles, batch, moment, rng):
            assert batch["data"]["cond"] == {"told": True}
            return super().loss(roles, batch, moment, rng)

    def encoder(network, cond, x_0, mask):
        asked.append((x_0 is not None, mask))
        return {"told": True}, {"own": network.layers[0].bias.square()}

    def build(given):
        made = denoiser()
        made.encoder = encoder
        return made

    one_role(
        tmp_path / "run", {"max_steps": 2, "log_every": 1, "sample_every": 0}, Reading(build=build)
    ).run()
    first = read_log(tmp_path / "run")[0]
    assert asked[0] == (True, None) and first["student/own"] > 0
    parts = OneRole()
    one_role(tmp_path / "plain", {"max_steps": 1, "log_every": 1, "sample_every": 0}, parts).run()
    plain = read_log(tmp_path / "plain")[0]
    assert "student/own" not in plain
