"""A network given one more input begins as it was, and says so where it cannot."""

import pytest
import torch
from diffusers import UNet2DModel

from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.guidance import told
from genkit.networks.mlp import MLPDenoiser
from genkit.networks.more_inputs import with_guidance, with_second_time
from genkit.paths import RectifiedFlow


def denoiser(network):
    return NetworkDenoiser(network, network_call(network), RectifiedFlow(), "velocity", 1000.0)


def test_begins_as_the_network_of_one_time_whatever_the_second():
    network = MLPDenoiser(width=16, depth=2)
    for each in network.parameters():
        torch.nn.init.normal_(each, std=0.3)
    one = denoiser(network)
    two = with_second_time(one)
    assert two.two_time and not one.two_time and with_second_time(two) is two
    x, cond = torch.randn(4, 1, 8, 8), {"label": torch.arange(4)}
    t, s = torch.rand(4), torch.rand(4)
    want = one.predict(x, t, cond, "velocity")
    assert torch.equal(two.predict(x, t, cond, "mean_velocity", s), want)
    assert torch.equal(two.predict(x, t, cond, "velocity"), want)
    two.predict(x, t, cond, "mean_velocity", s).square().mean().backward()
    gradient = two.network.second_time.weight.grad
    assert gradient is not None and gradient.abs().max() > 0
    assert all(each.grad is None for each in network.parameters()), "its own weights"


def test_a_network_without_one_is_refused():
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        layers_per_block=1,
    )
    with pytest.raises(ValueError, match="UNet2DModel has no second time input"):
        with_second_time(denoiser(unet))


def text_network():
    from genkit.networks.text import TEXT_WIDTH, text_transformer

    network = text_transformer(3, 8, patch=2, heads=2, width=8, depth=2)
    for each in network.parameters():
        torch.nn.init.normal_(each, std=0.2)
    return network, {"encoder_hidden_states": torch.randn(4, 5, TEXT_WIDTH)}


def text_unet():
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    return network, {"encoder_hidden_states": torch.randn(4, 5, 16)}


def mlp():
    network = MLPDenoiser(3, 8, width=16, depth=2)
    for each in network.parameters():
        torch.nn.init.normal_(each, std=0.3)
    return network, {"label": torch.arange(4)}


@pytest.mark.parametrize("make", [mlp, text_network, text_unet])
def test_guidance_begins_without_effect_and_trains(make):
    torch.manual_seed(0)
    network, cond = make()
    one, x, t = denoiser(network.eval()), torch.randn(4, 3, 8, 8), torch.rand(4)
    taking = with_guidance(one)
    want = one.predict(x, t, cond, "velocity")
    for w in (1.0, torch.tensor([1.0, 2.0, 3.0, 15.0])):
        got = taking.predict(x, t, told(cond, w, x), "velocity")
        assert torch.allclose(got, want, atol=1e-6)
    got.square().mean().backward()
    own = dict(network.named_parameters())
    added = {name: p for name, p in taking.network.named_parameters() if name not in own}
    assert added and all(p.grad is not None and p.grad.abs().max() > 0 for p in added.values())
    assert all(p.grad is None for p in own.values())
    for each in added.values():
        torch.nn.init.normal_(each)
    scales = [taking.predict(x, t, told(cond, w, x), "velocity") for w in (1.0, 2.0, 3.0)]
    assert not torch.allclose(scales[1], scales[2])
    if make is not text_unet:
        assert torch.allclose(scales[0], want, atol=1e-6), "told 1, it is the network without"


def test_a_text_transformer_takes_a_second_time_and_reopens(tmp_path):
    from genkit.acceleration.training_attention import TrainingAttention, quicken_training
    from genkit.networks.text_transformer import TextTransformer

    torch.manual_seed(0)
    network, cond = text_network()
    quicken_training(network)
    one, x = denoiser(network), torch.randn(4, 3, 8, 8)
    t, s = torch.rand(4), torch.rand(4)
    two = with_second_time(one)
    kept = {type(each) for each in two.network.attn_processors.values()}
    assert kept == {TrainingAttention}, "the attention it trains with"
    want = one.predict(x, t, cond, "velocity")
    assert torch.allclose(two.predict(x, t, cond, "mean_velocity", s), want, atol=1e-4)
    torch.nn.init.normal_(two.network.adaln_single.second_time.weight)
    assert torch.allclose(two.predict(x, t, cond, "mean_velocity", t), want, atol=1e-4), "at s = t"
    moved = two.predict(x, t, cond, "mean_velocity", s)
    assert not torch.allclose(moved, want)
    two.network.save_pretrained(tmp_path)
    again = denoiser(TextTransformer.from_pretrained(tmp_path))
    again.two_time = True
    assert torch.allclose(again.predict(x, t, cond, "mean_velocity", s), moved, atol=1e-4)
    both = with_guidance(two)
    assert both.two_time and both.network.config["two_time"]
    assert torch.allclose(
        both.predict(x, t, told(cond, 4.0, x), "mean_velocity", s), moved, atol=1e-4
    )


def test_its_derivative_along_both_times_is_exact():
    torch.manual_seed(0)
    network, cond = text_network()
    two = with_second_time(denoiser(network.double()))
    torch.nn.init.normal_(two.network.adaln_single.second_time.weight)
    x, cond = torch.randn(4, 3, 8, 8).double(), {k: v.double() for k, v in cond.items()}
    t, s, dx = torch.rand(4).double(), torch.rand(4).double(), torch.randn(4, 3, 8, 8).double()
    given = (x, t, cond, "mean_velocity", dx, torch.ones(4).double(), s)
    exact = two.jvp(*given)[1]
    near = two.jvp(*given, backend="difference")[1]
    # Its time embedding turns 1000 times as fast as t, which central differences round off.
    assert (near - exact).abs().max() < 1e-2 * exact.abs().max()


def test_guidance_without_a_place_for_it_is_refused():
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        layers_per_block=1,
    )
    with pytest.raises(ValueError, match="UNet2DModel has no input for the guidance scale"):
        with_guidance(denoiser(unet))
