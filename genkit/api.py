"""What a person does with genkit from Python: train a teacher, distil it, evaluate a pipeline.

    teacher = genkit.train("digits", "runs/teacher")
    student = genkit.distill("digits-teacher", "reflow", "digits", "runs/reflow", max_steps=2000)
    genkit.evaluate(student, against="digits-teacher")

The command line is a thin skin over these. A run's folder holds everything about it; settings are
keywords, those of the method, the trainer and the run by their plain names.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from genkit import catalogue, hub
from genkit.acceleration.training_attention import quicken_training
from genkit.data import open_data
from genkit.data.base import Prompts
from genkit.denoisers.base import Denoiser
from genkit.denoisers.causal import network_denoiser
from genkit.denoisers.diffusers import Loaded, as_denoiser, load_denoiser
from genkit.evaluation import evaluate
from genkit.latents import vae_scale
from genkit.lora import adapted
from genkit.methods.base import Method, begin_student
from genkit.modalities import Modality, modality
from genkit.paths import RectifiedFlow
from genkit.runs import REPORT, Run, Teacher, say
from genkit.settings import Settings
from genkit.training.checkpoints import Checkpoints
from genkit.training.folder import check_folder
from genkit.training.trainer import Trainer

__all__ = ["distill", "evaluate", "finished", "read_config", "train"]

QUICKSTART = {"teacher": "emoji-teacher", "method": "dmd2", "out": "runs/quickstart"}


def train(
    data: str,
    out: str | os.PathLike[str],
    method: str = "flow_matching",
    resume: bool = False,
    **config: Any,
) -> Any:
    """Train a teacher on a data set in the folder `out`, and return its pipeline.

    resume: go on with the unfinished run in `out`; a finished one is opened. config: any setting of
    the method, the trainer or the run. ValueError for what cannot be, before anything is made;
    Collapse if training goes wrong, Interrupted (saved) at Ctrl-C, OSError for a full disk.
    """
    if catalogue.method(method).facts["has_teacher"]:
        raise ValueError(f"{method} needs a teacher: use distill, or genkit train-distill {method}")
    settings = Settings.of(catalogue.method_class(method), config, data)
    if settings.run.lora:
        raise ValueError("lora adapts a trained network; training from nothing has none")
    record = {"command": "train", "method": method, "data": data, "settings": settings.flat()}
    samples = open_data(data, settings.run.size)
    if isinstance(samples, Prompts):
        raise ValueError(f"{data} holds prompts without pictures; a teacher is trained on samples")
    kind = modality(samples)
    denoiser = fresh_denoiser(kind)
    built = _method(method, settings, denoiser, kind)
    return _go(Run(built, settings, kind, samples, None), record, Path(out), resume)


def distill(
    teacher: Any = QUICKSTART["teacher"],
    method: str = QUICKSTART["method"],
    data: str | None = None,
    out: str | os.PathLike[str] = QUICKSTART["out"],
    resume: bool = False,
    student: Any = None,
    **config: Any,
) -> Any:
    """Train a few-step student of a teacher in the folder `out`, and return its pipeline.

    teacher: a pipeline, a folder, a shipped name or a hub id. data: a data set, by default the one
    the teacher was trained on. student: the pipeline of an earlier student to go on with, instead
    of beginning at the teacher. resume, config and errors: as for `train`.
    """
    run, record = prepare(teacher, method, data, student, **config)
    return _go(run, record, Path(out), resume)


def prepare(
    teacher: Any, method: str, data: str | None = None, student: Any = None, **config: Any
) -> tuple[Run, dict[str, Any]]:
    """The run that `distill` goes, and its record: all that can be refused is refused here."""
    if not catalogue.method(method).facts["has_teacher"]:
        raise ValueError(f"{method} trains from data alone: use train, or genkit train")
    loaded, name, facts = open_teacher(teacher)
    data = data or facts.get("data")
    if data is None:
        raise ValueError(f"{name} does not say what it was trained on; name the data")
    settings = Settings.of(catalogue.method_class(method), config, data)
    settings.take_teacher(loaded.guidance, loaded.sampler)
    steps, order = settings.run.pair_steps, settings.run.pair_order
    who = Teacher.of(name, loaded, steps, order, settings.trainer.batch_size)
    samples = open_data(data, picture_size(loaded))
    kind = modality(samples, loaded)
    if kind.latent != who.latent:
        raise ValueError(
            f"{who.name} makes samples {who.latent}, those of {data} are {kind.latent}"
        )
    quicken_training(who.denoiser)
    _check_levels(method, who.denoiser)
    built = _method(method, settings, who.denoiser, kind)
    # What cannot leave as a pipeline is said before it is trained.
    kind.pipeline(who.denoiser.network, built.scheduler)
    record = {
        "command": "train-distill",
        "method": method,
        "teacher": who.name,
        "teacher_weights": hub.weights_hash(who.denoiser),
        "data": data,
        "settings": settings.flat(),
    }
    record |= _begin(built, student, loaded, settings.run.lora)
    return Run(built, settings, kind, samples, who), record


def _check_levels(method: str, teacher: Denoiser) -> None:
    """ValueError where a method would give all frames of a sequence one noise level."""
    if teacher.levels == 1 or catalogue.method(method).facts.get("framewise"):
        return
    able = [
        name
        for name, entry in catalogue.methods().items()
        if entry.facts.get("framewise") and entry.facts["has_teacher"]
    ]
    raise ValueError(
        f"{method} gives a sample one noise level, and this teacher's frames each have their own; "
        f"choose one of {', '.join(able)}"
    )


def _begin(method: Method, student: Any, teacher: Loaded, rank: int | None) -> dict[str, str]:
    """Let the student begin as an earlier one, with adapters, or both; what the record says."""
    earlier, record = None, {}
    if student is not None:
        earlier, name = open_student(student, teacher)
        quicken_training(earlier)
        record = {"student": name, "student_weights": hub.weights_hash(earlier)}

    def begin(start: nn.Module) -> nn.Module:
        start = start if earlier is None else earlier
        return adapted(start, rank) if rank else copy.deepcopy(start).requires_grad_(True)

    if earlier is not None or rank:
        begin_student(method, begin)
    return record


def _method(name: str, settings: Settings, denoiser: Denoiser, kind: Modality) -> Any:
    """The method on the denoiser's path, with the scheduler its student will leave with."""
    built = catalogue.method_class(name)(
        settings.method, denoiser.path, kind.latent, kind.distance, kind.uncond
    )
    built.levels = denoiser.levels
    built.scheduler = hub.make_scheduler(
        built.sampler(), denoiser.path, denoiser.kind, denoiser.time_scale
    )
    return built


def _go(run: Run, record: Mapping[str, Any], out: Path, resume: bool) -> Any:
    """Train, export, evaluate and report in `out`; open it where that is all done."""
    check_out(out, record, resume)
    if resume and finished(out):
        say(f"{out} holds this run, finished: {out / REPORT}")
        return hub.Pipeline.from_pretrained(out / "pipeline")
    teacher = run.teacher
    trainer = Trainer(
        run.method,
        out,
        run.settings.trainer,
        streams=run.streams(),
        network=lambda: fresh_denoiser(run.modality),
        teacher=None if teacher is None else teacher.denoiser,
        make_pairs=None if teacher is None else run.make_pairs,
        preview=run.preview(),
        measure=run.measure(),
        export=run.export,
        record=record,
        meter=run.meter,
    )
    return run.conclude(out, trainer.run(resume=(out / "config.json").exists()))


def check_out(out: Path, record: Mapping[str, Any], resume: bool) -> None:
    """ValueError unless `out` is free, or holds this very run and `resume` is asked for.

    To resume where nothing is yet starts the run, so that one command serves after any kill.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose a folder for the run")
    begun = (out / "config.json").exists()
    if not resume and finished(out):
        raise ValueError(f"{out} holds a finished run (see {out / REPORT}); choose another folder")
    if begun:
        check_folder(out, record, resume)
    elif out.exists() and any(not each.name.startswith(".") for each in out.iterdir()):
        raise ValueError(f"{out} holds something that is no run; choose a new or empty folder")


def finished(out: Path) -> bool:
    """Whether the folder holds a run that took all its steps and has its report."""
    if not (out / REPORT).exists() or not (out / "pipeline" / "model_index.json").exists():
        return False
    wanted = read_config(out / "config.json")["max_steps"]
    return wanted in Checkpoints(out / "checkpoints").steps()


def read_config(file: str | os.PathLike[str]) -> dict[str, Any]:
    """A run's config.json as keywords for `train` or `distill`, whose name is under "command"."""
    try:
        held = json.loads(Path(file).read_text(encoding="utf-8"))
        settings = dict(held["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no config.json of a run ({error})") from error
    names = ("command", "method", "teacher", "student", "data")
    return {name: held[name] for name in names if name in held} | settings


def picture_size(teacher: Loaded) -> int:
    """Pixels of a side of what the teacher draws."""
    return teacher.latent[-1] * vae_scale(teacher.pipeline.components.get("vae"))


def open_teacher(teacher: Any) -> tuple[Loaded, str, dict[str, Any]]:
    """(teacher, its name, what its pipeline remembers) of a pipeline or the name of one."""
    named = isinstance(teacher, str | os.PathLike)
    loaded = load_denoiser(teacher) if named else as_denoiser(teacher)
    facts = hub.trained(loaded.pipeline)
    name = str(teacher) if named else facts.get("description", type(teacher).__name__)
    return loaded, name, facts


def open_student(student: Any, teacher: Loaded) -> tuple[Denoiser, str]:
    """(an earlier student, its name) of a pipeline or the name of one.

    ValueError where another teacher's distillation cannot go on with it: its samples, path, kind of
    prediction, text encoder or autoencoder are not the teacher's.
    """
    loaded, name, _ = open_teacher(student)
    mine, theirs = loaded.denoiser, teacher.denoiser
    facts = {
        "samples": (loaded.latent, teacher.latent),
        "path": (mine.path.config(), theirs.path.config()),
        "kind of prediction": (mine.kind, theirs.kind),
        "time scale": (mine.time_scale, theirs.time_scale),
        "other parts": (_other_parts(loaded), _other_parts(teacher)),
    }
    for what, (here, there) in facts.items():
        if here != there:
            raise ValueError(
                f"the student {name} has {what} {here}, the teacher {there}; go on with a student "
                "of this teacher"
            )
    return mine, name


def _other_parts(loaded: Loaded) -> dict[str, str]:
    """{part: the beginning of its weights' hash} of all but the denoising network."""
    return {
        name: hub.weights_hash(part)[:12]
        for name, part in loaded.pipeline.components.items()
        if isinstance(part, nn.Module) and name != loaded.family.role
    }


def fresh_denoiser(kind: Modality) -> Denoiser:
    """An untrained network of this data as a Denoiser on rectified flow, network time 0..1000."""
    network = kind.network()
    quicken_training(network)
    return network_denoiser(network, RectifiedFlow(), kind.kind, 1000.0)
