"""Tests of genkit/acceleration/training_attention.py."""

import copy

import torch

from genkit.acceleration.training_attention import quicken_training
from genkit.networks.mlp import MLPDenoiser
from genkit.networks.text import text_transformer


def nets():
    torch.manual_seed(0)
    stock = text_transformer(3, 8, heads=2, width=8, depth=2)
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    quick = copy.deepcopy(stock)
    quicken_training(quick)
    return stock, quick


def run(net):
    rng = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 3, 8, 8, generator=rng), torch.randn(2, 5, 128, generator=rng)
    t = torch.tensor([3.0, 700.0])
    return net(x, encoder_hidden_states=text, timestep=t, return_dict=False)[0]


def test_nothing_changes_without_gradients():
    stock, quick = nets()
    with torch.no_grad():
        assert torch.equal(run(stock), run(quick))


def test_values_and_gradients_agree_with_the_fused_kernel():
    stock, quick = nets()
    a, b = run(stock), run(quick)
    assert torch.allclose(a, b, atol=1e-5)
    a.square().sum().backward()
    b.square().sum().backward()
    for mine, theirs in zip(quick.parameters(), stock.parameters(), strict=True):
        if theirs.grad is not None:
            assert torch.allclose(mine.grad, theirs.grad, rtol=1e-3, atol=1e-3)


def test_the_plain_product_is_taken_with_gradients(monkeypatch):
    _, quick = nets()
    used = []
    processor = next(iter(quick.attn_processors.values()))
    plain = processor.plain
    monkeypatch.setattr(
        processor, "plain", lambda *args, **kwargs: used.append(1) or plain(*args, **kwargs)
    )
    run(quick)
    with torch.no_grad():
        run(quick)
    assert len(used) == 4  # two blocks, two attentions each, once


def test_networks_without_attention_are_left_alone():
    quicken_training(MLPDenoiser())
