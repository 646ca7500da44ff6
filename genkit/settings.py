"""A run's settings: keyword arguments sorted into the dataclasses they belong to.

Three dataclasses hold every setting, and all their names differ: the method's own `Config`, the
trainer's `TrainerConfig`, and `RunConfig` here, which is what lies around training. The command
line makes its flags from the same three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from genkit import data
from genkit.catalogue import unknown
from genkit.training.config import TrainerConfig, check_precision

if TYPE_CHECKING:
    from genkit.sampling import Sampler


@dataclass
class RunConfig:
    """What is made for training, and how the result is judged."""

    size: int = 32
    """Pixels of a side, to which pictures of your own are brought for a teacher; students take
    their teacher's."""
    decoder: str = ""
    """A folder with a trained decoder of samples (of speech a vocoder, of music a codec), with
    which a teacher's pipeline is to leave; its students keep it."""
    lora: int | None = None
    """Train low-rank adapters of this rank, left as an adapter file and merged; by default the
    whole network is trained."""
    student_size: tuple[str, ...] = ()
    """A fresh student of the teacher's class, but for these numbers of its config: width=96 depth=2
    of a small one of the digits, num_layers=3 of a transformer."""
    pairs: int = 8192
    """How many pairs (noise, teacher sample) are made where a method asks for them."""
    pair_steps: int = 16
    """The teacher's steps for pairs and for the comparison during training."""
    pair_order: int = 3
    """Order of the Adams-Bashforth solver that takes them; 1 is Euler, which needs more of them."""
    pair_precision: Literal["no", "bf16"] = "no"
    """bf16 makes pairs in bfloat16 where that is safe, for a transformer twice as fast."""
    teacher_data: bool = False
    """Use teacher samples as data where a method needs data."""
    measure_n: int = 1000
    """Samples per measurement during training."""
    evaluate_n: int = 1000
    """Samples per seed in the evaluation at the end; 0 leaves it out."""
    evaluate_seeds: tuple[int, ...] = (0, 1)
    """Seeds of that evaluation."""
    evaluate_steps: tuple[int, ...] = (1, 2, 4, 50)
    """Numbers of steps the teacher takes in it."""
    evaluate_precision: Literal["no", "bf16"] = "no"
    """bf16 samples teacher and student in bfloat16 for it, a transformer twice as fast."""
    bootstraps: int = 20
    """Rounds of the paired bootstrap in it."""

    def __post_init__(self) -> None:
        if self.lora is not None and self.lora < 1:
            raise ValueError(f"lora is {self.lora}; give a rank of at least 1, or leave it out")
        if self.lora is not None and self.student_size:
            raise ValueError("lora adapts a trained network; a student_size gives a fresh one")
        for name in ("pairs", "pair_steps", "pair_order", "measure_n", "bootstraps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.pair_order > 3:
            raise ValueError(f"pair_order is {self.pair_order}; give 1, 2 or 3")
        check_precision("pair_precision", self.pair_precision)
        check_precision("evaluate_precision", self.evaluate_precision)
        if self.evaluate_n < 0 or 0 < self.evaluate_n < 6:
            raise ValueError(f"evaluate_n is {self.evaluate_n}; give at least 6, or 0 for none")
        if min(self.evaluate_steps, default=0) < 1:
            raise ValueError(f"evaluate_steps is {self.evaluate_steps}; give numbers from 1 on")
        if not self.evaluate_seeds or len(set(self.evaluate_seeds)) < len(self.evaluate_seeds):
            raise ValueError(f"evaluate_seeds is {self.evaluate_seeds}; give different numbers")


@dataclass
class Settings:
    """All settings of a run: of its method, of the trainer, and around them."""

    method: Any
    trainer: TrainerConfig
    run: RunConfig

    @classmethod
    def of(cls, method: type, given: Mapping[str, Any], preset: str = "") -> Settings:
        """Settings from keywords, over the method's defaults and what the data set `preset` says
        serves it.

        ValueError for an unknown one, with the nearest there is, and for a value no run can have.
        """
        kinds = {"method": method.Config, "trainer": TrainerConfig, "run": RunConfig}  # type: ignore[attr-defined]
        home = {field.name: part for part, kind in kinds.items() for field in fields(kind)}
        chosen: dict[str, dict[str, Any]] = {part: {} for part in kinds}
        named = method.__module__.rsplit(".", 1)[-1]
        own = {**method.defaults, **data.presets(preset, named)}  # type: ignore[attr-defined]
        for name, value in (own | dict(given)).items():
            if name not in home:
                raise unknown("setting", name, home)
            chosen[home[name]][name] = tuple(value) if isinstance(value, list) else value
        settings = cls(*(kind(**chosen[part]) for part, kind in kinds.items()))
        _check_method(settings.method)
        return settings

    def take_teacher(self, guidance: float, sampler: Sampler) -> None:
        """Let a method take from its teacher what it was not given."""
        self.method.take_teacher(guidance, sampler, bool(self.run.student_size))

    def flat(self) -> dict[str, Any]:
        """Every setting by its name."""
        return asdict(self.method) | asdict(self.trainer) | asdict(self.run)


def _check_method(config: Any) -> None:
    """What no method's setting of this name may be."""
    steps = getattr(config, "steps", 1)
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}; a student takes at least 1")
