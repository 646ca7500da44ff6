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

from genkit.denoisers.base import Denoiser
from genkit.guidance import Cond
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
    stage's teacher. fresh_optimizer: forget the optimizers' state. lr: {role: learning rate} where
    it is not the role's own. steps: evaluations by which the student of this stage is previewed and
    judged, where it cannot yet do with those of the sampler (it is measured at those all the same).
    """

    name: str
    share: float = 1.0
    start: Mapping[str, str] = field(default_factory=dict)
    guidance: float = 1.0
    fresh_optimizer: bool = False
    new_data: bool = False
    lr: Mapping[str, float] = field(default_factory=dict)
    steps: int | None = None


@dataclass(frozen=True)
class Moment:
    """Where training is: the stage, and the student's step within it (from 0) of its steps."""

    stage: Stage
    step: int
    steps: int


def begin_student(method: Method, begin: Callable[[nn.Module], nn.Module]) -> None:
    """Let the method's student be begin(the role it would be a copy of): adapted, or another one.

    ValueError, once its roles are asked for, where it begins with a fresh network.
    """
    declared = method.nets

    def nets() -> dict[str, Role]:
        roles = dict(declared())
        start = roles["student"].start
        if start is None:
            raise ValueError(
                f"{method.name} starts from a fresh network; give neither student nor lora"
            )
        build = lambda given: begin(given[start])  # noqa: E731
        return roles | {"student": replace(roles["student"], start=None, build=build)}

    method.nets = nets  # type: ignore[method-assign]


class Roles(dict[str, Any]):
    """{role: Denoiser or module}, with averages as "<role>.<ema name>"; `turn` names the roles
    that train in this turn."""

    turn: tuple[str, ...] = ("student",)


class Method:
    """Base of all methods; a subclass is named `Method` in genkit/methods/<name>.py.

    path: the student's path. distance: a per-sample distance of the modality. latent: shape of one
    sample without the batch. uncond: the conditions of no condition, batch 1, where the modality
    has them. After construction the run sets `scheduler`, made by `hub` from `sampler()`; `sample`
    and backward simulation run it; and `levels`, those of the student's Denoiser.
    """

    family: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[tuple[Stream, ...]]
    paths: ClassVar[tuple[str, ...]] = ("rectified_flow", "trigflow", "edm", "vp", "discrete_vp")
    has_teacher: ClassVar[bool] = True
    # Whether it trains denoisers of sequences: its times have the first `levels` axes, and what it
    # noises sees the rest by `Denoiser.given`.
    framewise: ClassVar[bool] = False
    # {data set: settings that were found to serve it}, of the method, the trainer and the run.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @dataclass
    class Config:
        """The method's own settings."""

    def __init__(
        self,
        config: Any,
        path: Path,
        latent: Sequence[int],
        distance: Distance = squared,
        uncond: Cond | None = None,
    ) -> None:
        if path.name not in self.paths:
            raise ValueError(
                f"{self.name} does not take the path {path.name!r}, only {', '.join(self.paths)}"
            )
        self.config, self.path, self.latent, self.distance = config, path, tuple(latent), distance
        self.uncond = uncond
        self.scheduler: Any = None
        self.levels = 1

    @property
    def name(self) -> str:
        """The file's name, which is the method's name everywhere."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @property
    def guidance(self) -> float:
        """The teacher's scale that a method bakes in; 1 where none was given."""
        return 1.0 if self.config.guidance is None else float(self.config.guidance)

    def stages(self) -> list[Stage]:
        """The stages, in order; their shares add up to 1."""
        return [Stage("train")]

    def nets(self) -> dict[str, Role]:
        """The roles; "student" is one of them, "teacher" is given where `has_teacher`."""
        raise NotImplementedError

    def turns(self, moment: Moment) -> list[tuple[str, ...]]:
        """The turns of one student step: tuples of roles trained together, each on a new batch."""
        return [("student",)]

    def loss(self, roles: Roles, batch: Batch, moment: Moment, rng: Rng) -> Losses:
        """{"total": scalar, part: scalar, ...} of the turn `roles.turn`."""
        raise NotImplementedError

    def one_step(self, student: Denoiser, pairs: Mapping[str, Any]) -> Tensor:
        """Distance per sample (b,) of the x_0 predicted at pure noise to the pairs' own: the
        regression that ends InstaFlow and that score methods begin with."""
        t = torch.full(pairs["x_0"].shape[:1], self.path.t_max, device=pairs["x_0"].device)
        cond = student.given(pairs["x_0"], pairs["cond"], pairs["eps"])
        x_0 = student.predict(self.path.start(pairs["eps"]), t, cond, "x_0")
        return self.distance(x_0, pairs["x_0"], pairs.get("mask"))

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
