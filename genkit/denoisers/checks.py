"""Whether the parts of a teacher's pipeline belong together, said before anything is trained."""

from __future__ import annotations

from typing import Any

from genkit.denoisers.families import Family
from genkit.paths import Path

# Config keys that name the width of the text a network attends to.
TEXT_WIDTHS = ("cross_attention_dim", "caption_channels", "joint_attention_dim")
# diffusers' schedulers, whose config names no path; ours hold theirs.
FLOW_SCHEDULERS = {"FlowMapEulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"}
OUR_SCHEDULERS = {"ConsistencyScheduler", "FlowScheduler"}


def check_scheduler(pipeline: Any, family: Family) -> None:
    """ValueError where a stock scheduler is of another kind of path than the family's networks."""
    name, owner = type(pipeline.scheduler).__name__, type(pipeline).__name__
    if family.path is None or name in OUR_SCHEDULERS:
        return
    if (name in FLOW_SCHEDULERS) != (family.path == "rectified_flow"):
        wanted = "a flow-matching one" if family.path == "rectified_flow" else "one with betas"
        raise ValueError(
            f"the scheduler {name} contradicts {owner}, whose network needs {wanted}; give the "
            "pipeline the scheduler it was trained with"
        )


def check_parts(pipeline: Any, family: Family, path: Path) -> None:
    """ValueError where configs of network, scheduler, VAE and text encoders contradict each other,
    in one sentence."""
    network = pipeline.components[family.role]
    _check_times(network, path)
    _check_channels(network, pipeline.scheduler)
    vae = pipeline.components.get("vae")
    if vae is not None and vae.config["latent_channels"] != network.config["in_channels"]:
        raise ValueError(
            f"the {family.role} takes {network.config['in_channels']} channels, the vae's latents "
            f"have {vae.config['latent_channels']}; inpainting and upscaling networks are not "
            "supported"
        )
    _check_text(pipeline, family.role, network)


def _check_times(network: Any, path: Path) -> None:
    embedded = network.config.get("num_embeds_ada_norm")
    counted = path.config().get("num_train_timesteps")
    if None not in (embedded, counted) and embedded != counted:
        raise ValueError(
            f"the scheduler counts {counted} timesteps (num_train_timesteps), the network was made "
            f"for {embedded} (num_embeds_ada_norm); give the scheduler it was trained with"
        )


def _check_channels(network: Any, scheduler: Any) -> None:
    """Twice as many channels out as in are a learned variance."""
    entering = network.config.get("in_channels")
    leaving = network.config.get("out_channels") or entering
    if leaving not in (entering, 2 * entering):
        raise ValueError(
            f"the network takes {entering} channels and returns {leaving}; only as many, or twice "
            "as many for a learned variance, can be denoised"
        )
    variance = str(scheduler.config.get("variance_type"))
    learned = variance.startswith("learned")
    if learned and leaving == entering:
        raise ValueError(
            f"the scheduler reads a learned variance (variance_type {variance!r}), but the network "
            f"returns {leaving} channels for {entering}; it has none"
        )
    unet = type(network).__name__.startswith("UNet")
    if unet and leaving != entering and not learned:
        raise ValueError(
            f"the network returns {leaving} channels for {entering}, a learned variance, which its "
            f"scheduler (variance_type {variance!r}) does not read"
        )


def _check_text(pipeline: Any, role: str, network: Any) -> None:
    """The widest text encoder gives the tokens; SD3's two CLIPs give the pooled projection too."""
    parts = pipeline.components
    encoders = [parts.get(f"text_encoder{end}") for end in ("", "_2", "_3")]
    known = [encoder for encoder in encoders if encoder is not None]
    key = next((key for key in TEXT_WIDTHS[::-1] if network.config.get(key) is not None), None)
    whole = len(known) == sum(name.startswith("text_encoder") for name in parts)
    if key is None or not known or not whole:
        return
    width, given = network.config[key], known[-1].config.hidden_size
    if any(each != given for each in ([width] if isinstance(width, int) else width)):
        raise ValueError(
            f"the {role} attends to text {width} wide ({key}), its text encoder gives {given}; "
            "they are not of one model"
        )
    pooled = network.config.get("pooled_projection_dim")
    if pooled is not None:
        given = sum(encoder.config.projection_dim for encoder in known[:2])
        if pooled != given:
            raise ValueError(
                f"the {role} takes a pooled text {pooled} wide (pooled_projection_dim), its text "
                f"encoders give {given}; they are not of one model"
            )
