"""Toy methods on two-dimensional data for the trainer's tests; run as a script, it trains one.

`python training_toys.py OUT [--resume] [--kill STEP]` trains the two-role, two-stage method and,
with --kill, sends itself SIGKILL in the middle of that step.
"""

import argparse
import json
import os
import signal
from pathlib import Path

import torch
from torch import Tensor, nn

from genkit.data.streams import TensorStream
from genkit.denoisers.base import NetworkDenoiser
from genkit.methods import base
from genkit.methods.base import Ema, Role, Stage, constant, warmed
from genkit.paths import RectifiedFlow
from genkit.rng import generator
from genkit.sampling import Sampler
from genkit.training.config import TrainerConfig
from genkit.training.preview import Preview
from genkit.training.trainer import Trainer


class Net(nn.Module):
    """Two numbers and a time in, two numbers out; with dropout and a buffer."""

    def __init__(self, width: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, 2)
        )
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.layers(torch.cat([x, timestep[:, None]], -1))


def call(network, x_t, timestep, cond, s=None):
    return network(x_t, timestep)


def denoiser(width: int = 16, dropout: float = 0.1) -> NetworkDenoiser:
    return NetworkDenoiser(Net(width, dropout), call, RectifiedFlow(), "velocity")


class Euler:
    """The least scheduler that `sampling.sample` can run."""

    def set_timesteps(self, steps, device=None):
        self.timesteps = torch.linspace(1, 0, (steps or 2) + 1)[:-1]
        self.width = 1 / len(self.timesteps)

    def scale_model_input(self, x, timestep):
        return x

    def step(self, output, timestep, x, return_dict=False):
        return (x - self.width * output,)


class OneRole(base.Method):
    """Flow matching with two averages, one of which the loss reads."""

    family, paper, needs, has_teacher = "toy", "none", ("data",), False

    def __init__(self, **roles) -> None:
        super().__init__(None, RectifiedFlow(), (2,))
        self.scheduler, self.roles = Euler(), roles

    def nets(self):
        ema = {"export": Ema(warmed(0.99)), "target": Ema(constant(0.9))}
        return {"student": Role(**{"lr": 1e-2, "warmup": 3, "ema": ema, **self.roles})}

    def velocity_loss(self, role, x_0, rng):
        eps, t = rng.normal(x_0.shape), rng.uniform(x_0.shape[:1])
        x_t = self.path.add_noise(x_0, eps, t)
        return (role.predict(x_t, t, {}, "velocity") - (eps - x_0)).pow(2).mean()

    def loss(self, roles, batch, moment, rng):
        x_0 = batch["data"]["x_0"]
        flow = self.velocity_loss(roles["student"], x_0, rng)
        with torch.no_grad():
            target = roles["student.target"].predict(x_0, torch.ones(len(x_0)), {}, "velocity")
        here = roles["student"].predict(x_0, torch.ones(len(x_0)), {}, "velocity")
        return {"total": flow + 0.1 * (here - target).pow(2).mean(), "flow": flow}

    def sampler(self):
        return Sampler(steps=2)


class TwoRoles(OneRole):
    """A student and a fake in turns, over two stages; the second's teacher is the student."""

    needs, has_teacher = ("data", "pairs"), True

    def __init__(self, **roles) -> None:
        super().__init__(**roles)
        self.uncond = {}
        self.seen = torch.zeros(())

    def stages(self):
        again = Stage("again", 0.4, {"teacher": "student"}, 2.0, True, True, {"student": 3e-3})
        return [Stage("first", 0.6), again]

    def nets(self):
        student = super().nets()["student"]
        student = Role(**{**student.__dict__, "start": "teacher", "decay": True})
        return {"student": student, "fake": Role("student", lr=1e-3)}

    def turns(self, moment):
        return [("fake",), ("fake",), ("student",)]

    def loss(self, roles, batch, moment, rng):
        if roles.turn == ("fake",):
            return {"total": self.velocity_loss(roles["fake"], batch["data"]["x_0"], rng)}
        self.seen = self.seen + 1
        pairs = batch["pairs"]
        ones = torch.ones(len(pairs["eps"]))
        made = roles["student"].predict(pairs["eps"], ones, {}, "x_0")
        fake = roles["fake"].predict(made, ones / 2, {}, "x_0")
        return {"total": (made - pairs["x_0"]).pow(2).mean() + 0.01 * fake.pow(2).mean()}

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def ring(n: int = 256) -> TensorStream:
    angle = 6.283 * torch.rand(n, generator=generator(0, "ring"))
    return TensorStream({"x_0": torch.stack([angle.cos(), angle.sin()], -1), "cond": {}})


def make_pairs(teacher, stage, number):
    eps = torch.randn(64, 2, generator=generator(number, "pairs"))
    with torch.no_grad():
        x_0 = teacher.predict(eps, torch.ones(64), {}, "x_0")
    return TensorStream({"eps": eps, "x_0": x_0, "cond": {}})


def render(rows, stem):
    file = stem.with_suffix(".json")
    file.write_text(json.dumps({name: each.tolist() for name, each in rows.items()}))
    return file


def measure(sample):
    noise = torch.randn(32, 2, generator=generator(0, "measure"))
    return {"distance": (sample(noise, {}, None).pow(2).sum(-1).sqrt() - 1).abs().mean().item()}


SMALL = {"max_steps": 12, "batch_size": 8, "log_every": 2, "checkpoint_every": 3}
SMALL |= {"sample_every": 4, "measure_every": 4}


def one_role(out, config=None, method=None, **given) -> Trainer:
    """A trainer of the one-role method; config replaces what differs from SMALL."""
    settings = TrainerConfig(**{**SMALL, **(config or {})})
    given = {"streams": {"data": ring()}, "network": denoiser, "measure": measure, **given}
    return Trainer(method or OneRole(), out, settings, **given)


def two_roles(out, config=None, method=None, **given) -> Trainer:
    """A trainer of the two-role method."""
    torch.manual_seed(3)
    settings = TrainerConfig(**{**SMALL, **(config or {})})
    reference = torch.randn(6, 2, generator=generator(0, "reference"))
    preview = Preview(6, {}, 5, render, reference=reference)
    given = {"measure": measure, "preview": preview, "make_pairs": make_pairs, **given}
    return Trainer(
        method or TwoRoles(), out, settings, streams={"data": ring()}, teacher=denoiser(), **given
    )


def weights(trainer: Trainer) -> dict[str, Tensor]:
    """Everything training has made, flat."""
    groups = trainer.networks.tensors()
    return {
        f"{group}/{key}": value.detach().clone()
        for group, tensors in groups.items()
        for key, value in tensors.items()
    }


def kill_at(trainer: Trainer, step: int, where: float) -> None:
    """SIGKILL a process at a place of a step: in a loss, or while the checkpoint is written."""
    method_loss, save = trainer.method.loss, trainer.checkpoints.save

    def loss(*args):
        if trainer.step == step and where < 0.5:
            os.kill(os.getpid(), signal.SIGKILL)
        return method_loss(*args)

    def saving(*args):
        if trainer.step >= step and where >= 0.5:
            import genkit.training.checkpoints as module

            # Some files of the folder are there, and the process is gone before the rename.
            module.os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
        save(*args)

    trainer.method.loss, trainer.checkpoints.save = loss, saving


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--kill", type=float, default=None, help="step, and where in it")
    args = parser.parse_args()
    trainer = two_roles(args.out, {"max_steps": args.steps})
    if args.kill is not None:
        kill_at(trainer, int(args.kill), args.kill % 1)
    trainer.run(args.resume)


if __name__ == "__main__":
    main()
