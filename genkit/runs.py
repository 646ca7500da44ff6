"""What lies around training in a run: streams, teacher pairs, previews, measurements, the export.

`api` puts these together with a method and the Trainer, which knows none of them. All noise is
drawn from seeds far from each other and from those of an evaluation, so that no student is judged
on noise it was trained on.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genkit import hub
from genkit.contenders import Contender
from genkit.data.base import Prompts, Samples
from genkit.data.cache import cache_folder
from genkit.data.pairs import cached_pairs, pairs_key
from genkit.data.streams import Stream, TensorStream
from genkit.denoisers.base import Denoiser, Guided
from genkit.denoisers.diffusers import Loaded
from genkit.evaluation import figures, progress, short_name, table
from genkit.lora import has_adapters, merged, save_adapter
from genkit.methods.base import Method, Stage
from genkit.metrics.paired import mse_same_noise
from genkit.metrics.sliced import sliced_wasserstein
from genkit.modalities import Modality
from genkit.rng import sample_generators, sample_noise
from genkit.sampling import Sampler, starting_scale
from genkit.settings import Settings
from genkit.training.checkpoints import write_text
from genkit.training.meter import Meter, counted
from genkit.training.precision import autocast, precision_on
from genkit.training.preview import Preview
from genkit.training.report import write_report
from genkit.training.trainer import Result
from genkit.training.watching import Measure, Sample

PAIR_SEED, MEASURE_SEED = 1_000_000, 2_000_000
PREVIEW_SEED, REFERENCE_SEED = 3_000_000, 4_000_000
SHARD = 1000
REPORT = "report.html"


@dataclass(frozen=True)
class Teacher:
    """The network a run distils: its name, its Denoiser, and the scheduler and steps it takes."""

    name: str
    denoiser: Denoiser
    latent: tuple[int, ...]
    scheduler: Any
    steps: int
    pipeline: Any
    batch: int

    @classmethod
    def of(cls, name: str, loaded: Loaded, steps: int, order: int, batch: int) -> Teacher:
        """A loaded pipeline as a teacher that takes `steps` of a multistep solver of `order`, on
        `batch` samples at once."""
        who = loaded.denoiser
        scheduler = hub.make_scheduler(
            Sampler(steps, order=order), who.path, who.kind, who.time_scale, who.sigma_data
        )
        return cls(name, who, loaded.latent, scheduler, steps, loaded.pipeline, batch)

    def sample(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        cond: Mapping[str, Tensor],
        generators: list[torch.Generator],
    ) -> Tensor:
        """x_0 of `denoiser` (this one, guided, or one trained from it) from unit noise (n, ...)."""
        return self.paths(denoiser, noise, cond, generators, 0)["x_0"]

    def paths(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        cond: Mapping[str, Tensor],
        generators: list[torch.Generator],
        points: int,
    ) -> dict[str, Tensor]:
        """The x_0 of `sample`, and where there are `points`, x_t (n, points, ...) on the way to it
        and their times t (n, points): those of a grid of so many steps.

        ValueError where the teacher's steps do not hold that grid.
        """
        if points and self.steps % points:
            least = -(-self.steps // points) * points
            raise ValueError(
                f"pair_steps is {self.steps}, which {points} steps of the student do not divide; "
                f"give {least}"
            )
        every = self.steps // points if points else self.steps
        parts, scheduler = [], copy.deepcopy(self.scheduler)
        device = next(denoiser.parameters()).device
        for first in range(0, len(noise), self.batch):
            rows = slice(first, first + self.batch)
            part = {name: value[rows].to(device) for name, value in cond.items()}
            seen = [noise[rows] * starting_scale(scheduler)] if points else []

            def keep(i: int, timestep: Tensor, x: Tensor, seen: list[Tensor] = seen) -> Tensor:
                if (i + 1) % every == 0 and i + 1 < self.steps:
                    seen.append(x.cpu())
                return x

            with torch.no_grad():
                x_0 = denoiser.sample(
                    noise[rows].to(device),
                    part,
                    scheduler,
                    self.steps,
                    generators[rows],
                    keep if points else None,
                )
            kept = {"x_t": torch.stack(seen, 1)} if points else {}
            parts.append({"x_0": x_0.cpu(), **kept})
        found = {name: torch.cat([each[name] for each in parts]) for name in parts[0]}
        if points:
            found["t"] = denoiser.path.grid(points).float().expand(len(found["x_0"]), points)
        return found


@dataclass(frozen=True)
class Run:
    """One run: everything the Trainer is handed besides the method itself.

    others: teachers beside the first, of a method that merges. meter: what its training costs.
    cache: where pairs are kept, by default with all others. start: the pipeline whose weights a
    teacher begins with.
    """

    method: Method
    settings: Settings
    modality: Modality
    data: Samples | Prompts
    teacher: Teacher | None
    meter: Meter = field(default_factory=Meter)
    cache: Path | None = None
    others: Sequence[Denoiser] = ()
    start: Any = None

    def guided_teacher(self) -> Denoiser:
        """The teacher with the guidance the method bakes into its student."""
        assert self.teacher is not None, "a run without a teacher has no teacher samples"
        w, uncond = self.method.stages()[0].guidance, self.modality.uncond
        if w == 1:
            return self.teacher.denoiser
        if uncond is None:
            raise ValueError(f"guidance is {w}, but {self.modality.name} has no uncond; give 1")
        return Guided(self.teacher.denoiser, w, uncond)

    def streams(self) -> dict[str, Stream]:
        """The streams the method needs, but for its pairs, which stages make."""
        if "data" not in self.method.needs:
            return {}
        if isinstance(self.data, Prompts) or self.settings.run.teacher_data:
            say(f"using {self.settings.run.pairs} samples of the teacher as data")
            return {"data": self._pairs(self.guided_teacher(), {"purpose": "data"}, 0)}
        return {"data": TensorStream(self.modality.batches(self.data))}

    def make_pairs(self, teacher: Denoiser, stage: Stage, number: int) -> TensorStream:
        """Pairs of a stage's teacher, its guidance being around it already."""
        parts: dict[str, Any] = {"guidance": stage.guidance}
        if stage.points:
            parts["points"] = stage.points
        return self._pairs(teacher, parts, number)

    def _pairs(self, teacher: Denoiser, parts: dict[str, Any], number: int) -> TensorStream:
        assert self.teacher is not None, "pairs are made by a teacher"
        seed = PAIR_SEED + 1000 * number + self.settings.trainer.seed
        count, who = self.settings.run.pairs, self.teacher
        device = next(teacher.parameters()).device
        precision = precision_on(device, self.settings.run.pair_precision)
        key = pairs_key(
            weights=hub.weights_hash(teacher),
            guidance=self.method.stages()[0].guidance,
            scheduler=[type(who.scheduler).__name__, dict(who.scheduler.config)],
            steps=who.steps,
            precision=precision,
            seed=seed,
            n=count,
            data=self.modality.name,
            **{f"stage_{name}": value for name, value in parts.items()},
        )

        def make(
            noise: Tensor, cond: dict[str, Tensor], generators: list[torch.Generator]
        ) -> dict[str, Tensor]:
            with autocast(device, precision):
                return who.paths(teacher, noise, cond, generators, parts.get("points", 0))

        cond = self.modality.training_cond(count)
        with counted(teacher) as cost:
            pairs = cached_pairs(
                (self.cache or cache_folder()) / "pairs",
                key,
                make,
                cond,
                self.modality.latent,
                seed,
                shard=SHARD,
                progress=progress,
                prior=teacher.path.prior,
                evaluations=lambda: cost.evaluations,
                mask=self.modality.mask(cond),
            )
        self.meter.made[f"{parts.get('purpose', 'pairs')} {number}"] = pairs.cost
        if "points" not in parts:
            return pairs
        held = dict(pairs.tensors)
        path = {name: held.pop(name) for name in ("x_t", "t")}
        return TensorStream({**held, "path": path}, pairs.cost)

    def _reference(self, seed: int, cond: Mapping[str, Tensor], n: int) -> Tensor:
        """Teacher samples on fixed noise; without a teacher, real data."""
        if self.teacher is None:
            assert isinstance(self.data, Samples), "a teacher is trained on samples"
            x_0 = self.modality.latents(self.data)
            return x_0[torch.arange(n) % len(x_0)]
        generators = sample_generators(seed, n)
        noise = self.method.path.prior(sample_noise(self.modality.latent, generators))
        return self.teacher.sample(self.guided_teacher(), noise, cond, generators)

    def measure(self) -> Measure | None:
        """What is measured during training; None where the settings leave it out."""
        if not self.settings.trainer.measure_every:
            return None
        return self.measure_on(MEASURE_SEED, REFERENCE_SEED)

    def measure_on(self, seed: int, reference_seed: int) -> Measure:
        """Sliced Wasserstein distance of student samples to four times as many of the teacher's,
        on OTHER noise: on the same noise a student is the nearer the more it copies its teacher
        sample by sample, however blurred, and what moves its distribution is called worse. How far
        apart they lie on the same noise is given beside it. Without a teacher, the distance to real
        data, of samples at no more than 10 steps, as many cost more than training between looks."""
        n, sampler = self.settings.run.measure_n, self.method.sampler()
        free = self.teacher is None and sampler.times is None
        steps = min(sampler.steps, 10) if free else None
        every = self.modality.cond(4 * n)
        cond = {name: value[:n] for name, value in every.items()}
        same = self._reference(seed, cond, n)
        reference = self._reference(reference_seed, every, 4 * n)

        def measure(sample: Sample) -> dict[str, float]:
            generators = sample_generators(seed, n)
            noise = self.method.path.prior(sample_noise(self.modality.latent, generators))
            x = sample(noise, cond, generators, steps)
            figures = {"distance": sliced_wasserstein(x, reference)}
            if self.teacher is not None:
                figures["mse_same_noise"] = float(mse_same_noise(x, same).mean())
            return figures

        return measure

    def preview(self) -> Preview:
        """Teacher (or data) beside student on fixed seeds."""
        n, cond = self.modality.preview_n, self.modality.preview_cond()
        name = "data" if self.teacher is None else f"teacher, {self.teacher.steps} steps"
        return Preview(
            n=n,
            cond=cond,
            seed=PREVIEW_SEED,
            render=self.modality.render,
            reference=self._reference(PREVIEW_SEED, cond, n),
            reference_name=name,
        )

    def facts(self) -> dict[str, Any]:
        """What the delivered pipeline remembers: its defaults and where it comes from."""
        steps, method = self.method.sampler().steps, self.method.name
        own = self.method.embedded_guidance
        guidance = 1.0 if own is None else own
        facts = {"steps": steps, "guidance": guidance, "method": method, "data": self.modality.name}
        if self.teacher is not None:
            facts["teacher"] = self.teacher.name
        return facts | {"description": description(facts)}

    def save(self, network: Any, out: Path, card: str) -> Any:
        """Write the pipeline of a network to `out`/pipeline and return it."""
        pipeline = self.modality.pipeline(network, self.method.scheduler)
        hub.save_pipeline(pipeline, out / "pipeline", self.facts(), card)
        return pipeline

    def export(self, parts: Mapping[str, nn.Module], out: Path) -> None:
        """The Trainer's delivery as a pipeline, and as an adapter where one was trained; its
        figures come later."""
        denoiser: Any = parts["network"]
        network = denoiser.network
        assert self.teacher is not None or not has_adapters(network)
        if has_adapters(network) and not _fits(network, self.teacher):
            say("the adapters belong on a changed network, so they leave merged into it only")
        elif has_adapters(network):
            save_adapter(
                self.modality.pipeline(network, self.method.scheduler), network, out / "lora"
            )
        self.save(merged(network), out, self.card(None))

    def evaluate(self, pipeline: Any) -> dict[str, Any] | None:
        """The figures of the delivered pipeline; None where the settings leave them out."""
        settings, label = self.settings.run, f"{self.method.name} (student)"
        precision = settings.evaluate_precision
        if not settings.evaluate_n:
            return None
        if not self.modality.has_reference():
            say(f"no figures against real data are known for {self.modality.name}: left out")
            return None
        theirs = []
        if self.teacher is None:
            ours = [
                Contender(self.method.name, pipeline, k, 1.0, precision)
                for k in settings.evaluate_steps
            ]
        else:
            facts = self.facts()
            ours = [Contender(label, pipeline, facts["steps"], facts["guidance"], precision)]
            name, guidance = short_name(self.teacher.name), self.method.stages()[0].guidance
            theirs = [
                Contender(name, self.teacher.pipeline, k, guidance, precision)
                for k in settings.evaluate_steps
            ]
        return figures(
            ours,
            theirs,
            self.modality,
            self.modality.reference(),
            settings.evaluate_n,
            settings.evaluate_seeds,
            settings.bootstraps,
            quiet=False,
        )

    def conclude(self, out: Path, result: Result) -> Any:
        """Evaluate what was exported, put the figures on its card, and write the report."""
        pipeline = hub.Pipeline.from_pretrained(out / "pipeline")
        found = self.evaluate(pipeline)
        if found is not None:
            hub.save_pipeline(pipeline, out / "pipeline", self.facts(), self.card(found))
            write_text(out / "metrics.json", json.dumps(found, indent=1) + "\n")
            print(table(found))
        write_report(out)
        say(f"pipeline: {out / 'pipeline'}; report: {out / REPORT}")
        if not result.finished:
            say(f"stopped at step {result.steps}; go on with --resume")
        return hub.Pipeline.from_pretrained(out / "pipeline")

    def card(self, result: dict[str, Any] | None) -> str:
        """What the model card says of training and figures."""
        from genkit import __version__

        flat = self.settings.flat()
        lines = ["## How it was trained", f"By genkit {__version__}, with these settings:", "```"]
        lines += [f"{name} = {value!r}" for name, value in flat.items()]
        lines.append("```")
        if result is not None:
            lines += ["## Figures", "```", table(result), "```"]
        return "\n".join(lines)


def _fits(network: Any, teacher: Any) -> bool:
    """Whether a student's network is one of its teacher's class and config."""
    theirs = teacher.denoiser.network
    return type(network) is type(theirs) and dict(network.config) == dict(theirs.config)


def description(facts: Mapping[str, Any]) -> str:
    """One line of what a trained pipeline is, from what it remembers."""
    steps, of = facts["steps"], f" of {facts['teacher']}" if "teacher" in facts else ""
    number = f"{steps} step" + ("" if steps == 1 else "s")
    return f"{facts['data']} in {number}: {facts['method']}{of}"


def say(sentence: str) -> None:
    """Tell the person at the terminal, beside what the command prints."""
    print(sentence, file=sys.stderr, flush=True)
