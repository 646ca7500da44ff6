"""Averages against their closed form, and in which order they follow the optimizer."""

import pytest
import torch
from torch import nn
from training_toys import Net, OneRole, one_role

from genkit.methods.base import Ema, constant, warmed
from genkit.training.ema import Average


def moving(values: list[float], rate) -> float:
    """An average begun at 0 after the weight takes these values."""
    source = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(source.weight)
    average = Average(source, Ema(rate))
    for value in values:
        with torch.no_grad():
            source.weight.fill_(value)
        average.update()
    return average.module.weight.item()


def test_average_is_the_closed_form():
    values = [3.0, -1.0, 4.0, 1.5]
    expected = sum(0.1 * 0.9 ** (3 - i) * value for i, value in enumerate(values))
    assert moving(values, constant(0.9)) == pytest.approx(expected, rel=1e-12)


def test_warmed_average_is_the_closed_form():
    expected = 0.0
    for k, value in enumerate([2.0, 5.0, -3.0], 1):
        rate = (1 + k) / (10 + k)
        expected = rate * expected + (1 - rate) * value
    assert moving([2.0, 5.0, -3.0], warmed(0.999)) == pytest.approx(expected, rel=1e-12)


def test_rate_zero_is_a_copy():
    assert moving([0.1, 0.7], constant(0.0)) == 0.7


def test_buffers_are_copied_and_frozen_weights_left():
    source = Net()
    source.layers[0].requires_grad_(False)
    average = Average(source, Ema(constant(0.9)))
    before = average.module.layers[0].weight.clone()
    source.calls += 5
    with torch.no_grad():
        source.layers[0].weight += 1
    average.update()
    assert average.module.calls == 5
    assert torch.equal(average.module.layers[0].weight, before)


def test_restart_forgets():
    source = Net()
    average = Average(source, Ema(constant(0.9)))
    with torch.no_grad():
        source.layers[0].weight += 1
    average.update()
    average.restart()
    assert average.updates == 0
    assert torch.equal(average.module.layers[0].weight, source.layers[0].weight)


def test_averages_follow_the_optimizer(tmp_path):
    """After one step the average of rate 1/2 lies half way to the STEPPED weights; an average
    updated before the optimizer would still be the start."""
    method = OneRole(ema={"export": Ema(constant(0.5)), "target": Ema(constant(0.5))}, warmup=0)
    trainer = one_role(tmp_path / "run", {"max_steps": 1}, method)
    start = [each.clone() for each in trainer.networks.nets["student"].parameters()]
    trainer.run()
    stepped = list(trainer.networks.nets["student"].parameters())
    average = list(trainer.networks.averages["student.export"].module.parameters())
    for before, after, mean in zip(start, stepped, average, strict=True):
        assert not torch.equal(before, after)
        torch.testing.assert_close(mean, (before + after) / 2)
