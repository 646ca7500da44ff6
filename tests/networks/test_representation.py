"""Frozen features: oriented gradients see directions, a DINOv2 is opened from a folder."""

import math

import pytest
import torch

from genkit.networks.representation import OrientedGradients, Projector, on_grid, representation


def ramp(angle, size=8):
    """A picture that brightens towards `angle`."""
    y, x = torch.meshgrid(*[torch.arange(float(size))] * 2, indexing="ij")
    return (math.cos(angle) * x + math.sin(angle) * y)[None, None]


@pytest.mark.parametrize("k", range(9))
def test_a_ramp_is_all_in_its_own_direction(k):
    features = OrientedGradients()
    angle = (k + 0.5) * math.pi / 9
    inner = features(ramp(angle, 16)).reshape(4, 4, 9)[1:-1, 1:-1]
    want = torch.nn.functional.one_hot(torch.tensor(k), 9).float().expand(2, 2, 9)
    assert torch.allclose(inner, want, atol=1e-5)
    assert torch.allclose(features(ramp(angle + math.pi, 16)), features(ramp(angle, 16)), atol=1e-5)
    assert not torch.allclose(features(ramp(angle + 1.0, 16)), features(ramp(angle, 16)), atol=0.5)


def test_tokens_are_cells_row_by_row_and_flat_ones_are_nothing():
    picture = torch.zeros(1, 3, 8, 12)
    picture[:, 1, :4, 8:] = ramp(0.0, 4)
    tokens = representation("hog")(picture)
    assert tokens.shape == (1, 6, 27)
    assert tokens[0, 2].norm().item() == pytest.approx(1) and not tokens[0, 3].any()


def test_tokens_are_brought_to_another_grid():
    tokens = torch.arange(16.0).reshape(1, 16, 1)
    assert on_grid(tokens, 16) is tokens
    assert on_grid(tokens, 1).item() == 7.5
    assert on_grid(tokens, 4).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    with pytest.raises(ValueError, match="square"):
        on_grid(tokens, 3)


def test_a_dino_opens_from_a_folder(tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=30, patch_size=14
    )
    Dinov2Model(config).save_pretrained(tmp_path)
    net = representation(str(tmp_path))
    assert not any(p.requires_grad for p in net.parameters())
    for channels in (1, 3):
        assert net(torch.rand(2, channels, 8, 8)).shape == (2, 4, 16)
    with pytest.raises(ValueError, match="neither hog"):
        representation(str(tmp_path / "nothing"))


def test_the_projector_keeps_tokens():
    assert Projector(8, 5, 16)(torch.zeros(2, 3, 8)).shape == (2, 3, 5)
