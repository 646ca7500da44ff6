"""Loss terms: small pure functions of tensors, which methods sum.

Every mean is `mean(value, mask, over)`: per sample or per frame, and safe against padding. A term
returns one value per sample (b,) unless it says otherwise; `method.loss` averages them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from genkit.denoisers.base import Backend, Denoiser
from genkit.denoisers.repathed import Repathed
from genkit.guidance import Cond
from genkit.paths import Kind, Path, TrigFlow, expand, wide

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


def huber(a: Tensor, b: Tensor, mask: Tensor | None = None, c: float = 1e-3) -> Tensor:
    """mean(sqrt((a - b)^2 + c^2) - c) per sample: `pseudo_huber` of each element (LCM's code)."""
    return mean(torch.sqrt((a - b) ** 2 + c**2) - c, mask)


def pseudo_huber_by_frame(
    a: Tensor, b: Tensor, mask: Tensor | None = None, c: float = 0.03
) -> Tensor:
    """`pseudo_huber` of every frame of (b, f, ...), the mean of them per sample (b,): frames at
    noise levels of their own each have a norm of their own. A frame of padding counts not."""
    frames = torch.sqrt(mean((a - b) ** 2, mask, "frame") + c**2) - c
    kept = None if mask is None else mask.flatten(2).amax(-1) if mask.ndim > 2 else mask
    return mean(frames, kept)


FLOOR = 0.05  # the sigma below which the velocity of a prediction of x_0 weighs no more


def velocity_weight(sigma: Tensor, kind: Kind, floor: float = FLOOR) -> Tensor:
    """What a squared error of the velocity weighs at sigma (b,), where a network predicts `kind`.

    The velocity of one that predicts x_0 divides by sigma, so that a few samples near sigma = 0
    would be the whole loss: below `floor` its weight falls with sigma^2 (JiT, arXiv 2511.13720,
    sec. 4). All others weigh 1.
    """
    if kind != "x_0":
        return torch.ones_like(sigma)
    return (sigma / sigma.clamp(min=floor)).square()


def flow_matching(
    velocity: Tensor,
    x_0: Tensor,
    eps: Tensor,
    path: Path,
    t: Tensor,
    mask: Tensor | None = None,
    kind: Kind = "velocity",
    floor: float = FLOOR,
) -> Tensor:
    """|v - (alpha' x_0 + sigma' eps)|^2 per sample (conditional flow matching, arXiv 2210.02747,
    eq. 9), with `velocity_weight` for what the network predicts; t (b,), or (b, f) by frames."""
    error = (velocity - path.target(x_0, eps, t, "velocity")) ** 2
    weight = velocity_weight(path.sigma(t), kind, floor).to(error.dtype)
    return mean(error * expand(weight, error), mask)


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


def line_x_0(x_t: Tensor, t: Tensor, x_s: Tensor, s: Tensor, path: Path) -> Tensor:
    """The x_0 for which one DDIM step from x_t at t gives x_s at s: two points on a path hold
    x_0 and eps (progressive distillation, arXiv 2202.00512, alg. 2)."""
    wide_t, wide_s = wide(t), wide(s)
    sigma_t, sigma_s = path.sigma(wide_t), path.sigma(wide_s)
    scale = sigma_t * path.alpha(wide_s) - sigma_s * path.alpha(wide_t)
    on_s, on_t = (expand((c / scale).to(x_t.dtype), x_t) for c in (sigma_t, sigma_s))
    return on_s * x_s - on_t * x_t


def consistency_tangent(
    x_t: Tensor, velocity: Tensor, slope: Tensor, moved: Tensor, t: Tensor, r: float
) -> Tensor:
    """cos(t) df/dt of TrigFlow's consistency function f = cos(t) x - sin(t) v along dx/dt = slope,
    which is where sCM's loss pulls v (arXiv 2410.11081, eq. 6 and sec. 4.2).

    moved: cos(t) sin(t) dv/dt, the rearranged derivative. r: how much of the part that holds it is
    let in, from 0 to 1 in the warm-up; below 1 the exact consistency function is not at rest.
    """
    cos, sin = (
        expand(each.to(x_t.dtype), x_t) for each in (torch.cos(wide(t)), torch.sin(wide(t)))
    )
    return -(cos**2) * (velocity - slope) - r * (cos * sin * x_t + moved)


def trig_tangent(
    student: Denoiser,
    teacher: Denoiser,
    trig: TrigFlow,
    x_t: Tensor,
    t: Tensor,
    cond: Cond,
    r: float,
    derivative: Backend,
) -> tuple[Tensor, Tensor]:
    """(the student's velocity on TrigFlow with gradient, its `consistency_tangent` without), both
    (b, ...), for x_t and t (b,) of TrigFlow and denoisers on any path (sCM, arXiv 2410.11081, alg.
    1, and rCM, arXiv 2510.08431)."""
    with torch.no_grad():
        slope = Repathed(teacher, trig).predict(x_t, t, cond, "velocity")
    rate = (torch.cos(wide(t)) * torch.sin(wide(t))).to(t.dtype)
    dx = expand(rate.to(x_t.dtype), x_t) * slope
    velocity, moved = Repathed(student, trig).jvp(
        x_t, t, cond, "velocity", dx, rate, backend=derivative
    )
    return velocity, consistency_tangent(x_t, velocity.detach(), slope, moved.detach(), t, r)


def normalised(tangent: Tensor, mask: Tensor | None = None, c: float = 0.1) -> Tensor:
    """tangent / (its root mean square per sample + c) (arXiv 2410.11081, sec. 4.2, whose norm is a
    sum over elements)."""
    size = torch.sqrt(mean(tangent**2, mask))
    return tangent / expand(size + c, tangent)


def toward(
    prediction: Tensor, tangent: Tensor, log_weight: Tensor, mask: Tensor | None = None
) -> Tensor:
    """e^w |prediction - sg(prediction + tangent)|^2 - w per sample: a step along the tangent, with
    a learned weight w (arXiv 2410.11081, eq. 8)."""
    error = squared(prediction, (prediction + tangent).detach(), mask)
    return torch.exp(log_weight) * error - log_weight


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


def score_identity(
    x_0: Tensor,
    teacher_x_0: Tensor,
    fake_x_0: Tensor,
    alpha: float,
    mask: Tensor | None = None,
    over: Literal["sample", "batch"] = "sample",
) -> Tensor:
    """SiD's loss Delta ((D_teacher - x_0) - alpha Delta) / normaliser per sample, with
    Delta = D_teacher - D_fake (arXiv 2404.04057, eq. 23).

    Differentiable in all three: the predictions must carry their gradient in x_t, and then alpha =
    0.5 gives half the gradient of E |Delta|^2, alpha = 1 half of that with x_t's distribution held
    fixed. The normaliser is as in `distribution_matching`.
    """
    delta = teacher_x_0 - fake_x_0
    normaliser = mean((x_0 - teacher_x_0).detach().abs(), mask)
    if over == "batch":
        normaliser = normaliser.mean().expand_as(normaliser)
    product = delta * (teacher_x_0 - x_0 - alpha * delta)
    return mean(product, mask) / normaliser.clamp(min=1e-5)


@dataclass(frozen=True)
class Divergence:
    """D_f(q | p) = E_p[f(q / p)] of teacher q and student p; `weight` is h(r) = r^2 f''(r), and
    `d_weight` its derivative.

    Its gradient in the student's samples is -E_p[h(r) (s_q - s_p) dx] (f-distill, arXiv 2502.15681,
    theorem 1), so h is what `distribution_matching` takes as its weight; its decay along the noise
    is E_p[h(r) |s_q - s_p|^2], the integrand of `expanded_divergence`.
    """

    f: Callable[[Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]
    d_weight: Callable[[Tensor], Tensor]


# arXiv 2502.15681, table 1, with r = q / p; Pearson's is not in the authors' code.
DIVERGENCES: dict[str, Divergence] = {
    "reverse_kl": Divergence(lambda r: -torch.log(r), torch.ones_like, torch.zeros_like),
    "forward_kl": Divergence(lambda r: r * torch.log(r), lambda r: r, torch.ones_like),
    "js": Divergence(
        lambda r: r * torch.log(r) - (r + 1) * torch.log((r + 1) / 2),
        lambda r: r / (1 + r),
        lambda r: 1 / (1 + r) ** 2,
    ),
    "softened_rkl": Divergence(
        lambda r: (r + 1) * torch.log((r + 1) / (2 * r)),
        lambda r: 1 / (1 + r),
        lambda r: -1 / (1 + r) ** 2,
    ),
    "jeffreys": Divergence(lambda r: (r - 1) * torch.log(r), lambda r: 1 + r, torch.ones_like),
    "hellinger": Divergence(
        lambda r: 1 - torch.sqrt(r), lambda r: torch.sqrt(r) / 4, lambda r: 1 / (8 * torch.sqrt(r))
    ),
    "neyman": Divergence(lambda r: (1 - r) ** 2 / r, lambda r: 2 / r, lambda r: -2 / r**2),
    "pearson": Divergence(lambda r: (r - 1) ** 2, lambda r: 2 * r**2, lambda r: 4 * r),
}


def expanded_divergence(
    x_0: Tensor,
    teacher_x_0: Tensor,
    fake_x_0: Tensor,
    ratio: Tensor,
    divergence: Divergence,
    mask: Tensor | None = None,
    over: Literal["sample", "batch"] = "sample",
) -> Tensor:
    """A loss per sample whose gradient is that of E_p[h(r) |Delta|^2] / normaliser, with
    Delta = D_teacher - D_fake: Uni-Instruct's (arXiv 2505.20755).

    (h - r h') |Delta|^2 + 2 h Delta (D_fake - x_0): the gradient of the first weight is the DI
    term, that of |Delta|^2 the Fisher term, that of the rest, h included, the SIM term. All three
    predictions and the ratio r = teacher / student (b,) must carry their gradient in x_t, and the
    networks none in their weights. The normaliser is as in `distribution_matching`. For reverse KL
    it is twice `score_identity` at alpha = 0.5.
    """
    delta = teacher_x_0 - fake_x_0
    normaliser = mean((x_0 - teacher_x_0).detach().abs(), mask)
    if over == "batch":
        normaliser = normaliser.mean().expand_as(normaliser)
    h = divergence.weight(ratio)
    moved = (h - ratio * divergence.d_weight(ratio)) * mean(delta**2, mask)
    kept = 2 * h * mean(delta * (fake_x_0 - x_0), mask)
    return (moved + kept) / normaliser.clamp(min=1e-5)


def adversarial_student(fake_logits: Tensor) -> Tensor:
    """Non-saturating generator loss softplus(-d(fake)) per sample (arXiv 1406.2661, sec. 3)."""
    return mean(F.softplus(-fake_logits))


def adversarial_head(
    real_logits: Tensor, fake_logits: Tensor, real_weight: Tensor | None = None
) -> Tensor:
    """softplus(d(fake)) + softplus(-d(real)) per sample; the positive class is REAL. real_weight:
    (b,), of mean 1, how much each real one counts."""
    real = mean(F.softplus(-real_logits))
    return mean(F.softplus(fake_logits)) + (real if real_weight is None else real_weight * real)


def hinge_head(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """max(0, 1 - d(real)) + max(0, 1 + d(fake)) per sample (arXiv 1705.02894, eq. 4)."""
    return mean(F.relu(1 - real_logits)) + mean(F.relu(1 + fake_logits))


def hinge_student(fake_logits: Tensor) -> Tensor:
    """-d(fake) per sample, the other side of `hinge_head`."""
    return -mean(fake_logits)


def gradient_penalty(logits: Tensor, features: Mapping[str, Tensor]) -> Tensor:
    """R1, 1/2 |d logits / d features|^2 per sample of real data (arXiv 1801.04406, eq. 9), in what
    the head reads (ADD, arXiv 2311.17042, sec. 3.2): the network below needs no second derivative.

    features: {name: (b, tokens, d)} that require gradients; logits (b, heads) of them.
    """
    slopes = torch.autograd.grad(logits.sum(), list(features.values()), create_graph=True)
    return 0.5 * sum((slope.float().flatten(1) ** 2).sum(1) for slope in slopes)  # type: ignore[return-value]
