"""What a Method is: named losses over named networks, as plain data for the Trainer.

A method is one file with one class `Method` derived from `Method` here, and its `Config`. It says
which roles exist (`nets`), which of them train together in what order (`turns`), in which stages,
and what a turn's loss is. The Trainer owns optimizers, EMAs, checkpoints and devices; the method
owns nothing but its config, its path, its sampler and, rarely, state (`state_dict`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from genkit.denoisers.base import Denoiser, Guided, NetworkDenoiser
from genkit.guidance import Cond, told
from genkit.networks.head import FeatureHead
from genkit.paths import Path
from genkit.rng import Rng
from genkit.sampling import Generators, Sampler
from genkit.terms import Distance, squared

Stream = Literal["data", "prompts", "pairs", "paths"]
Batch = Mapping[str, Mapping[str, Any]]
Losses = dict[str, Tensor]
Rate = Callable[[int], float]


@dataclass(frozen=True)
class Ema:
    """An exponential moving average of a role's weights, updated after its optimizer steps.

    rate(k) is the share of the old average kept at the role's k-th update (from 1).
    """

    rate: Rate


def warmed(rate: float) -> Rate:
    """min(rate, (1 + k) / (10 + k)): a short memory while there is little to remember."""
    return lambda k: min(rate, (1 + k) / (10 + k))


def constant(rate: float) -> Rate:
    """The same rate at every update."""
    return lambda k: rate


@dataclass(frozen=True)
class Role:
    """One named network of a method.

    start: the role whose weights (and network class) it begins with, "teacher" among them, or None
    for a fresh network, made by `build(given)` when given, else by the run's own network builder.
    `given` is the mapping of the roles made so far. change: what is made of the network it begins
    with, such as one with a second time input. ema: {name: Ema}; "export" is what is sampled,
    measured and delivered, the others can be read in `loss` as roles["<role>.<name>"].
    """

    start: str | None = None
    build: Callable[[Mapping[str, nn.Module]], nn.Module] | None = None
    change: Callable[[nn.Module], nn.Module] | None = None
    trainable: bool = True
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float | None = 1.0
    warmup: int = 0
    decay: bool = False
    ema: Mapping[str, Ema] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A part of training. `steps` counts the student's turns; share is of the run's max_steps.

    start: {role: role} copies weights at the stage's beginning. guidance: the teacher's w in this
    stage, for its predictions and for the pairs made from it. new_data: make pairs anew from this
    stage's teacher. points: how many points of the teacher's ODE the pairs keep, at the grid of as
    many steps: pairs["path"] = {"x_t": (b, points, ...), "t": (b, points)}. fresh_optimizer: forget
    the optimizers' state. lr: {role: learning rate} where it is not the role's own. steps:
    evaluations by which the student of this stage is previewed and judged, where it cannot yet do
    with those of the sampler (it is measured at those all the same).
    """

    name: str
    share: float = 1.0
    start: Mapping[str, str] = field(default_factory=dict)
    guidance: float = 1.0
    fresh_optimizer: bool = False
    new_data: bool = False
    points: int = 0
    lr: Mapping[str, float] = field(default_factory=dict)
    steps: int | None = None


@dataclass(frozen=True)
class Moment:
    """Where training is: the stage, and the student's step within it (from 0) of its steps."""

    stage: Stage
    step: int
    steps: int


def scale_range(low: float, high: float | None, own: float) -> tuple[float, float]:
    """The range of guidance scales a student is taught, whose middle is by default its own scale.

    ValueError for one that its own scale lies outside of, at which it would be sampled untrained.
    """
    high = max(2 * own - low, low) if high is None else high
    if not low <= own <= high:
        raise ValueError(
            f"guidance is {own:g}, outside the range {low:g} to {high:g} that the student is to "
            "learn; widen guidance_low and guidance_high, or give another guidance"
        )
    return low, high


@dataclass
class Config:
    """The settings that every method has; its own `Config` derives from this."""

    lr: float = 1e-3
    """Student's learning rate at the start, decayed to 0."""
    warmup: int = 50
    """Steps over which it rises."""
    weight_decay: float = 0.0
    """AdamW's weight decay of the student."""
    ema: float = 0.999
    """Rate of the average that is sampled and delivered."""

    def take_teacher(self, guidance: float, sampler: Sampler, resized: bool) -> None:
        """Take from the teacher what was left to it (None): its guidance, or how it samples.
        resized: whether the student is of another size, and so begins with fresh weights."""


@dataclass
class Distillation(Config):
    """Those of a method whose teacher may be guided."""

    guidance: float | None = None
    """The teacher's guidance, baked into the student; by default the teacher's own."""

    def take_teacher(self, guidance: float, sampler: Sampler, resized: bool) -> None:
        super().take_teacher(guidance, sampler, resized)
        if self.guidance is None:
            self.guidance = guidance


@dataclass
class Sampled(Config):
    """Those of a method whose student samples as its teacher does."""

    steps: int | None = None
    """Evaluations of the finished student; by default the teacher's."""
    times: tuple[float, ...] = ()
    """Noise levels of those evaluations; by default, with the teacher's steps, the teacher's grid,
    where it has one."""

    def take_teacher(self, guidance: float, sampler: Sampler, resized: bool) -> None:
        super().take_teacher(guidance, sampler, resized)
        if self.steps is None:
            self.steps, self.times = sampler.steps, self.times or sampler.times or ()


def begin_student(
    method: Method,
    begin: Callable[[nn.Module], nn.Module],
    adapt: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> None:
    """Let the method's student be begin(the role it would be a copy of), then changed as its role
    says, then adapted: an earlier student, given a second time, say, and then low-rank adapters.

    ValueError, once its roles are asked for, where it begins with a fresh network.
    """
    declared = method.nets

    def nets() -> dict[str, Role]:
        roles = dict(declared())
        start, change = roles["student"].start, roles["student"].change
        if start is None:
            raise ValueError(
                f"{method.name} starts from a fresh network; give neither student nor lora"
            )

        def build(given: Mapping[str, nn.Module]) -> nn.Module:
            network = begin(given[start])
            return adapt(network if change is None else change(network))

        student = replace(roles["student"], start=None, build=build, change=None)
        return roles | {"student": student}

    method.nets = nets  # type: ignore[method-assign]


def teacher_name(i: int) -> str:
    """The role of the i-th teacher; the first is "teacher"."""
    return f"teacher_{i}" if i else "teacher"


class Roles(dict[str, Any]):
    """{role: Denoiser or module}, with averages as "<role>.<ema name>"; `turn` names the roles
    that train in this turn."""

    turn: tuple[str, ...] = ("student",)


class Method:
    """Base of all methods; a subclass is named `Method` in genkit/methods/<name>.py.

    path: the student's path. distance: a per-sample distance of the modality. latent: shape of one
    sample without the batch. uncond: the conditions of no condition, batch 1, where the modality
    has them. decode: samples as what they stand for, pictures of latents, with gradient. After
    construction the run sets `scheduler`, made by `hub` from `sampler()`; `sample` and backward
    simulation run it. It sets `levels`, those of the student's Denoiser, and `teachers` too, how
    many there are; they are the roles `teacher_name(0)` and on.
    """

    family: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[tuple[Stream, ...]]
    paths: ClassVar[tuple[str, ...]] = ("rectified_flow", "trigflow", "edm", "vp", "discrete_vp")
    # What the teacher's network may predict.
    kinds: ClassVar[tuple[str, ...]] = ("velocity", "x_0", "eps", "v_prediction")
    has_teacher: ClassVar[bool] = True
    merges: ClassVar[bool] = False  # whether it takes several teachers
    # Whether training does not depend on `config.steps`: one student takes any number of steps.
    any_steps: ClassVar[bool] = False
    # Whether it trains denoisers of sequences: its times have the first `levels` axes, and what it
    # noises sees the rest by `Denoiser.given`.
    framewise: ClassVar[bool] = False
    # Settings of the trainer and the run that differ from theirs. What serves a data set stands
    # with the data (genkit.data.presets).
    defaults: ClassVar[Mapping[str, Any]] = {}

    Config: ClassVar[type] = Config

    def __init__(
        self,
        config: Any,
        path: Path,
        latent: Sequence[int],
        distance: Distance = squared,
        uncond: Cond | None = None,
        decode: Callable[[Tensor], Tensor] = lambda latents: latents,
    ) -> None:
        if path.name not in self.paths:
            raise ValueError(
                f"{self.name} does not take the path {path.name!r}, only {', '.join(self.paths)}"
            )
        self.config, self.path, self.latent, self.distance = config, path, tuple(latent), distance
        self.uncond, self.decode = uncond, decode
        self.scheduler: Any = None
        self.teachers, self.levels = 1, 1

    @property
    def name(self) -> str:
        """The file's name, which is the method's name everywhere."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @property
    def guidance(self) -> float:
        """The teacher's scale that a method bakes in; 1 where none was given."""
        return 1.0 if self.config.guidance is None else float(self.config.guidance)

    @classmethod
    def fresh(cls, config: Any, bare: NetworkDenoiser) -> Denoiser:
        """An untrained network, given on rectified flow, as this method trains one: on its own path
        or prior, preconditioned or not."""
        return bare

    @property
    def embedded_guidance(self) -> float | None:
        """The scale cond["w"] that a student with an input for it is sampled and delivered with;
        None for one that has no such input."""
        return None

    def guided(self, teacher: Denoiser, w: Tensor) -> Denoiser:
        """The teacher with a scale for each sample, w (b,), instead of its stage's."""
        if not self.uncond:
            return teacher
        uncond = {name: value.to(w.device) for name, value in self.uncond.items()}
        return Guided(teacher.unguided, w, uncond)

    def stages(self) -> list[Stage]:
        """The stages, in order; their shares add up to 1."""
        return [Stage("train")]

    def nets(self) -> dict[str, Role]:
        """The roles; "student" is one of them, "teacher" is given where `has_teacher`."""
        return {"student": self.student()}

    def student(self, ema: Mapping[str, Ema] | None = None, **given: Any) -> Role:
        """The student's role as the settings say: the teacher's copy where there is one, with
        averages and other fields besides."""
        config, start = self.config, "teacher" if self.has_teacher else None
        averages = {"export": Ema(warmed(config.ema)), **(ema or {})}
        rates = {"lr": config.lr, "warmup": config.warmup, "weight_decay": config.weight_decay}
        return Role(start, decay=True, ema=averages, **rates, **given)

    def turns(self, moment: Moment) -> list[tuple[str, ...]]:
        """The turns of one student step: tuples of roles trained together, each on a new batch."""
        return [("student",)]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        """{"total": scalar, part: scalar, ...} of the turn `roles.turn`."""
        raise NotImplementedError

    def first_frames(self, data: Mapping[str, Any], share: float, rng: Rng) -> dict[str, Any]:
        """data; in a `share` of batches, its sequences (b, f, ...) as b f of one frame. A sequence
        has but one frame with nothing before it, and what that lacks all later ones lack."""
        assert share == 0 or self.levels > 1, "only sequences have frames"
        if not rng.chance(share):
            return dict(data)
        flat = {name: data[name] for name in ("x_0", "mask") if name in data}
        apart, cond = (
            {name: value.flatten(0, 1)[:, None] for name, value in part.items()}
            for part in (flat, data["cond"])
        )
        return {**data, **apart, "cond": cond}

    def learned(self, data: Mapping[str, Any]) -> Tensor | None:
        """Weights (b,) of mean 1 that leave out sequences with a frame that is not learned; None
        where all are."""
        if self.levels == 1 or "mask" not in data:
            return None
        whole = data["mask"].flatten(1).amin(1)
        return whole / whole.mean().clamp(min=1 / len(whole))

    def one_step(self, student: Denoiser, pairs: Mapping[str, Any]) -> Tensor:
        """Distance per sample (b,) of the x_0 predicted at pure noise to the pairs' own: the
        regression that ends InstaFlow and that score methods begin with."""
        seen = student.given(pairs["x_0"], pairs["cond"], pairs["eps"])
        x_0 = self.at_once(student, {**pairs, "cond": seen})
        return self.distance(x_0, pairs["x_0"], pairs.get("mask"))

    def at_once(self, student: Denoiser, pairs: Mapping[str, Any]) -> Tensor:
        """The x_0 (b, ...) that the student predicts of the pairs' pure noise."""
        t = torch.full(pairs["eps"].shape[:1], self.path.t_max, device=pairs["eps"].device)
        return student.predict(self.path.start(pairs["eps"]), t, pairs["cond"], "x_0")

    def blank(self, network: nn.Module) -> tuple[Tensor, Tensor, Cond]:
        """(x_t, t, cond) of one sample of nothing, where the network is: what its features are
        shaped like can be seen with it."""
        where = next(network.parameters()).device
        cond = {name: value.to(where) for name, value in (self.uncond or {}).items()}
        t = torch.full((1,), self.path.t_max, device=where)
        return torch.zeros(1, *self.latent, device=where), t, cond

    def head_on(self, network: nn.Module, names: Sequence[str], classes: int = 1) -> FeatureHead:
        """A fresh discriminator head on the outputs of these submodules of a network."""
        assert isinstance(network, Denoiser)
        with torch.no_grad():
            _, features = network.trace(*self.blank(network), network.kind, names)
        widths = {name: each.shape[-1] for name, each in features.items()}
        return FeatureHead(widths, classes=classes)

    def sampler(self) -> Sampler:
        """How the student samples, as plain data."""
        raise NotImplementedError

    def sample(
        self,
        student: Denoiser,
        noise: Tensor,
        cond: Mapping[str, Tensor],
        steps: int | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Samples from unit noise (b, ...), by the scheduler that will be exported."""
        if self.embedded_guidance is not None:
            cond = told(cond, self.embedded_guidance, noise)
        with torch.no_grad():
            return student.sample(
                noise, cond, self.scheduler, steps or self.sampler().steps, generator
            )

    def deliver(self, nets: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """The parts of the delivered pipeline, from the export averages {role: module}."""
        return {"network": nets["student"]}

    def state_dict(self) -> dict[str, Tensor]:
        """What the method itself must remember over a resume."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back `state_dict`."""
        assert not state, f"{self.name} keeps no state but was given {list(state)}"
