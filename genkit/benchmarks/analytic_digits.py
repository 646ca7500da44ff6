"""Analytic digits: methods compared on a density that is known exactly.

A kernel density on scikit-learn's 1,797 digits is the data AND the teacher: its score, posterior
mean and log density are closed forms (genkit.denoisers.analytic), so nothing is owed to a teacher's
own error. The kernel's standard deviation is 0.15 where pixels lie in [-1, 1]. Students are
256-wide MLPs without class labels, too small for the task, so methods must choose what to give up;
several figures show what, since each alone ranks methods wrongly.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genkit import hub
from genkit.benchmarks.budget import Budget, Problem, draw_samples, fit, start
from genkit.data.digits import load
from genkit.denoisers.analytic import Mixture
from genkit.metrics.features import FeatureNet, digits_features
from genkit.metrics.frechet import frechet_distance
from genkit.metrics.sliced import sliced_wasserstein
from genkit.paths import RectifiedFlow
from genkit.rng import generator
from genkit.sampling import Sampler

STD = 0.15
N = 10_000
NO_CLASS = 10
TEACHER_STEPS = (1, 2, 4, 50)
CONTROL = "independent"
"""Name of the control: a regressor of data on noise that has nothing to do with it."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """The density, n of its draws as the reference, and the features Frechet distance is on."""

    density: Mixture
    labels: Tensor
    net: FeatureNet
    reference: Tensor

    @classmethod
    def of(cls, n: int = N) -> Bench:
        """The density over all 1,797 digits and n reference draws."""
        data = load("all")
        labels = data.cond["label"]
        density = Mixture(RectifiedFlow(), data.x_0, STD, labels=labels)
        return cls(
            density, labels, digits_features(), density.draw(n, generator(0, "reference"))[0]
        )

    @property
    def n(self) -> int:
        """Samples that are measured, as many as the reference has."""
        return len(self.reference)

    @cached_property
    def features(self) -> Tensor:
        """Features of the reference."""
        return self.net.features(self.reference)

    def figures(self, x: Tensor) -> dict[str, float]:
        """The figures of samples x (n, 1, 8, 8); lower is better for all but cover.

        nll: mean of log(peak / p(x)) in nats, where peak is the density at the centre of a digit
        that stands alone. Fresh draws have 32, half the dimension; less is too near to the centres.
        cover: share of the digits that are nearest to at least one sample (at n = 10,000 fresh
        draws miss 0.4% by chance). class_tv: total variation between the classes of samples
        (posterior under the density) and of the data. sw: sliced Wasserstein-2 of pixels to the
        reference; fd: Frechet distance of a classifier's features to it.
        """
        k = len(self.labels)
        seen, nll = torch.zeros(k, dtype=torch.bool), 0.0
        classes = torch.nn.functional.one_hot(self.labels).double()
        share = torch.zeros(classes.shape[1], dtype=torch.float64)
        dim = x[0].numel()
        log_peak = (
            -torch.tensor(float(k)).log() - dim / 2 * torch.tensor(2 * torch.pi * STD**2).log()
        )
        for part in x.split(2000):
            t = torch.zeros(len(part))
            nll += float((log_peak - self.density.log_density(part, t)).sum())
            posterior = self.density.responsibilities(part, t)
            seen[posterior.argmax(1)] = True
            share += posterior.double().sum(0) @ classes
        return {
            "nll": nll / len(x),
            "cover": float(seen.double().mean()),
            "class_tv": float((share / len(x) - classes.mean(0)).abs().sum() / 2),
            "sw": sliced_wasserstein(x, self.reference),
            "fd": frechet_distance(self.net.features(x), self.features),
        }

    def problem(self) -> Problem:
        """What a student is trained on."""
        latent = tuple(self.density.means.shape[1:])
        return Problem(self.density, latent, {"label": torch.tensor([NO_CLASS])})


def floor_row(bench: Bench, seed: int) -> Row:
    """Fresh draws of the density: what a perfect generator scores."""
    x, _ = bench.density.draw(bench.n, generator(seed, "floor"))
    return {"name": "floor", "steps": 0, "seed": seed} | bench.figures(x)


def teacher_row(bench: Bench, steps: int, seed: int) -> Row:
    """The exact teacher at `steps` evaluations, by the best of solver orders 1 to 3: that of least
    sw on a fifth of the samples."""
    path, latent = bench.density.path, bench.problem().latent

    def samples(order: int, n: int) -> Tensor:
        scheduler = hub.make_scheduler(Sampler(steps, order=order), path, "velocity", 1.0)
        return draw_samples(
            lambda noise, generators: bench.density.sample(noise, {}, scheduler, steps),
            latent,
            n,
            seed,
        )

    def error(order: int) -> float:
        return sliced_wasserstein(samples(order, bench.n // 5), bench.reference)

    order = min(range(1, min(steps, 3) + 1), key=error)
    name = f"teacher, order {order}"
    return {"name": name, "steps": steps, "seed": seed} | bench.figures(samples(order, bench.n))


def rows(
    methods: Mapping[str, Mapping[str, Any]], budget: Budget, seeds: Sequence[int], n: int = N
) -> Iterator[Row]:
    """All rows, one by one: floor, teacher, then per seed the start and every method.

    methods: {name: {setting: value}} of genkit.methods, trained from the same start under the same
    budget. The start is a network trained on the density by flow matching for one budget, which
    comes on top for each of them. The control is a regression of the density's draws on noise they
    have nothing to do with.
    """
    bench = Bench.of(n)
    problem = bench.problem()
    for seed in seeds:
        yield floor_row(bench, seed)
    for steps in TEACHER_STEPS:
        for seed in seeds:
            yield teacher_row(bench, steps, seed)
    for seed in seeds:
        begun = start(problem, budget, seed)
        for steps in (1, 50):
            x = begun.samples(bench.n, seed, steps)
            yield begun.row("start (flow_matching)", steps, seed) | bench.figures(x)
        for name, settings in methods.items():
            trained = fit(name, settings, problem, begun, budget, seed)
            x = trained.samples(bench.n, seed)
            yield trained.row(name, trained.steps, seed) | bench.figures(x)
        control = fit("regression", {}, problem, begun, budget, seed, paired=False)
        x = control.samples(bench.n, seed)
        yield control.row(CONTROL, 1, seed) | bench.figures(x)


def preset(name: str) -> dict[str, Any]:
    """A method's settings for this bench, beside its file."""
    from genkit import catalogue

    method: Any = catalogue.method_class(name)
    return dict(method.presets.get("analytic-digits", {}))


def all_methods() -> dict[str, dict[str, Any]]:
    """Every method of genkit/methods that distils a teacher on rectified flow into few steps, with
    its preset. The teacher here takes no guidance, so none is distilled."""
    from genkit import catalogue

    found: dict[str, dict[str, Any]] = {}
    for name, entry in catalogue.methods().items():
        method: Any = catalogue.method_class(name)
        if entry.facts["family"] in ("teacher", "guidance"):
            continue
        if "rectified_flow" in method.paths:
            found[name] = preset(name)
    return found


COLUMNS = ("nll", "cover", "class_tv", "sw", "fd", "seconds", "evaluations")


def table(found: Sequence[Row]) -> str:
    """The rows as text, in order of names; figures are means over the seeds."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in found:
        groups.setdefault((row["name"], row["steps"]), []).append(row)
    lines = [f"{'':28s}{'steps':>6s}" + "".join(f"{name:>12s}" for name in COLUMNS)]
    for (name, steps), same in groups.items():
        cells = []
        for column in COLUMNS:
            values = [row[column] for row in same if column in row]
            cells.append(f"{sum(values) / len(values):12.4g}" if values else f"{'-':>12s}")
        lines.append(f"{name:28s}{steps or '-':>6}" + "".join(cells))
    return "\n".join(lines)


@dataclass
class Settings:
    """What is compared, and for how long."""

    seconds: float = 60
    """Training time of every student, in processor seconds (the clock's on one idle thread)."""
    evaluations: int | None = None
    """Network evaluations (samples through a network) of every student, in place of seconds."""
    seeds: int = 2
    """Seeds; the table shows their mean."""
    n: int = N
    """Samples that are measured."""
    methods: tuple[str, ...] = ()
    """Only these methods; none named means all."""
    json: str | None = None
    """File to write the rows to."""

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.n < 50:
            raise ValueError(
                f"seeds is {self.seeds} and n is {self.n}; give at least 1 seed and 50 samples"
            )

    @property
    def budget(self) -> Budget:
        """What every student may spend."""
        if self.evaluations is None:
            return Budget(self.seconds)
        return Budget(None, self.evaluations)


def main(settings: Settings) -> list[Row]:
    """Run the bench: a row on stderr as it comes, the table of means on stdout at the end."""
    from genkit import catalogue

    methods = all_methods()
    if settings.methods:
        names = [catalogue.method(name).name for name in settings.methods]
        methods = {name: preset(name) for name in names}
    found = []
    for row in rows(methods, settings.budget, range(settings.seeds), settings.n):
        found.append(row)
        shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
        print(shown, file=sys.stderr, flush=True)
    print(table(found))
    if settings.json is not None:
        asked = {name: value for name, value in asdict(settings).items() if name != "json"}
        record = {"std": STD, "settings": asked, "rows": found}
        Path(settings.json).write_text(json.dumps(record, indent=1) + "\n")
    return found
