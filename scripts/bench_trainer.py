"""How much slower is the Trainer than a bare loop of the same networks?

Both train a 5M-parameter MLPDenoiser by flow matching, batch 64, with AdamW, gradient clipping and
one average. Between every few steps of a real `Trainer.run` the bare loop runs as many; seconds of
this process's own CPU time are compared by their medians, so busy neighbours hardly show.

    OMP_NUM_THREADS=1 python scripts/bench_trainer.py [--steps 10] [--rounds 30] [--precision bf16]
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from genkit.data.streams import TensorStream
from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.methods.flow_matching import Method
from genkit.networks.mlp import MLPDenoiser
from genkit.paths import RectifiedFlow
from genkit.rng import generator
from genkit.training.config import TrainerConfig
from genkit.training.precision import autocast
from genkit.training.trainer import Trainer

BATCH, EMA, CLIP = 64, 0.999, 1.0


def denoiser() -> NetworkDenoiser:
    """A fresh 5M-parameter network."""
    network = MLPDenoiser(width=488, depth=4)
    return NetworkDenoiser(network, network_call(network), RectifiedFlow(), "velocity", 1000.0)


def digits_like(n: int = 1797) -> dict:
    """Random pictures in the shape of the digits."""
    x_0 = torch.rand(n, 1, 8, 8, generator=generator(0, "x_0")) * 2 - 1
    return {"x_0": x_0, "cond": {"label": torch.arange(n) % 10}}


def bare_step(precision: str) -> Callable[[], None]:
    """One step of the same work, written down plainly."""
    student = denoiser()
    average = copy.deepcopy(student).requires_grad_(False)
    weights, averages = list(student.parameters()), list(average.parameters())
    adamw = torch.optim.AdamW(weights, 1e-3, weight_decay=0.0, fused=True)
    data, path = digits_like(), RectifiedFlow()

    def step() -> None:
        rows = torch.randint(len(data["x_0"]), (BATCH,))
        x_0, label = data["x_0"][rows], data["cond"]["label"][rows]
        eps, t = torch.randn_like(x_0), torch.rand(BATCH)
        with autocast(torch.device("cpu"), precision):
            velocity = student.predict(path.add_noise(x_0, eps, t), t, {"label": label}, "velocity")
            loss = (velocity - (eps - x_0)).square().flatten(1).mean(1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1 - EMA)

    return step


class Timed(Method):
    """Flow matching that times the Trainer's steps, and the bare loop's between them."""

    def __init__(self, steps: int, bare: Callable[[], None]) -> None:
        super().__init__(self.Config(), RectifiedFlow(), (1, 8, 8))
        self.steps, self.bare = steps, bare
        self.trainer_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self._began = 0.0

    def turns(self, moment):
        if moment.step % self.steps == 0:
            middle = time.process_time()
            for _ in range(self.steps):
                self.bare()
            end = time.process_time()
            if moment.step:
                self.trainer_seconds.append((middle - self._began) / self.steps)
                self.bare_seconds.append((end - middle) / self.steps)
            self._began = time.process_time()
        return super().turns(moment)


def main() -> None:
    """Print medians and what the Trainer adds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="steps of each piece")
    parser.add_argument("--rounds", type=int, default=30, help="pieces of each")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    args = parser.parse_args()
    method = Timed(args.steps, bare_step(args.precision))
    last = args.steps * (args.rounds + 1) + 1
    config = TrainerConfig(
        max_steps=last, batch_size=BATCH, checkpoint_every=last, mixed_precision=args.precision
    )
    with tempfile.TemporaryDirectory() as folder:
        streams = {"data": TensorStream(digits_like())}
        Trainer(method, Path(folder) / "run", config, streams=streams, network=denoiser).run()
    trainer, bare = (
        1e3 * statistics.median(each) for each in (method.trainer_seconds, method.bare_seconds)
    )
    pairs = zip(method.trainer_seconds, method.bare_seconds, strict=True)
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    size = sum(each.numel() for each in denoiser().parameters()) / 1e6
    print(f"{size:.1f}M parameters, batch {BATCH}, precision {args.precision}")
    print(f"Trainer {trainer:.2f} ms, bare loop {bare:.2f} ms a step; median ratio {ratio:.4f}")


if __name__ == "__main__":
    main()
