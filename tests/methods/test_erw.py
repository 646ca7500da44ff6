"""ERW: the agreement's values and gradients (card 11 of the models), its weight, and that the
warm-up moves the first blocks alone, which the main stage then takes up."""

import pytest
import torch

from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.methods.base import Moment, Roles
from genkit.methods.erw import Method
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import RectifiedFlow
from genkit.rng import Rng


def build(**config):
    uncond = {"label": torch.tensor([10])}
    return Method(Method.Config(**config), RectifiedFlow(), (1, 8, 8), uncond=uncond)


class LastAlone(Method):
    """The broken twin, which is the release's bug: the last sample of a batch alone counts."""

    def disagreement(self, projected, wanted):
        return super().disagreement(projected[-1:], wanted[-1:]) / len(projected)


def test_agreement_is_the_cosine_and_every_sample_counts():
    method, tokens = build(), Rng(0).normal((5, 4, 6))
    assert torch.allclose(method.disagreement(tokens, tokens), -torch.ones(5))
    assert torch.allclose(method.disagreement(tokens, -2 * tokens), torch.ones(5))
    turned = torch.stack([-tokens[..., 1], tokens[..., 0]], -1)
    assert method.disagreement(tokens[..., :2], turned).abs().max() < 1e-6
    for cls, whole in ((Method, True), (LastAlone, False)):
        projected = Rng(1).normal((5, 4, 6)).requires_grad_(True)
        cls(Method.Config(), RectifiedFlow(), (1,)).disagreement(
            projected, tokens
        ).mean().backward()
        assert bool((projected.grad.flatten(1).norm(dim=1) > 1e-4).all()) is whole


def made(method):
    """The roles of the method with a network of seven blocks."""
    torch.manual_seed(0)
    network = MLPDenoiser(width=16, depth=7)
    for block in network.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.1)
    torch.nn.init.normal_(network.leave.weight, std=0.1)
    student = NetworkDenoiser(network, network_call(network), RectifiedFlow(), "velocity", 1000.0)
    roles, nets = Roles(student=student), method.nets()
    for name in ("features", "projector"):
        roles[name] = nets[name].build(roles)
    return roles


def batch():
    return {"data": {"x_0": Rng(2).normal((8, 1, 8, 8)), "cond": {"label": torch.arange(8)}}}


def moved(loss, student):
    """Names of the parameters that a loss moves."""
    student.zero_grad(set_to_none=True)
    loss["total"].backward()
    return {name for name, p in student.network.named_parameters() if p.grad is not None}


def test_the_warm_up_trains_the_first_blocks_on_clean_samples():
    method, seen = build(early=0.3, drop=0.0), []
    roles = made(method)
    enter = roles["student"].network.enter
    enter.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    loss = method.loss(roles, batch(), Moment(method.stages()[0], 3, 10), Rng(0))
    names = moved(loss, roles["student"])
    assert {"enter.weight", "blocks.0.first.weight", "blocks.1.first.weight"} <= names
    assert not any(name.startswith(("blocks.2", "blocks.6", "leave")) for name in names)
    assert torch.equal(seen[0], batch()["data"]["x_0"].flatten(1)), "no noise"
    assert loss["total"] == 0.5 * loss["agreement"]


def test_the_main_stage_is_flow_matching_and_the_agreement_of_a_middle_block():
    method = build(drop=0.0)
    roles, stage = made(method), method.stages()[1]
    first, last = (
        method.loss(roles, batch(), Moment(stage, step, 100), Rng(0)) for step in (0, 25)
    )
    assert torch.isclose(first["total"], first["flow"] + first["agreement"])
    assert torch.isclose(last["total"], last["flow"] + 0.5 * last["agreement"]), "a half-life later"
    assert "leave.weight" in moved(first, roles["student"])
    assert method.block(roles["student"], 0.5).endswith("blocks.3")
    assert method.block(roles["student"], 0.14).endswith("blocks.0")


def test_a_text_to_image_transformer_is_warmed_up_too():
    from genkit.networks.text import (
        PromptedNetwork,
        text_encoder,
        text_transformer,
        tokens_of,
        word_tokenizer,
    )

    tokenizer = word_tokenizer(["a red cat"])
    network = PromptedNetwork(text_encoder(8), text_transformer(3, 16, heads=2, width=16, depth=4))
    path, uncond = RectifiedFlow(), {"tokens": tokens_of(tokenizer, [""])}
    method = Method(Method.Config(), path, (3, 16, 16), uncond=uncond)
    student = NetworkDenoiser(network, network_call(network), path, "x_0", 1000.0)
    roles = Roles(student=student, features=method.nets()["features"].build({}))
    roles["projector"] = method._projector(roles)
    cond = {"tokens": tokens_of(tokenizer, ["a red cat", "a cat"])}
    data = {"data": {"x_0": Rng(0).normal((2, 3, 16, 16)), "cond": cond}}
    early, late = (method.loss(roles, data, Moment(s, 0, 4), Rng(0)) for s in method.stages())
    names = moved(early, student)
    assert any("transformer_blocks.0" in name for name in names)
    assert not any("transformer_blocks.1" in name for name in names)
    assert late["total"].isfinite() and late["flow"] > 0


def test_the_agreement_can_be_learned():
    method = build(drop=0.0)
    roles, moment = made(method), Moment(method.stages()[0], 0, 1)
    both = [*roles["student"].parameters(), *roles["projector"].parameters()]
    adam, begun = torch.optim.Adam(both, lr=3e-3), None
    for _ in range(60):
        adam.zero_grad(set_to_none=True)
        loss = method.loss(roles, batch(), moment, Rng(0))
        begun = loss["agreement"].item() if begun is None else begun
        loss["total"].backward()
        adam.step()
    assert begun > -0.5 and loss["agreement"].item() < -0.9


def test_stages_keep_the_weights_and_forget_the_optimizer():
    """Card 11: the main stage begins with the warm-up's own blocks."""
    first, second = build().stages()
    assert (first.name, second.name) == ("warm-up", "train")
    assert second.fresh_optimizer and not second.start
    assert build().turns(Moment(first, 0, 1)) == [("student", "projector")]
    nets = build().nets()
    assert not nets["features"].trainable and nets["student"].start is None


@pytest.mark.parametrize(
    "config", [{"warmup_share": 0.0}, {"early": 0.0}, {"middle": 2.0}, {"half_life": 0.0}]
)
def test_what_cannot_be_is_refused(config):
    with pytest.raises(ValueError, match=next(iter(config))):
        build(**config)
