"""The discriminator head: logits of named features, one per feature, in float32; the weight."""

import math

import torch

from genkit.networks.head import FeatureHead, LogWeight


def test_one_logit_per_feature_averaged_over_tokens():
    head = FeatureHead({"a": 8, "b.c": 4}, hidden=6)
    features = {"a": torch.randn(3, 5, 8), "b.c": torch.randn(3, 1, 4)}
    logits = head(features)
    assert logits.shape == (3, 2)
    by_hand = head.heads[0](features["a"]).mean((1, 2))
    assert torch.allclose(logits[:, 0], by_hand)
    alone = head({**features, "b.c": torch.zeros(3, 1, 4)})
    assert torch.equal(alone[:, 0], logits[:, 0]) and not torch.equal(alone[:, 1], logits[:, 1])


def test_logits_are_float32_under_autocast():
    head = FeatureHead({"a": 8})
    with torch.autocast("cpu", torch.bfloat16):
        assert head({"a": torch.randn(2, 1, 8)}).dtype == torch.float32


def test_a_log_weight_begins_at_0_and_follows_smooth_functions_of_the_angle():
    net, angle = LogWeight(), torch.linspace(0, math.pi / 2, 200)
    assert (net(angle) == 0).all()
    basis = torch.cos(2 * angle[:, None] * net.order)
    want = 2 * torch.exp(-angle) + torch.sin(angle)
    net.scale.data = torch.linalg.lstsq(basis, want[:, None]).solution[:, 0]
    assert (net(angle) - want).abs().max() < 0.05


def test_a_head_of_several_classes_has_a_logit_for_each():
    features = {"a": torch.randn(3, 5, 8), "b": torch.randn(3, 1, 4)}
    head = FeatureHead({"a": 8, "b": 4}, classes=6)
    logits = head(features)
    assert logits.shape == (3, 2, 6)
    tokens = torch.stack([head({**features, "a": features["a"][:, i : i + 1]}) for i in range(5)])
    assert torch.allclose(logits, tokens.mean(0), atol=1e-6)
    assert FeatureHead({"a": 8, "b": 4})(features).shape == (3, 2)
