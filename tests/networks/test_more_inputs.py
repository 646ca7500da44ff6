"""A network given a second time begins as it was, and says so where it cannot."""

import pytest
import torch
from diffusers import UNet2DModel

from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.networks.mlp import MLPDenoiser
from genkit.networks.second_time import with_second_time
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
