"""Where pipelines come from and go to: folders, shipped names, hub ids, and their schedulers.

A saved pipeline is a diffusers folder whose model_index.json has one more key, `_genkit`: a format
version and the trained defaults (steps, guidance, method, teacher). Stock diffusers drops it.
`DiffusionPipeline` finds no class outside diffusers, so `Pipeline` reads the folder and dispatches.
Nothing heavy is imported with this module: `genkit list` reads it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from genkit.folders import (
    FORMAT,
    INDEX,
    PICKLES,
    check,
    components,
    find_class,
    missing_weights,
    one_sentence,
    package_folder,
    read_index,
    sentence,
)

if TYPE_CHECKING:
    from torch import nn

    from genkit.paths import Kind, Path
    from genkit.sampling import Sampler

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def make_scheduler(
    sampler: Sampler, path: Path, kind: Kind, time_scale: float, sigma_data: float | None = None
) -> Any:
    """The diffusers scheduler that runs `sampler` on `path` for a network that predicts `kind`.

    A stock one where its config can hold the grid and it takes the same steps; else ours.
    sigma_data: `Denoiser.sigma_data`, of a network with EDM's preconditioning.
    """
    from genkit.schedulers.stock import stock_scheduler

    stock = stock_scheduler(sampler, path, kind, time_scale)
    if stock is not None and sigma_data is None:
        return stock
    config: dict[str, Any] = {
        "path": path.config(),
        "prediction_type": kind,
        "time_scale": float(time_scale),
        "steps": sampler.steps,
        "times": None if sampler.times is None else list(sampler.times),
        "network_times": None if sampler.network_times is None else list(sampler.network_times),
        "start_scale": float(sampler.start_scale),
        "opening": sampler.opening,
        "sigma_data": sigma_data,
    }
    if sampler.stochastic:
        if sampler.order != 1:
            raise ValueError(
                f"a stochastic sampler of order {sampler.order} does not exist; use order 1"
            )
        from genkit.schedulers.consistency import ConsistencyScheduler

        return ConsistencyScheduler(**config, eta=float(sampler.eta))
    from genkit.schedulers.flow import FlowScheduler

    return FlowScheduler(**config, solver_order=sampler.order)


def _shipped_folder() -> FilePath:
    return package_folder("genkit_pipelines") / "pretrained"


def shipped() -> dict[str, str]:
    """{name: one-line description} of the pipelines that come with genkit."""
    folders = sorted(index.parent for index in _shipped_folder().glob(f"*/{INDEX}"))
    return {
        folder.name: read_index(folder).get("_genkit", {}).get("description", "")
        for folder in folders
    }


def resolve(name_or_dir: str | os.PathLike[str]) -> FilePath:
    """The folder of a pipeline: a folder, a shipped name, or a hub id (downloaded first).

    ValueError for anything else, with the nearest shipped name.
    """
    folder = FilePath(name_or_dir)
    if folder.is_dir():
        return folder
    name, names = str(name_or_dir), shipped()
    if name in names:
        return _shipped_folder() / name
    if HUB_ID.fullmatch(name):
        return _download(name)
    near = difflib.get_close_matches(name, names, 1, 0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"no pipeline {name!r}: it is neither a folder nor a shipped pipeline; {guess}"
        f"shipped: {', '.join(names) or 'none'}"
    )


def _download(hub_id: str) -> FilePath:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    ignored = [f"*{ending}" for ending in (*PICKLES, ".onnx", ".msgpack", ".h5", ".py")]
    try:
        return FilePath(snapshot_download(hub_id, ignore_patterns=ignored))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ValueError(
            f"no folder {hub_id!r} here, and the hub could not give a pipeline of this name "
            f"({sentence(error)}); check the name, or the network and HF_HUB_OFFLINE"
        ) from error


class Pipeline:
    """Opens any pipeline; what comes back is a diffusers pipeline, not an instance of this."""

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike[str], **kwargs: Any) -> Any:
        """A folder, a shipped name or a hub id, as the diffusers pipeline its index names.

        kwargs go to diffusers' own from_pretrained. ValueError, in one sentence, for what cannot
        be opened.
        """
        folder = resolve(name_or_dir)
        pipeline_class = find_class(read_index(folder))
        if pipeline_class.__module__.startswith("genkit_pipelines."):
            return pipeline_class.from_pretrained(folder, **kwargs)
        return load(folder, pipeline_class.from_pretrained, **kwargs)


def load(folder: FilePath, opener: Callable[..., Any], **kwargs: Any) -> Any:
    """opener(folder, **kwargs) with the folder checked and its trained defaults kept on it."""
    import torch
    from diffusers.models.modeling_utils import ModelMixin
    from transformers import PreTrainedModel

    index = check(folder)
    # diffusers opens its models in float32, transformers in the precision they were saved in: a
    # folder of 16-bit weights would come out as two. Training and samplers are in float32.
    if "torch_dtype" not in kwargs:
        kwargs.setdefault("dtype", torch.float32)
    if not kwargs.setdefault("use_safetensors", True):
        raise ValueError("genkit opens safetensors only; leave use_safetensors out")
    with one_sentence(folder):
        pipeline = opener(folder, **kwargs)
    for name, component in pipeline.components.items():
        if name in kwargs or not isinstance(component, (ModelMixin, PreTrainedModel)):
            continue
        missing = missing_weights(folder / name, component)
        if missing and isinstance(component, PreTrainedModel):
            # transformers translates the names of old checkpoints: what it says counts.
            model: Any = type(component)
            _, told = model.from_pretrained(
                folder / name, output_loading_info=True, local_files_only=True
            )
            missing = sorted(told["missing_keys"])
        if missing:
            raise ValueError(
                f"{folder / name} lacks {len(missing)} of its weights, {missing[0]} among them"
            )
        align(component)
    if "_genkit" in index:
        pipeline.register_to_config(_genkit=index["_genkit"])
    return pipeline


def align(module: nn.Module) -> None:
    """Move weights that lie where a file was mapped, at any byte, to memory as torch allocates it:
    a matrix product rounds by where its operands begin, and what was saved would not be what is
    opened, bit for bit."""
    for each in (*module.parameters(), *module.buffers()):
        if each.device.type == "cpu" and each.data_ptr() % 64:
            each.data = each.data.clone()


def hide_loading_bars() -> None:
    """Turn off the bars diffusers and transformers show while a folder is opened, for the whole
    process."""
    from diffusers.utils import logging
    from transformers.utils import logging as transformers_logging

    logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def trained(pipeline: Any) -> dict[str, Any]:
    """The `_genkit` defaults a pipeline was saved with, {} for one that has none."""
    return dict(pipeline.config.get("_genkit", {}))


def save_pipeline(
    pipeline: Any, out: str | os.PathLike[str], defaults: Mapping[str, Any], card: str = ""
) -> FilePath:
    """Save `pipeline` in the folder `out`, written aside and renamed, and return the folder.

    defaults: steps, guidance, method, teacher, description, ...; they become the pipeline's
    defaults. card: what its README.md says beside how to open it, in Markdown. An earlier
    pipeline in `out` is replaced; ValueError where `out` holds anything else. OSError where it
    cannot be written; `out` is then as it was.
    """
    from safetensors import SafetensorError

    from genkit.cards import model_card

    out = FilePath(out)
    aside = out.parent / f".{out.name}.tmp"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _recover(aside, out)
        check_replaceable(out)
        kept = {"format": FORMAT, "class": type(pipeline).__module__, **defaults}
        pipeline.register_to_config(_genkit=json.loads(json.dumps(kept)))
        pipeline.save_pretrained(aside)
        _forget_origin(aside)
        parts = components(read_index(aside))
        (aside / "README.md").write_text(model_card(type(pipeline), kept, parts, card))
        _put(aside, out)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, (OSError, SafetensorError)):
            raise OSError(
                f"the pipeline could not be saved in {out} ({sentence(error)}); what was there "
                "is untouched"
            ) from error
        raise
    return out


def _forget_origin(folder: FilePath) -> None:
    """Take out of a saved pipeline where its parts were opened: a path of this machine."""
    for file in [folder / INDEX, *folder.glob("*/config.json")]:
        held = json.loads(file.read_text(encoding="utf-8"))
        if held.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(held, indent=2) + "\n", encoding="utf-8")


def check_replaceable(out: FilePath) -> None:
    """ValueError unless `out` is absent, empty, or holds a pipeline of ours and nothing else."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; choose a folder to save the pipeline in")
    entries = {entry.name for entry in out.iterdir()}
    if not entries:
        return
    if INDEX not in entries or "_genkit" not in (index := read_index(out)):
        raise ValueError(f"{out} holds something else; choose a new or empty folder")
    extra = sorted(entries - {INDEX, "README.md", *components(index)})
    if extra:
        raise ValueError(
            f"{out} holds more than a pipeline ({extra[0]}); choose a new or empty folder"
        )


def _old(out: FilePath) -> FilePath:
    return out.parent / f".{out.name}.old"


def _recover(aside: FilePath, out: FilePath) -> None:
    """Clear what a killed `save_pipeline` left beside `out`; put back what it had set aside."""
    shutil.rmtree(aside, ignore_errors=True)
    if _old(out).exists() and not out.exists():
        _old(out).rename(out)
    shutil.rmtree(_old(out), ignore_errors=True)


def _put(aside: FilePath, out: FilePath) -> None:
    """Rename `aside` to `out`; what stood there is removed only after."""
    if out.exists():
        out.rename(_old(out))
    try:
        aside.rename(out)
    except OSError:
        if _old(out).exists():
            _old(out).rename(out)
        raise
    shutil.rmtree(_old(out), ignore_errors=True)


def weights_hash(module: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of a module's parameters and buffers."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
