"""Loss terms: small pure functions of tensors, which methods sum.

Every mean is `mean(value, mask, over)`: per sample or per frame, and safe against padding. A term
returns one value per sample (b,) unless it says otherwise; `method.loss` averages them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from genkit.paths import Kind, Path, expand

Over = Literal["sample", "frame"]
Distance = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def mean(value: Tensor, mask: Tensor | None = None, over: Over = "sample") -> Tensor:
    """The mean of value (b, ...) per sample (b,), or of (b, f, ...) per frame (b, f).

    mask: 1 for real elements, 0 for padding, its shape a prefix of value's, or broadcastable;
    padded elements count neither above nor below the line, and a fully padded row gives 0.
    """
    kept = 1 if over == "sample" else 2
    if mask is None:
        return value.flatten(kept).mean(-1) if value.ndim > kept else value
    if mask.ndim < value.ndim:
        mask = expand(mask, value)
    weight = mask.to(value.dtype).expand_as(value)
    total = (torch.where(weight > 0, value, 0) * weight).flatten(kept).sum(-1)
    return total / weight.flatten(kept).sum(-1).clamp(min=1)


def squared(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference per sample (b,)."""
    return mean((a - b) ** 2, mask)


def pseudo_huber(a: Tensor, b: Tensor, mask: Tensor | None = None, c: float = 0.03) -> Tensor:
    """sqrt(|a - b|^2 + c^2) - c on the root mean square difference (iCT, arXiv 2310.14189, eq. 8,
    with the paper's c = 0.00054 sqrt(d) divided by sqrt(d))."""
    return torch.sqrt(mean((a - b) ** 2, mask) + c**2) - c


def flow_matching(
    velocity: Tensor,
    x_0: Tensor,
    eps: Tensor,
    path: Path,
    t: Tensor,
    mask: Tensor | None = None,
    kind: Kind = "velocity",
    floor: float = 0.05,
) -> Tensor:
    """|v - (alpha' x_0 + sigma' eps)|^2 per sample (conditional flow matching, arXiv 2210.02747,
    eq. 9).

    kind: what the network predicts. The velocity of one that predicts x_0 divides by sigma, so that
    a few samples near sigma = 0 would be the whole loss: below `floor` its weight falls with
    sigma^2 (JiT, arXiv 2511.13720, sec. 4).
    """
    loss = squared(velocity, path.target(x_0, eps, t, "velocity"), mask)
    if kind != "x_0":
        return loss
    sigma = path.sigma(t)
    return loss * (sigma / sigma.clamp(min=floor)).square()


def regression(
    prediction: Tensor,
    x_0: Tensor,
    eps: Tensor,
    path: Path,
    t: Tensor,
    kind: Kind,
    mask: Tensor | None = None,
) -> Tensor:
    """|prediction - target of `kind`|^2 per sample: denoising score matching in any kind."""
    return squared(prediction, path.target(x_0, eps, t, kind), mask)


def consistency(
    here: Tensor, there: Tensor, distance: Distance, mask: Tensor | None = None
) -> Tensor:
    """d(f(x_t, t), sg f(x_s, s)) per sample (arXiv 2303.01469, eq. 7)."""
    return distance(here, there.detach(), mask)


def distribution_matching(
    x_0: Tensor,
    teacher_x_0: Tensor,
    fake_x_0: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    over: Literal["sample", "batch"] = "sample",
) -> Tensor:
    """DMD's loss per sample, whose gradient in x_0 is (D_fake - D_teacher) / normaliser.

    DMD (arXiv 2311.18828, eq. 7-8), as 1/2 |x_0 - sg(x_0 - gradient)|^2 in float64. The normaliser
    is mean |x_0 - D_teacher|, per sample, or over the batch where a sample has few elements (per
    sample it biases low dimensions). weight: h(r) per sample for an f-divergence.
    """
    clean, teacher, fake = (x.detach().double() for x in (x_0, teacher_x_0, fake_x_0))
    normaliser = mean((clean - teacher).abs(), mask)
    if over == "batch":
        normaliser = normaliser.mean().expand_as(normaliser)
    scale = 1 / normaliser.clamp(min=1e-5)
    if weight is not None:
        scale = scale * weight.double()
    gradient = torch.nan_to_num((fake - teacher) * expand(scale, fake))
    return 0.5 * squared(x_0.double(), clean - gradient, mask).to(x_0.dtype)


def adversarial_student(fake_logits: Tensor) -> Tensor:
    """Non-saturating generator loss softplus(-d(fake)) per sample (arXiv 1406.2661, sec. 3)."""
    return mean(F.softplus(-fake_logits))


def adversarial_head(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """softplus(d(fake)) + softplus(-d(real)) per sample; the positive class is REAL."""
    return mean(F.softplus(fake_logits)) + mean(F.softplus(-real_logits))
