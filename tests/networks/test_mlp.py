"""MLPDenoiser: shapes, save and load, two times, and what its inputs do."""

import pytest
import torch
from torch import nn

from genkit.networks.mlp import MLPDenoiser


def build(**config) -> MLPDenoiser:
    torch.manual_seed(0)
    return MLPDenoiser(**{"sample_size": 4, "width": 16, "depth": 2, **config})


def awake(net: MLPDenoiser) -> MLPDenoiser:
    """Zero-initialised layers given weights, as training would."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


def inputs(n: int = 3, channels: int = 1):
    x = torch.randn(n, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    return x, torch.linspace(10, 990, n), torch.arange(n)


@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_start(channels):
    x, t, label = inputs(channels=channels)
    out = build(in_channels=channels)(x, t, label)
    assert out.shape == x.shape and (out == 0).all(), "a new network predicts zero"


@pytest.mark.parametrize("patch", [None, 2])
def test_every_input_matters(patch):
    net, (x, t, label) = awake(build(patch=patch)), inputs()
    base = net(x, t, label)
    for other in (net(x + 1, t, label), net(x, t + 5, label), net(x, t, label + 1)):
        assert ((base - other).flatten(1).abs().max(1).values > 1e-4).all()
    rows = torch.cat([net(x[i : i + 1], t[i : i + 1], label[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(rows, base, atol=1e-5, rtol=1e-5)


def test_no_class_is_the_last_label():
    net, (x, t, _) = awake(build(num_classes=4)), inputs()
    assert net(x, t, torch.full((3,), 4)).shape == x.shape
    with pytest.raises(IndexError):
        net(x, t, torch.full((3,), 5))


def test_time_is_told_apart_and_smooth():
    """Neighbouring network times differ, and the derivative agrees with a difference quotient."""
    net, (x, _, label) = awake(build()).double(), inputs(2)
    x, t = x.double(), torch.tensor([0.0, 500.0]).double()
    assert (net(x, t, label) - net(x, t + 1, label)).abs().max() > 1e-4
    ones = torch.ones(2).double()
    _, slope = torch.func.jvp(lambda time: net(x, time, label), (t,), (ones,))
    quotient = (net(x, t + 0.5, label) - net(x, t - 0.5, label)) / 1.0
    assert (slope - quotient).abs().max() < 1e-3 * slope.abs().max()


def test_two_time_starts_as_the_one_time_network():
    one, two = awake(build()), build(two_time=True)
    missing = two.load_state_dict(one.state_dict(), strict=False)
    assert missing.missing_keys == ["second_time.weight"] and not missing.unexpected_keys
    x, t, label = inputs()
    assert torch.equal(two(x, t, label, second_timestep=t * 0.3), one(x, t, label))
    nn.init.normal_(two.second_time.weight)
    assert torch.equal(two(x, t, label, second_timestep=t), one(x, t, label)), "at s = t too"
    assert not torch.equal(two(x, t, label, second_timestep=t * 0.3), one(x, t, label))


def test_save_and_load(tmp_path):
    net, (x, t, label) = awake(build(two_time=True)), inputs()
    net.save_pretrained(tmp_path)
    again = MLPDenoiser.from_pretrained(tmp_path)
    names = ("in_channels", "sample_size", "width", "depth", "num_classes", "two_time")
    assert {n: again.config[n] for n in names} == {n: net.config[n] for n in names}
    out = net(x, t, label, second_timestep=t / 2)
    assert torch.equal(again(x, t, label, second_timestep=t / 2), out)


def test_gradients_reach_every_parameter():
    net, (x, t, label) = awake(build(two_time=True)), inputs()
    net(x, t, label, second_timestep=t / 2).square().sum().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert not silent


def test_patches_see_each_other_and_come_back_in_place():
    from genkit.networks.mlp import _patches, _picture

    x, t, label = inputs(channels=3)
    cut = _patches(x, 2)
    assert cut.shape == (3, 4, 12) and torch.equal(cut[:, 1, :2], x[:, 0, 0, 2:4])
    assert torch.equal(_picture(cut, x, 2), x)
    net, (x, t, label) = awake(build(patch=2)), inputs()
    moved = x.clone()
    moved[:, :, 0, 0] += 1
    assert ((net(moved, t, label) - net(x, t, label)).abs() > 1e-6).all()
