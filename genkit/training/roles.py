"""The networks of a run: every role, its averages, its optimizer, and who trains in a turn."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from genkit.denoisers.base import Denoiser, Guided
from genkit.methods.base import Method, Moment, Role, Roles, Stage, teacher_name
from genkit.rng import Rng
from genkit.training.ema import Average
from genkit.training.optimizers import RoleOptimizer

Groups = dict[str, dict[str, Tensor]]


class Networks:
    """Builds the roles of `method.nets()` in their order and keeps what belongs to them.

    nets: {role: module}, "teacher" among them where one is given (without guidance), and the
    further `teachers` of a method that merges. Fresh networks draw their weights from (seed, role),
    so a rebuilt run begins as the first one did.
    """

    def __init__(
        self,
        method: Method,
        network: Callable[[], Denoiser] | None,
        teacher: Denoiser | None,
        seed: int,
        device: torch.device | str = "cpu",
        muon: str = "",
        slow: str = "",
        teachers: Sequence[Denoiser] = (),
    ) -> None:
        if teacher is not None and teacher.kind not in method.kinds:
            kinds = " or ".join(method.kinds)
            raise ValueError(
                f"{method.name} takes a teacher whose network predicts {kinds}; this one predicts "
                f"{teacher.kind}"
            )
        self.declared = dict(method.nets())
        self.uncond, self.device = method.uncond, torch.device(device)
        self.muon, self.slow = muon, slow
        self.nets: dict[str, nn.Module] = {}
        given = [] if teacher is None else [teacher, *teachers]
        self.taught_by = [teacher_name(i) for i in range(len(given))]
        for name, each in zip(self.taught_by, given, strict=True):
            self.nets[name] = each.to(device)
        for name, role in self.declared.items():
            if name not in self.nets:
                torch.manual_seed(Rng(seed, "build", name).torch_seed())
                self.nets[name] = self._build(name, role, network).to(device)
        for each in given:
            each.requires_grad_(False).eval()
        self.optimizers: dict[str, RoleOptimizer] = {}
        self.averages: dict[str, Average] = {}
        self._overwritten: set[str] = set()
        self._turn: tuple[str, ...] | None = None
        for name, role in self.declared.items():
            self._prepare(name, role)

    def _build(self, name: str, role: Role, network: Callable[[], Denoiser] | None) -> nn.Module:
        built = self._begin(name, role, network)
        return built if role.change is None else role.change(built)

    def _begin(self, name: str, role: Role, network: Callable[[], Denoiser] | None) -> nn.Module:
        if role.build is not None:
            return role.build(self.nets)
        if role.start is None:
            if network is None:
                raise ValueError(f"the role {name!r} is a fresh network: give network=")
            return network()
        if role.start not in self.nets:
            raise ValueError(
                f"the role {name!r} starts as {role.start!r}, which is not there before it; "
                f"there are: {', '.join(self.nets) or 'none'}"
            )
        # A copy of a frozen role trains like any other.
        return copy.deepcopy(self.nets[role.start]).requires_grad_(True)

    def _prepare(self, name: str, role: Role) -> None:
        module = self.nets[name]
        if name == "teacher" or not role.trainable:
            module.requires_grad_(False).eval()
            return
        module.train()
        self.optimizers[name] = RoleOptimizer(module, role, self.muon, self.slow)
        for ema_name, ema in role.ema.items():
            average = Average(module, ema)
            # Read in a loss, an average runs as its source does (dropout); sampled, it does not.
            average.module.train(ema_name != "export")
            self.averages[f"{name}.{ema_name}"] = average
        self.optimizers[name].train(False)

    def modules(self) -> list[nn.Module]:
        """Every network there is, averages included."""
        return [*self.nets.values(), *(average.module for average in self.averages.values())]

    def exported(self, role: str) -> nn.Module:
        """The role's "export" average, or the role itself where it has none."""
        average = self.averages.get(f"{role}.export")
        return self.nets[role] if average is None else average.module

    def teacher(self, stage: Stage) -> Denoiser | None:
        """The stage's teacher, guided where the stage says so."""
        return self._guided(self.nets["teacher"], stage) if "teacher" in self.nets else None

    def _guided(self, teacher: nn.Module, stage: Stage) -> Denoiser:
        assert isinstance(teacher, Denoiser)
        if stage.guidance == 1:
            return teacher
        if self.uncond is None:
            raise ValueError(
                f"guidance {stage.guidance} needs the conditions of no condition, and this data "
                "has none; give guidance 1"
            )
        uncond = {name: value.to(self.device) for name, value in self.uncond.items()}
        return Guided(teacher, stage.guidance, uncond)

    def view(self, stage: Stage) -> Roles:
        """What a loss of this stage sees."""
        averages = {name: average.module for name, average in self.averages.items()}
        roles = Roles({**self.nets, **averages})
        return Roles(
            roles | {name: self._guided(self.nets[name], stage) for name in self.taught_by}
        )

    def enter(self, stage: Stage) -> None:
        """Begin a stage: copy weights between roles, forget optimizers where it asks for that."""
        for target, source in stage.start.items():
            self._overwrite(target, self.exported(source))
        if stage.fresh_optimizer:
            for optimizer in self.optimizers.values():
                optimizer.restart()

    def _overwrite(self, target: str, source: nn.Module) -> None:
        self._overwritten.add(target)
        if target not in self.optimizers:
            # A frozen role becomes the source itself, whatever stood there: its class, its path.
            self.nets[target] = copy.deepcopy(source).requires_grad_(False).eval()
            return
        self.nets[target].load_state_dict(source.state_dict())
        for name, average in self.averages.items():
            if name.rsplit(".", 1)[0] == target:
                average.restart()

    def replay(self, stages: Iterable[Stage]) -> None:
        """Give every role the class it has after these stages began, before weights are loaded."""
        for stage in stages:
            self.enter(stage)

    def take_turn(self, turn: tuple[str, ...]) -> None:
        """Let exactly the roles of this turn collect gradients."""
        if turn == self._turn:
            return
        unknown = [name for name in turn if name not in self.optimizers]
        assert not unknown, f"the turn {turn} trains {unknown}, which are not trainable roles"
        for name, optimizer in self.optimizers.items():
            optimizer.train(name in turn)
        self._turn = turn

    def step(self, turn: tuple[str, ...], moment: Moment) -> dict[str, Tensor]:
        """Optimizer steps of the turn's roles, then their averages; {role: gradient norm}."""
        norms = {}
        for name in turn:
            norm = self.optimizers[name].step(moment, name)
            if norm is not None:
                norms[name] = norm
        for name, average in self.averages.items():
            if name.rsplit(".", 1)[0] in turn:
                average.update()
        return norms

    def gradients(self, turn: tuple[str, ...]) -> list[Tensor]:
        """The gradients of the turn's roles, for adding them up over processes."""
        parameters = [each for name in turn for each in self.optimizers[name].parameters]
        return [each.grad for each in parameters if each.grad is not None]

    def tensors(self) -> Groups:
        """All that training has changed: weights, averages, moments."""
        stored = [*self.optimizers, *sorted(self._overwritten - self.optimizers.keys())]
        weights = {name: self.nets[name] for name in stored}
        averages = {name: average.module for name, average in self.averages.items()}
        moments = {
            f"{name}/{key}": value
            for name, optimizer in self.optimizers.items()
            for key, value in optimizer.tensors().items()
        }
        return {"weights": flat(weights), "averages": flat(averages), "moments": moments}

    def counts(self) -> dict[str, dict[str, int]]:
        """How often every optimizer stepped and every average moved."""
        return {
            "optimizers": {name: each.updates for name, each in self.optimizers.items()},
            "averages": {name: each.updates for name, each in self.averages.items()},
        }

    def load(self, tensors: Groups, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Take back `tensors` and `counts`, after `replay`."""
        for name, module in self.nets.items():
            load_flat(module, tensors["weights"], name)
        for name, average in self.averages.items():
            load_flat(average.module, tensors["averages"], name)
            average.updates = counts["averages"][name]
        for name, optimizer in self.optimizers.items():
            mine = {
                key.removeprefix(f"{name}/"): value
                for key, value in tensors["moments"].items()
                if key.startswith(f"{name}/")
            }
            optimizer.load(mine, counts["optimizers"][name])

    def export_tensors(self) -> dict[str, Tensor]:
        """The delivered weights of every trainable role, flat."""
        return flat({name: self.exported(name) for name in self.optimizers})

    def raw_tensors(self) -> dict[str, Tensor]:
        """The weights themselves, not their average, of every role that is delivered, flat."""
        delivered = [name for name in self.optimizers if f"{name}.export" in self.averages]
        return flat({name: self.nets[name] for name in delivered})

    def export_modules(self, tensors: Mapping[str, Tensor] | None = None) -> dict[str, nn.Module]:
        """{role: delivered module}, holding `tensors` where given; trained roles are copies."""
        modules = dict(self.nets)
        for name in self.optimizers:
            modules[name] = copy.deepcopy(self.exported(name)).requires_grad_(False).eval()
            if tensors is not None:
                load_flat(modules[name], tensors, name)
        return modules


def flat(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """{"<name>/<key>": tensor} of several modules; weights tied within one stand once."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        seen = set()
        for key, value in module.state_dict().items():
            place = (value.data_ptr(), value.shape)
            if value.numel() == 0 or place not in seen:
                tensors[f"{name}/{key}"] = value
            seen.add(place)
    return tensors


@torch.no_grad()
def load_flat(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copy a module's tensors of `flat` back in place; a module that has none there is left."""
    own = module.state_dict()
    prefix = f"{name}/"
    for key, value in tensors.items():
        if key.startswith(prefix):
            own[key.removeprefix(prefix)].copy_(value)
