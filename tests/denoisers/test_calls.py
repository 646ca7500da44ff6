"""Calls: every network of ours has one, and an unknown class is named."""

import pytest
import torch
from torch import nn

from genkit.denoisers.calls import CALLS, class_conditional, network_call
from genkit.networks.mlp import MLPDenoiser


def test_class_conditional():
    net = MLPDenoiser(sample_size=4, width=16, depth=1, two_time=True)
    for parameter in net.parameters():  # gates and output are zero in a new network
        nn.init.normal_(parameter)
    x, t, label = torch.randn(2, 1, 4, 4), torch.tensor([10.0, 900.0]), torch.tensor([3, 10])
    call = network_call(net)
    assert call is class_conditional
    s = torch.tensor([0.0, 100.0])
    got = call(net, x, t, {"label": label}, s)
    assert torch.equal(got, net(x, t, label, second_timestep=s))
    assert not torch.equal(got, call(net, x, t, {"label": label}, t))


def test_unknown_class_is_named():
    with pytest.raises(ValueError, match="no call is known for Linear; known: .*MLPDenoiser"):
        network_call(nn.Linear(1, 1))
    assert "MLPDenoiser" in CALLS
