"""Tests of genkit/acceleration/attention.py on tiny random transformers of every family."""

import copy
import dataclasses

import pytest
import torch
from attention_toys import TOYS, Toy, crosses, masked, surrounds
from torch.nn.attention import SDPBackend, sdpa_kernel

from genkit.acceleration import attention, attention_families
from genkit.acceleration.attention import (
    apply_grouped_attention,
    remove_grouped_attention,
    using_grouped_attention,
)
from genkit.acceleration.attention_families import FAMILIES
from genkit.acceleration.training_attention import quicken_training
from genkit_kernels import criss_cross, full, surround

every_family = pytest.mark.parametrize("name", FAMILIES)
both_regions = pytest.mark.parametrize(
    ("region", "sees"), [(surround(1), surrounds), (criss_cross(), crosses)], ids=["surround", "x"]
)
nets = {}


def toy_and_net(name: str):
    """A toy and its transformer, made once: every test leaves it as it was."""
    toy = TOYS[name]
    if name not in nets:
        nets[name] = toy.net().requires_grad_(False)
    return toy, nets[name]


def run(net, toy: Toy, **changed):
    return net(**toy.given(**changed))[0]


def sparse(net, toy: Toy, region, settings=None, **changed):
    with using_grouped_attention(net, region, toy.group, **(settings or {})):
        return run(net, toy, **changed)


def near(a, b, tolerance: float = 1e-5) -> bool:
    return bool((a - b).abs().max() <= tolerance)


# ---- Every family -----------------------------------------------------------------------------


def test_every_family_has_a_toy():
    assert set(TOYS) == set(FAMILIES)


@every_family
def test_a_row_tells_the_truth(name: str):
    toy, net = toy_and_net(name)
    family = FAMILIES[name]
    assert type(net).__name__ == name and type(net).__module__.startswith("diffusers.")
    layers = sum(len(getattr(net, blocks)) for blocks in family.blocks)
    assert layers == toy.layers and family.axes == len(toy.grid) and family.noise == toy.noise
    apply_grouped_attention(net, full(), toy.group)
    ours = {n for n, p in net.attn_processors.items() if isinstance(p, attention.GroupedProcessor)}
    remove_grouped_attention(net)
    assert len(ours) == toy.layers + (name == "SD3Transformer2DModel")
    assert not any("refiner" in n for n in ours)


@every_family
def test_full_equals_stock_and_removing_restores_it(name: str):
    toy, net = toy_and_net(name)
    before, processors = run(net, toy), net.attn_processors
    assert near(sparse(net, toy, full()), before)
    assert torch.equal(run(net, toy), before)
    assert all(net.attn_processors[n] is p for n, p in processors.items())
    assert not net._forward_hooks and not net._forward_pre_hooks and not attention._calls.get()


@both_regions
@every_family
def test_a_region_equals_a_dense_mask(name: str, region, sees):
    toy, net = toy_and_net(name)
    found = sparse(net, toy, region)
    with masked(toy, sees):
        assert near(found, run(net, toy))
    assert not near(found, run(net, toy), 1e-2)


@every_family
def test_broken_twins_are_caught(name: str, monkeypatch: pytest.MonkeyPatch):
    toy, net = toy_and_net(name)
    with masked(toy, surrounds):
        truth = run(net, toy)
    assert not near(sparse(net, toy, surround(0)), truth, 1e-2)
    family = FAMILIES[name]
    assert near(sparse(net, toy, surround(1)), truth)

    def turned(net, given):
        *frames, rows, columns = family.grid(net, given)
        return *frames, columns, rows

    twins = [dataclasses.replace(family, grid=turned)]
    if toy.text:
        other = "last" if toy.text_first else "first"
        twins.append(dataclasses.replace(family, text_side=other))
    for twin in twins:
        monkeypatch.setitem(attention_families.FAMILIES, name, twin)
        if name == "HunyuanVideoTransformer3DModel" and twin.grid is family.grid:
            with pytest.raises(ValueError, match="leaves out tokens of the grid"):
                sparse(net, toy, surround(1))
        else:
            assert not near(sparse(net, toy, surround(1)), truth, 1e-2)


@every_family
def test_gradients_are_those_of_a_dense_mask(name: str):
    toy, net = toy_and_net(name)
    net = copy.deepcopy(net).requires_grad_(True)

    def gradients():
        x = toy.given()["hidden_states"].requires_grad_(True)
        loss = run(net, toy, hidden_states=x).square().mean()
        return torch.autograd.grad(loss, [x, *net.parameters()], allow_unused=True)

    with masked(toy, crosses):
        truth = gradients()
    with using_grouped_attention(net, criss_cross(), toy.group):
        found = gradients()
    for mine, theirs in zip(found, truth, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or near(mine, theirs, 1e-4 * max(1.0, float(theirs.abs().max())))


@every_family
def test_checkpointed_blocks_are_recomputed_in_their_own_call(name: str):
    toy, net = toy_and_net(name)
    net = copy.deepcopy(net).requires_grad_(True).train()
    parameters = [p for p in net.parameters() if p.ndim > 1]

    def gradients():
        # The last call has another time: what stays dense in it is not what did in the first.
        late = torch.full((2,), 0.9 * toy.noise)
        first, second = run(net, toy), run(net, toy, timestep=late)
        return torch.autograd.grad(first.sum() + second.square().sum(), parameters)

    with using_grouped_attention(net, surround(1), toy.group, dense_steps=0.2):
        truth = gradients()
        net.enable_gradient_checkpointing()
        found, checkpoint = gradients(), net._gradient_checkpointing_func
        run(net, toy)
        assert net._gradient_checkpointing_func is checkpoint
    for mine, theirs in zip(found, truth, strict=True):
        assert near(mine, theirs, 1e-4 * max(1.0, float(theirs.abs().max())))


@every_family
def test_noisy_rows_stay_dense(name: str):
    toy, net = toy_and_net(name)
    stock, grouped_ = run(net, toy), sparse(net, toy, surround(1))
    mixed = sparse(net, toy, surround(1), {"dense_steps": 0.2})  # the rows' times are 0.3 and 0.9
    assert near(mixed[0], grouped_[0]) and not near(mixed[0], stock[0], 1e-2)
    assert near(mixed[1], stock[1]) and not near(mixed[1], grouped_[1], 1e-2)
    assert torch.equal(sparse(net, toy, surround(1), {"dense_steps": 0.8}), stock)
    assert torch.equal(sparse(net, toy, surround(1), {"dense_steps": 0.05}), grouped_)


@every_family
def test_dense_layers_keep_their_processors(name: str):
    toy, net = toy_and_net(name)
    stock, both = run(net, toy), sparse(net, toy, surround(1))
    first, last = (sparse(net, toy, surround(1), {"dense_layers": (i,)}) for i in (0, 1))
    for other in (stock, both, last):
        assert not near(first, other, 1e-3)
    assert torch.equal(last, sparse(net, toy, surround(1), {"dense_layers": (-1,)}))


# ---- Prompts of different length --------------------------------------------------------------


def test_the_padding_of_prompts_is_seen_by_nobody():
    toy, net = toy_and_net("HunyuanVideoTransformer3DModel")
    given = toy.given()
    found = sparse(net, toy, surround(1))
    text = given["encoder_hidden_states"].clone()
    text[1, 2:] += 100
    assert near(sparse(net, toy, surround(1), encoder_hidden_states=text)[1], found[1])
    text[1, :2] += 1
    assert not near(sparse(net, toy, surround(1), encoder_hidden_states=text)[1], found[1], 1e-2)
    alone = {n: x[1:] if isinstance(x, torch.Tensor) else x for n, x in given.items()}
    for part in ("encoder_hidden_states", "encoder_attention_mask"):
        alone[part] = alone[part][:, :2]
    assert near(sparse(net, toy, surround(1), **alone)[0], found[1])


def test_a_mask_given_to_flux_is_heeded():
    toy, net = toy_and_net("FluxTransformer2DModel")
    seen = torch.ones(2, 1, 1, 59, dtype=torch.bool)
    seen[1, ..., 2:5] = False
    given = {"joint_attention_kwargs": {"attention_mask": seen}}
    found = sparse(net, toy, surround(1), **given)
    with masked(toy, surrounds):
        assert near(found, run(net, toy, **given))
    assert not near(found[1], sparse(net, toy, surround(1))[1], 1e-2)
    mixed = sparse(net, toy, surround(1), {"dense_steps": 0.2}, **given)
    assert near(mixed[0], found[0]) and near(mixed[1], run(net, toy, **given)[1])
    for hole in (0, 7):  # a word before others, and a token of the grid
        seen = torch.ones(1, 1, 1, 59, dtype=torch.bool)
        seen[..., hole] = False
        with pytest.raises(ValueError, match="the text's padding at its end"):
            sparse(net, toy, surround(1), joint_attention_kwargs={"attention_mask": seen})
    with pytest.raises(ValueError, match=r"mask is torch.float32 of shape \(2, 1, 59, 59\)"):
        other = {"attention_mask": torch.zeros(2, 1, 59, 59)}
        sparse(net, toy, surround(1), joint_attention_kwargs=other)


# ---- What else may happen ---------------------------------------------------------------------


def test_the_forward_derivative_is_that_of_a_dense_mask():
    toy, net = toy_and_net("PixArtTransformer2DModel")
    x = toy.given()["hidden_states"]

    def derivative():
        return torch.func.jvp(lambda x: run(net, toy, hidden_states=x), (x,), (x.flip(3),))[1]

    with sdpa_kernel(SDPBackend.MATH):  # torch's fused kernels have none; cross attention is theirs
        with using_grouped_attention(net, surround(1), toy.group):
            found = derivative()
        with masked(toy, surrounds):
            truth = derivative()
    assert near(found, truth, 1e-4 * float(truth.abs().max()))


def test_another_size_may_follow():
    toy, net = toy_and_net("PixArtTransformer2DModel")
    other = dataclasses.replace(toy, grid=(8, 5))
    x = torch.randn(2, 4, 16, 10, generator=torch.Generator().manual_seed(2))
    with using_grouped_attention(net, surround(1), toy.group):
        run(net, toy)
        found = run(net, toy, hidden_states=x)
    with masked(other, surrounds):
        assert near(found, run(net, toy, hidden_states=x))


def test_autocast_is_heeded():
    toy, net = toy_and_net("FluxTransformer2DModel")
    with torch.autocast("cpu", torch.bfloat16), masked(toy, surrounds):
        truth = run(net, toy)
    with torch.autocast("cpu", torch.bfloat16):
        found = sparse(net, toy, surround(1))
    assert found.dtype == truth.dtype and near(found, truth, 0.05 * float(truth.abs().max()))


@every_family
def test_half_precision_stays_half(name: str):
    toy, net = toy_and_net(name)
    net = copy.deepcopy(net).bfloat16()
    halved = ("hidden_states", "encoder_hidden_states", "pooled_projections")
    given = {n: x.bfloat16() for n, x in toy.given().items() if n in halved}
    found = sparse(net, toy, surround(1), **given)
    with masked(toy, surrounds):
        truth = run(net, toy, **given)
    assert found.dtype == truth.dtype == torch.bfloat16
    assert near(found.float(), truth.float(), 0.05 * float(truth.abs().max()))


def test_a_copy_has_its_own():
    toy, net = toy_and_net("PixArtTransformer2DModel")
    stock = run(net, toy)
    with using_grouped_attention(net, surround(1), toy.group):
        found, other = run(net, toy), copy.deepcopy(net)
    assert torch.equal(run(other, toy), found) and torch.equal(run(net, toy), stock)
    remove_grouped_attention(other)
    assert torch.equal(run(other, toy), stock)


def test_the_processor_for_training_gives_way_and_comes_back():
    toy, net = toy_and_net("PixArtTransformer2DModel")
    net = copy.deepcopy(net)
    quicken_training(net)
    held = net.attn_processors
    x = toy.given()["hidden_states"].requires_grad_(True)
    with masked(toy, surrounds):
        truth = run(toy_and_net("PixArtTransformer2DModel")[1], toy)
    assert near(sparse(net, toy, surround(1), hidden_states=x), truth)
    assert all(net.attn_processors[n] is p for n, p in held.items())


def test_fused_projections_stay_fused():
    for name in ("FluxTransformer2DModel", "PixArtTransformer2DModel", "WanTransformer3DModel"):
        toy, net = toy_and_net(name)
        truth = sparse(net, toy, surround(1))
        net = copy.deepcopy(net)
        net.fuse_qkv_projections()
        assert near(sparse(net, toy, surround(1)), truth)


# ---- Mistakes ---------------------------------------------------------------------------------

MISTAKES = [
    ({"group": (2, 2)}, "needs 3 sizes"),
    ({"group": (0, 2, 2)}, "one positive size per axis"),
    ({"group": (1, 2, 6)}, r"group \(1, 2, 6\) is larger than the grid \(3, 4, 5\)"),
    ({"region": "surround"}, "give surround"),
    ({"region": surround((1, 1))}, "one size per axis"),
    ({"dense_layers": (2,)}, "the 2 layers are 0 to 1"),
    ({"dense_layers": (0, -1)}, "nothing is left"),
    ({"dense_steps": 3}, "a share of time"),
]


@pytest.mark.parametrize(("changed", "complaint"), MISTAKES)
def test_settings_that_do_not_fit_are_refused(changed, complaint: str):
    toy, net = toy_and_net("WanTransformer3DModel")
    stock = run(net, toy)
    settings = {"region": surround(1), "group": toy.group} | changed
    with pytest.raises(ValueError, match=complaint), using_grouped_attention(net, **settings):
        run(net, toy)
    assert torch.equal(run(net, toy), stock) and not attention._calls.get()


def test_transformers_that_cannot_be_are_refused():
    from diffusers import CogVideoXTransformer3DModel, SanaTransformer2DModel

    with torch.device("meta"):
        sana = SanaTransformer2DModel(num_layers=1)
        cog = CogVideoXTransformer3DModel(num_layers=1)
    with pytest.raises(ValueError, match="SanaTransformer2DModel has linear attention"):
        apply_grouped_attention(sana, surround(1), (2, 2))
    for other in (cog, torch.nn.Linear(2, 2)):
        with pytest.raises(ValueError, match="these are: FluxTransformer2DModel, SD3"):
            apply_grouped_attention(other, surround(1), (2, 2))


def test_twice_and_not_at_all_are_refused():
    toy, net = toy_and_net("WanTransformer3DModel")
    with using_grouped_attention(net, surround(1), toy.group):
        with pytest.raises(ValueError, match=r"remove_grouped_attention\(\) first"):
            apply_grouped_attention(net, surround(1), toy.group)
    with pytest.raises(ValueError, match="no grouped attention to remove"):
        remove_grouped_attention(net)


def test_calls_that_do_not_tell_their_grid_are_refused():
    toy, net = toy_and_net("LTXVideoTransformer3DModel")
    for changed in ({"height": None}, {"height": 3}):
        with pytest.raises(ValueError, match="must be the 60 tokens"):
            sparse(net, toy, surround(1), **changed)
    toy, net = toy_and_net("FluxTransformer2DModel")
    ids = toy.given()["img_ids"]
    two = torch.cat([ids[:27], ids[:27] + torch.tensor([1.0, 0, 0])])  # a picture to edit beside
    for wrong in (ids.flip(0)[torch.randperm(54)], two, ids[:, [0, 2, 1]]):
        with pytest.raises(ValueError, match="do not run row by row"):
            sparse(net, toy, surround(1), img_ids=wrong)
    with using_grouped_attention(net, surround(1), toy.group):
        with pytest.raises(ValueError, match="outside of its transformer"):
            net.single_transformer_blocks[0](
                torch.randn(2, 54, 32), torch.randn(2, 5, 32), torch.randn(2, 32)
            )


def test_other_processors_and_backends_are_refused():
    from diffusers.models.attention_processor import AttnProcessor

    toy, net = toy_and_net("PixArtTransformer2DModel")
    other = copy.deepcopy(net)
    other.set_attn_processor(AttnProcessor())
    with pytest.raises(ValueError, match="run by AttnProcessor"):
        apply_grouped_attention(other, surround(1), toy.group)
    toy, net = toy_and_net("WanTransformer3DModel")
    other = copy.deepcopy(net)
    other.set_attention_backend("flex")
    with pytest.raises(ValueError, match="leave out other attention backends"):
        sparse(other, toy, surround(1))
