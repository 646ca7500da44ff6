"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) of a student's Linear layers, by peft.

The student is a copy of the teacher that trains only its adapters; they begin at zero, so it begins
as the teacher. It leaves twice: merged, as a network of the teacher's own class and size, and as an
adapter file that stock diffusers (or peft, for families diffusers has no loader for) takes.
As diffusers' own training scripts do, the attention projections alone are adapted where a network
has such; the paper adapts queries and values.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")
ATTENTION += ("to_add_out",)  # these four are SD3's, of the text's tokens
# Pipelines with load_lora_weights, and what that calls the denoising network's layers.
LOADERS = {"StableDiffusionPipeline": "unet", "StableDiffusion3Pipeline": "transformer"}
# Parts that a method adds to the teacher's network: they begin at nothing, and train whole.
ADDED = {"second_time", "guidance", "style"}
PEFT_PREFIX = "base_model.model."  # of names in a file that PeftModel opens


def linear_layers(network: nn.Module) -> list[str]:
    """Names of the Linear layers to adapt: attention projections, or all where there are none."""
    names = [
        name
        for name, each in network.named_modules()
        if isinstance(each, nn.Linear) and not ADDED & set(name.split("."))
    ]
    endings = tuple(f".{name}" for name in ATTENTION)
    return [name for name in names if f".{name}".endswith(endings)] or names


def adapted(denoiser: nn.Module, rank: int) -> nn.Module:
    """A copy of a NetworkDenoiser whose network trains adapters of `rank`, and nothing else but
    what a method has added to it.

    ValueError for a rank below 1.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if rank < 1:
        raise ValueError(f"the LoRA rank is {rank}; give at least 1")
    student: Any = copy.deepcopy(denoiser).requires_grad_(False)
    names = linear_layers(student.network)
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=rank, target_modules=names), student.network
    )
    for name, parameter in student.named_parameters():
        parameter.requires_grad_("lora_" in name or bool(ADDED & set(name.split("."))))
    return student


def has_adapters(network: nn.Module) -> bool:
    """Whether the network is one that `adapted` made and `merged` has not seen."""
    return any("lora_" in name for name, _ in network.named_parameters())


def merged(network: nn.Module) -> nn.Module:
    """The network with its adapters added to its weights; itself where it has none."""
    if not has_adapters(network):
        return network
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(network.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            network.set_submodule(name, layer.get_base_layer())
    del network.peft_config
    return network


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """{layer.lora_A.weight, layer.lora_B.weight: tensor} of a network's adapters, on the CPU."""
    from peft import get_peft_model_state_dict

    assert has_adapters(network), "this network has no adapters, or they are merged"
    state = get_peft_model_state_dict(network)
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def save_adapter(pipeline: Any, network: nn.Module, out: str | os.PathLike[str]) -> Path:
    """Write the adapters of a student's network, before `merged`, and its scheduler to `out`.

    Where the pipeline's class has load_lora_weights it takes the folder; for the others it is a
    folder of peft's PeftModel. A README.md says which, and how; returns the folder.
    """
    from genkit.denoisers.families import find_family

    out, owner = Path(out), type(pipeline).__name__
    out.mkdir(parents=True, exist_ok=True)
    state, role = adapter_state(network), find_family(pipeline).role
    if owner in LOADERS:
        type(pipeline).save_lora_weights(out, **{f"{LOADERS[owner]}_lora_layers": state})
        opened = 'pipeline.load_lora_weights("this/folder")'
    else:
        _save_for_peft(network, state, out)
        opened = (
            "from peft import PeftModel\n\n"
            f'pipeline.{role} = PeftModel.from_pretrained(pipeline.{role}, "this/folder")'
        )
    pipeline.scheduler.save_pretrained(out / "scheduler")
    (out / "README.md").write_text(_readme(pipeline, opened))
    return out


def _save_for_peft(network: Any, state: Mapping[str, Tensor], out: Path) -> None:
    from safetensors.torch import save_file

    config = copy.copy(network.peft_config["default"])
    config.inference_mode = True
    config.save_pretrained(out)
    prefixed = {PEFT_PREFIX + name: value for name, value in state.items()}
    save_file(prefixed, out / "adapter_model.safetensors", metadata={"format": "pt"})


def _readme(pipeline: Any, opened: str) -> str:
    scheduler = type(pipeline.scheduler)
    library = scheduler.__module__.split(".")[0]
    module = "diffusers" if library == "diffusers" else scheduler.__module__
    loading = "has no" if "PeftModel" in opened else "has its own"
    return (
        f"Low-rank adapters of a {type(pipeline).__name__}, for which diffusers {loading} loader. "
        "They belong on the teacher's pipeline, with the student's scheduler, and guidance off:\n\n"
        "```python\n"
        f"from {module} import {scheduler.__name__}\n\n"
        f"{opened}\n"
        f'pipeline.scheduler = {scheduler.__name__}.from_pretrained("this/folder/scheduler")\n'
        "```\n"
    )
