"""The training loop: stages, turns, averages, checkpoints, previews, measurements.

It knows no modality and no method: a method names its networks, turns and losses, streams give
batches by number, and the caller hands in how to measure, preview and export. Built on accelerate.
A run killed at any moment resumes from its last checkpoint and ends, on a CPU, with the same bits.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from genkit.data.streams import Stream
from genkit.denoisers.base import Denoiser
from genkit.methods.base import Method, Stage
from genkit.training.checkpoints import Checkpoints, is_full, write_text
from genkit.training.config import TrainerConfig
from genkit.training.folder import check_folder, open_folder
from genkit.training.health import Collapse
from genkit.training.log import Log, measured, read_log
from genkit.training.meter import Meter
from genkit.training.plan import Span, plan
from genkit.training.preview import Preview
from genkit.training.report import write_report
from genkit.training.roles import Groups, Networks
from genkit.training.stopping import Interrupted, Stop
from genkit.training.turns import Turns, make_accelerator
from genkit.training.watching import Measure, Watch

MakePairs = Callable[[Denoiser, Stage, int], Stream]
Export = Callable[[dict[str, nn.Module], Path], None]


@dataclass
class Result:
    """How a run ended. best_step and best_distance are None where nothing was measured."""

    out: Path
    steps: int
    finished: bool
    best_step: int | None = None
    best_distance: float | None = None
    history: list[Mapping[str, Any]] = field(default_factory=list)


class Trainer:
    """One run of one method in one folder.

    streams: {name: Stream} of what `method.needs`; "pairs" may be left to make_pairs(teacher of
    the stage, stage, its number). network: makes a fresh network, for roles that start from none.
    teacher: without guidance; a stage's guidance is put around it here. teachers: further ones, of
    a method that merges. measure, preview, export:
    see `Measure`, `Preview`; export({part: module}, out) is called once, at the end, with
    `method.deliver` of the best student. record: the whole configuration, written to config.json.
    meter: counts what training costs, which ends in cost.json.
    """

    def __init__(
        self,
        method: Method,
        out: Path,
        config: TrainerConfig,
        *,
        streams: Mapping[str, Stream],
        network: Callable[[], Denoiser] | None = None,
        teacher: Denoiser | None = None,
        make_pairs: MakePairs | None = None,
        preview: Preview | None = None,
        measure: Measure | None = None,
        export: Export | None = None,
        record: Mapping[str, Any] | None = None,
        meter: Meter | None = None,
        teachers: Sequence[Denoiser] = (),
    ) -> None:
        self.method, self.out, self.config = method, Path(out), config
        self.make_pairs, self.export = make_pairs, export
        self.record = record or {"method": method.name, "trainer": asdict(config)}
        self.plan = plan(method.stages(), config.max_steps)
        self.accelerator = make_accelerator(config)
        self.main = self.accelerator.is_main_process
        device = self.accelerator.device
        self.networks = Networks(
            method, network, teacher, config.seed, device, config.muon, config.slow, teachers
        )
        self.meter = meter or Meter()
        self.meter.processes = self.accelerator.num_processes
        self.turns = Turns(method, self.networks, config, self.accelerator)
        self.turns.streams = dict(streams)
        self.checkpoints = Checkpoints(self.out / "checkpoints", keep_weights=config.keep_weights)
        samples = self.out / "samples"
        self.watch = Watch(method, self.networks, self.checkpoints, preview, measure, samples)
        self.step = 0

    def run(self, resume: bool = False) -> Result:
        """Train to the end, or go on from the last checkpoint.

        ValueError for a folder of another run or a changed configuration, Collapse, Interrupted
        after a signal (saved), OSError for a full disk (the last checkpoint untouched).
        """
        if self.main:
            check_folder(self.out, self.record, resume)
        self.accelerator.wait_for_everyone()
        try:
            return self._run(resume)
        except Exception as error:
            if not is_full(error):
                raise
            kept = self.checkpoints.steps()
            there = (
                f"the checkpoint of step {kept[-1]} is untouched" if kept else "nothing was kept"
            )
            raise OSError(
                f"the disk of {self.out} is full at step {self.step}; {there}; free some space and "
                "go on with the same command and --resume"
            ) from error

    def _run(self, resume: bool) -> Result:
        if self.main:
            open_folder(self.out, self.record, resume)
        self.accelerator.wait_for_everyone()
        position = self._load() if resume else 0
        self.log = Log(self.out, position, self.step) if self.main else None
        self.meter.watch(*self.networks.modules())
        try:
            with Stop() as stop:
                self._train(stop)
        except Collapse as error:
            raise self._collapsed(error) from None
        finally:
            self.meter.leave(*self.networks.modules())
            if self.log is not None:
                self.log.close()
        return self._finish()

    def _train(self, stop: Stop) -> None:
        from tqdm import tqdm

        began, limit = time.monotonic(), self.config.max_minutes
        with tqdm(
            total=self.config.max_steps,
            initial=self.step,
            delay=2,
            # A log file wants a line now and then, a person at a terminal ten a second.
            mininterval=0.1 if sys.stderr.isatty() else 10,
            file=sys.stderr,
            desc=self.method.name,
            disable=not self.main,
        ) as self.bar:
            for number, span in enumerate(self.plan):
                if self.step >= span.last:
                    continue
                roles = self._enter(number, span)
                while self.step < span.last:
                    moment = span.moment(self.step)
                    with self.meter.step(span.stage.name):
                        for turn in self.method.turns(moment):
                            self.turns.run(turn, roles, moment)
                    self.step += 1
                    self.bar.update(1)
                    late = limit is not None and time.monotonic() - began > 60 * limit
                    if self._after(span, stop.asked, late):
                        return

    def _enter(self, number: int, span: Span) -> Any:
        """Begin a stage, or go on in the middle of one."""
        self.watch.steps = span.stage.steps
        if self.step == span.first:
            self.networks.enter(span.stage)
            if self.main:
                self.watch.begin_stage()
        wanted = "pairs" in self.method.needs
        if wanted and (span.stage.new_data or "pairs" not in self.turns.streams):
            self._pairs(number)
        missing = [name for name in self.method.needs if name not in self.turns.streams]
        if missing:
            raise ValueError(
                f"{self.method.name} needs the stream {missing[0]!r}; there are: "
                f"{', '.join(self.turns.streams) or 'none'}"
            )
        return self.networks.view(span.stage)

    def _pairs(self, number: int) -> None:
        # In the middle of a stage that keeps its pairs, a resumed run needs those of the stage
        # that made them.
        number = max((k for k in range(number + 1) if self.plan[k].stage.new_data), default=0)
        stage = self.plan[number].stage
        teacher = self.networks.teacher(stage)
        if self.make_pairs is None or teacher is None:
            if "pairs" in self.turns.streams:
                return
            raise ValueError(f"{self.method.name} needs teacher pairs; give make_pairs and teacher")
        with self.accelerator.main_process_first():
            self.turns.streams["pairs"] = self.make_pairs(teacher, stage, number)

    def _after(self, span: Span, asked: bool, late: bool) -> bool:
        """What follows a step; True to stop."""
        config, end = self.config, self.step == self.config.max_steps
        asked, late = self._agree(asked, late)
        save = asked or late or end or self.step == span.last
        save = save or self.step % config.checkpoint_every == 0
        if save or self.step % config.log_every == 0:
            self._log_means(span)
        measured, shown = (
            every > 0 and (end or late or self.step % every == 0)
            for every in (config.measure_every, config.sample_every)
        )
        if measured or shown:
            self._look(span, measured, shown)
        if save:
            self.save()
        if asked and not end:
            raise Interrupted(
                f"saved at step {self.step}; go on with the same command and --resume"
            )
        if late:
            self._say(f"stopped at step {self.step} of {config.max_steps} after max_minutes")
        return late

    def _agree(self, *flags: bool) -> tuple[bool, ...]:
        """Whether any process says so, for each flag."""
        if self.accelerator.num_processes == 1:
            return flags
        mine = torch.tensor(flags, dtype=torch.float32, device=self.accelerator.device)
        total = self.accelerator.reduce(mine, reduction="sum")
        assert isinstance(total, Tensor)
        return tuple(value > 0 for value in total.tolist())

    def _say(self, text: str) -> None:
        if self.main:
            self.bar.write(text, file=sys.stderr)

    def _log_means(self, span: Span) -> None:
        means = self.turns.means()
        if self.log is not None:
            self.log.write(self.step, stage=span.stage.name, turn=self.turns.index, **means)
            total = next((value for key, value in means.items() if key.endswith("total")), None)
            self.bar.set_postfix(loss=total, stage=span.stage.name, refresh=False)

    def _look(self, span: Span, measured: bool, shown: bool) -> None:
        """Look at the student in the main process; all stop if it finds a collapse."""
        seen: list[str | None] = [None]
        if self.log is not None:
            try:
                progress, taken = span.progress(self.step), self.step - span.first
                figures = self.watch.look(self.step, progress, measured, shown, taken)
                self.log.write(self.step, **figures)
            except Collapse as error:
                seen = [str(error)]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(seen)
        if seen[0] is not None:
            raise Collapse(seen[0])

    def save(self) -> None:
        """Write a checkpoint of this step."""
        if self.main:
            self.checkpoints.save(self.step, *self._state())
            self.checkpoints.save_weights(self.step, self.networks.raw_tensors())
        self.accelerator.wait_for_everyone()

    def _state(self) -> tuple[Groups, dict[str, Any]]:
        assert self.log is not None
        groups = {**self.networks.tensors(), "method": dict(self.method.state_dict())}
        return groups, {
            "step": self.step,
            "turn": self.turns.index,
            "counts": self.networks.counts(),
            "log": self.log.position(),
            "cost": self.meter.state(),
            **self.watch.state(),
        }

    def _load(self) -> int:
        """Take up the last whole checkpoint; the length of log.jsonl that belongs to it."""
        found = self.checkpoints.load()
        if found is None:
            return 0
        tensors, state, damage = found
        for each in damage:
            print(f"{each}; going on from step {state['step']}", file=sys.stderr)
        self.step, self.turns.index = state["step"], state["turn"]
        self.networks.replay(span.stage for span in self.plan if span.first < self.step)
        method = tensors.pop("method")
        self.networks.load(tensors, state["counts"])
        self.method.load_state_dict(method)
        self.watch.load(state)
        if "cost" in state:  # not in a checkpoint of an earlier genkit
            self.meter.load(state["cost"])
        return state["log"]

    def _write_cost(self) -> None:
        if self.main:
            told = {"steps": self.step, **asdict(self.meter.total()), **self.meter.state()}
            write_text(self.out / "cost.json", json.dumps(told, indent=1) + "\n")

    def _collapsed(self, error: Collapse) -> Collapse:
        """Keep the state it was seen in apart from the good ones, and say what there is."""
        kept = self.checkpoints.steps()
        there = f"the last checkpoint is of step {kept[-1]}" if kept else "no checkpoint was made"
        if self.watch.best is not None:
            there += f", the best student of step {self.watch.best['step']}"
        text = f"training collapsed at step {self.step}: {error} ({there})"
        if self.log is not None:
            self.log.write(self.step, collapse=text)
            self.checkpoints.save_collapsed(*self._state())
            self._write_cost()
            write_report(self.out)
        return Collapse(text)

    def _finish(self) -> Result:
        self._write_cost()
        if self.main and self.export is not None:
            self.export(self.watch.delivered(), self.out)
        self.accelerator.wait_for_everyone()
        best = self.watch.best or {"step": None, "distance": None}
        finished = self.step >= self.config.max_steps
        history = measured(read_log(self.out))
        return Result(self.out, self.step, finished, best["step"], best["distance"], history)
