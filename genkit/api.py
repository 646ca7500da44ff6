"""What a person does with genkit from Python: train a teacher, distil it, evaluate a pipeline.

    teacher = genkit.train("digits", "runs/teacher")
    student = genkit.distill("digits-teacher", "reflow", "digits", "runs/reflow", max_steps=2000)
    genkit.evaluate(student, against="digits-teacher")

The command line is a thin skin over these. A run's folder holds everything about it; settings are
keywords, those of the method, the trainer and the run by their plain names.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from genkit import catalogue, hub
from genkit.acceleration.training_attention import quicken_training
from genkit.data import default_method, open_data
from genkit.data.base import Prompts
from genkit.denoisers.base import Denoiser
from genkit.denoisers.causal import network_denoiser
from genkit.denoisers.diffusers import Loaded
from genkit.evaluation import evaluate
from genkit.lora import adapted
from genkit.methods.base import Method, begin_student
from genkit.modalities import Modality, modality
from genkit.networks.size import parameters, parsed, resized
from genkit.opening import fill, open_kin, open_teacher, picture_size
from genkit.runs import REPORT, Run, Teacher, say
from genkit.settings import RunConfig, Settings
from genkit.training.checkpoints import Checkpoints
from genkit.training.folder import check_folder
from genkit.training.trainer import Trainer

__all__ = ["distill", "evaluate", "finished", "read_config", "train"]

QUICKSTART = {"teacher": "emoji-teacher", "method": "dmd2", "out": "runs/quickstart"}


def train(
    data: str,
    out: str | os.PathLike[str],
    method: str | None = None,
    resume: bool = False,
    start: Any = None,
    **config: Any,
) -> Any:
    """Train a teacher on a data set in the folder `out`, and return its pipeline.

    method: by default the data's own, mostly flow_matching. resume: go on with the unfinished run
    in `out`; a finished one is opened. start: the pipeline of an earlier teacher, whose weights
    this one begins with. config: any setting of the method, the trainer or the run.
    ValueError for what cannot be, before anything is made; Collapse if training goes wrong,
    Interrupted (saved) at Ctrl-C, OSError for a full disk.
    """
    run, record = prepare_teacher(data, method, start, **config)
    return _go(run, record, Path(out), resume)


def prepare_teacher(
    data: str, method: str | None = None, start: Any = None, **config: Any
) -> tuple[Run, dict[str, Any]]:
    """The run that `train` goes, and its record: all that can be refused is refused here."""
    method = method or default_method(data)
    if catalogue.method(method).facts["has_teacher"]:
        raise ValueError(f"{method} needs a teacher: use distill, or genkit train-distill {method}")
    settings = Settings.of(catalogue.method_class(method), config, data)
    if settings.run.lora:
        raise ValueError("lora adapts a trained network; training from nothing has none")
    if settings.run.student_size:
        raise ValueError(
            "student_size is of a student; a teacher has the size of its data's network"
        )
    record = {"command": "train", "method": method, "data": data, "settings": settings.flat()}
    samples = open_data(data, settings.run.size)
    if isinstance(samples, Prompts):
        raise ValueError(f"{data} holds prompts without pictures; a teacher is trained on samples")
    kind = modality(samples)
    if settings.run.decoder:
        kind = kind.decoded_by(settings.run.decoder)
    earlier = None
    if start is not None:
        loaded, name, _ = open_teacher(start)
        earlier, hashed = loaded.pipeline, hub.weights_hash(loaded.denoiser)
        record |= {"start": name, "start_weights": hashed}
    denoiser = fresh_denoiser(kind, catalogue.method_class(method), settings.method, earlier)
    built = _method(method, settings, denoiser, kind)
    return Run(built, settings, kind, samples, None, start=earlier), record


def distill(
    teacher: Any = QUICKSTART["teacher"],
    method: str = QUICKSTART["method"],
    data: str | None = None,
    out: str | os.PathLike[str] = QUICKSTART["out"],
    resume: bool = False,
    student: Any = None,
    teachers: Sequence[Any] = (),
    **config: Any,
) -> Any:
    """Train a few-step student of a teacher in the folder `out`, and return its pipeline.

    teacher: a pipeline, a folder, a shipped name or a hub id. data: a data set, by default the one
    the teacher was trained on. student: the pipeline of an earlier student to go on with, instead
    of beginning at the teacher. teachers: further ones, for a method that merges several. resume,
    config and errors: as for `train`.
    """
    run, record = prepare(teacher, method, data, student, teachers, **config)
    return _go(run, record, Path(out), resume)


def prepare(
    teacher: Any,
    method: str,
    data: str | None = None,
    student: Any = None,
    teachers: Sequence[Any] = (),
    **config: Any,
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
    others, named = _further(method, loaded, teachers)
    for each in (who.denoiser, *others):
        quicken_training(each)
    _check_levels(method, who.denoiser)
    built = _method(method, settings, who.denoiser, kind)
    built.teachers = 1 + len(others)
    # What cannot leave as a pipeline is said before it is trained.
    change = built.nets()["student"].change
    leaving = who.denoiser if change is None else change(who.denoiser)
    kind.pipeline(leaving.network, built.scheduler)
    record = {
        "command": "train-distill",
        "method": method,
        "teacher": who.name,
        "teacher_weights": hub.weights_hash(who.denoiser),
        "data": data,
        "settings": settings.flat(),
    }
    record |= named | _begin(built, student, loaded, settings.run)
    return Run(built, settings, kind, samples, who, others=others), record


def _further(
    method: str, first: Loaded, teachers: Sequence[Any]
) -> tuple[list[Denoiser], dict[str, Any]]:
    """(the teachers beside the first, what the record says of them)."""
    if not teachers:
        return [], {}
    known = catalogue.methods()
    if not known[method].facts.get("merges"):
        merging = ", ".join(name for name, entry in known.items() if entry.facts.get("merges"))
        raise ValueError(f"{method} distils one teacher; those that merge several: {merging}")
    owner = type(first.pipeline)
    if "style" not in inspect.signature(owner.__call__).parameters:
        raise ValueError(f"{owner.__name__} takes no style, by which a merged student is asked")
    found = [open_kin("teacher", each, first) for each in teachers]
    hashes = [hub.weights_hash(denoiser) for denoiser, _ in found]
    names = [name for _, name in found]
    return [each for each, _ in found], {"teachers": names, "teachers_weights": hashes}


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


def _begin(method: Method, student: Any, teacher: Loaded, settings: RunConfig) -> dict[str, str]:
    """Let the student begin as an earlier one, with adapters, or both, or fresh and of another
    size; what the record says."""
    earlier, record, size = None, {}, parsed(settings.student_size)
    if size:
        if student is not None:
            raise ValueError("an earlier student has its size; leave out student or student_size")
        resized(teacher.denoiser, size)  # what cannot be built is said before pairs are made
    if student is not None:
        earlier, name = open_kin("student", student, teacher)
        quicken_training(earlier)
        record = {"student": name, "student_weights": hub.weights_hash(earlier)}

    def begin(start: nn.Module) -> nn.Module:
        if size:
            assert isinstance(start, Denoiser), "a student is a denoiser"
            begun = resized(start, size)
            quicken_training(begun)
            return _told(begun, start)
        return copy.deepcopy(start if earlier is None else earlier).requires_grad_(True)

    def adapt(network: nn.Module) -> nn.Module:
        assert settings.lora is not None
        return _told(adapted(network, settings.lora), network)

    if settings.lora:
        begin_student(method, begin, adapt)
    elif earlier is not None or size:
        begin_student(method, begin)
    return record


def _told(student: nn.Module, whole: nn.Module) -> nn.Module:
    """The student, with what it trains said beside the network it stands for."""
    trained, of = parameters(student, trained=True), parameters(whole)
    say(f"the student trains {trained:,} parameters, {trained / of:.2%} of {of:,}")
    return student


def _method(name: str, settings: Settings, denoiser: Denoiser, kind: Modality) -> Any:
    """The method on the denoiser's path, with the scheduler its student will leave with."""
    built = catalogue.method_class(name)(
        settings.method,
        denoiser.path,
        kind.latent,
        kind.distance,
        kind.uncond,
        kind.decode_for_loss,
    )
    built.levels = denoiser.levels
    given = settings.flat()
    for name, least in (("alone", 0), ("opening", 1)):
        if built.levels == 1 and given.get(name, least) > least:
            raise ValueError(f"{name} is for sequences of frames, these are none; leave it out")
    built.scheduler = hub.make_scheduler(
        built.sampler(),
        denoiser.path,
        denoiser.kind,
        denoiser.time_scale,
        denoiser.sigma_data,
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
        network=lambda: begun(run),
        teacher=None if teacher is None else teacher.denoiser,
        make_pairs=None if teacher is None else run.make_pairs,
        preview=run.preview(),
        measure=run.measure(),
        export=run.export,
        record=record,
        meter=run.meter,
        teachers=run.others,
    )
    return run.conclude(out, trainer.run(resume=(out / "config.json").exists()))


def reopen(out: str | os.PathLike[str], **config: Any) -> Run:
    """The run that lies finished in the folder `out`, as it was prepared; config: settings that
    are to be other ones. ValueError for a folder that holds none, or whose teacher is not here."""
    out = Path(out)
    if not (out / "config.json").exists() or not finished(out):
        raise ValueError(f"{out} holds no finished run; give the folder of one")
    held = read_config(out / "config.json") | config
    act = {"train": prepare_teacher, "train-distill": prepare}[held.pop("command")]
    return act(**held)[0]


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
    names = ("command", "method", "teacher", "student", "start", "data")
    told = {name: held[name] for name in names if name in held}
    if "teachers" in held:
        told["teachers"] = tuple(held["teachers"])
    return told | settings


def begun(run: Run) -> Any:
    """The denoiser that a run without a teacher begins with."""
    return fresh_denoiser(run.modality, type(run.method), run.settings.method, run.start)


def fresh_denoiser(kind: Modality, method: type[Method], config: Any, start: Any = None) -> Any:
    """A network of this data, untrained or with the weights of the pipeline `start`, as the method
    makes a Denoiser of it, on the path that its modality names unless it says otherwise."""
    network = kind.network()
    if start is not None:
        fill(network, kind.pipeline(network, None), start)
    quicken_training(network)
    bare = network_denoiser(network, kind.path, kind.kind, kind.time_scale)
    return method.fresh(config, bare)
