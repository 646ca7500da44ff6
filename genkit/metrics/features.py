"""Feature networks: what Frechet distance, KID, precision and recall look through.

Inception knows photographs, not 8x8 digits, so the digits have a small classifier of their own,
trained by scripts/train_digits_features.py on the train split; weights and the record of that
training lie beside this file. Its features are the 48 numbers before the last nonlinearity,
shifted and scaled to mean 0 and variance 1 over the train split. So a Frechet distance of d = 48
is as far as two sets can be with the same covariance and means one standard deviation apart.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

DIGITS_WEIGHTS = Path(__file__).parent / "digits_features.safetensors"
DIGITS_RECORD = DIGITS_WEIGHTS.with_suffix(".json")


class FeatureNet(nn.Module):
    """A convolutional classifier whose last hidden layer is the feature space.

    Takes square images (n, 1, size, size) in [-1, 1]; `dim` features, `num_classes` classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int = 8, dim: int = 48, num_classes: int = 10, width: int = 16):
        super().__init__()
        self.shape = (1, size, size)
        self.trunk = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.GELU(),
            nn.AvgPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(2 * width * (size // 2) ** 2, dim),
        )
        self.head = nn.Sequential(nn.GELU(), nn.Linear(dim, num_classes))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Class logits, (n, num_classes)."""
        return self.head(self.trunk(x))

    @torch.no_grad()
    def standardise_on(self, x: Tensor) -> None:
        """Make `features` have mean 0 and variance 1 on these images."""
        hidden = self.trunk(x)
        self.mean.copy_(hidden.mean(0))
        self.std.copy_(hidden.std(0))

    def features(self, x: Tensor) -> Tensor:
        """Standardised features, (n, dim) float32, no gradient."""
        return self._in_parts(x, lambda part: (self.trunk(part) - self.mean) / self.std)

    def classify(self, x: Tensor) -> Tensor:
        """The likeliest class of each image, (n,) int64."""
        return self._in_parts(x, lambda part: self(part).argmax(1))

    @torch.no_grad()
    def _in_parts(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"images must be (n, *{self.shape}), these are {tuple(x.shape)}")
        x = x.to(self.mean.device, self.mean.dtype)
        return torch.cat([function(part) for part in x.split(1024)])


def digits_features() -> FeatureNet:
    """The classifier of digits that ships with genkit, frozen, in eval mode."""
    from safetensors.torch import load_file

    net = FeatureNet()
    net.load_state_dict(load_file(DIGITS_WEIGHTS))
    return net.eval().requires_grad_(False)


def digits_features_record() -> dict:
    """How the classifier of digits was made: command, seed, accuracy."""
    return json.loads(DIGITS_RECORD.read_text(encoding="utf-8"))
