"""The model card says the defaults, how to open the folder, and whose scheduler it has."""

import re

import pytest
from diffusers import (
    DDPMPipeline,
    PixArtSigmaPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
)

from genkit.cards import model_card
from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

STOCK = {"scheduler": ("diffusers", "FlowMapEulerDiscreteScheduler")}


def test_card():
    defaults = {"format": 1, "steps": 4, "guidance": 1.0, "teacher": "digits-teacher"}
    card = model_card(ClassConditionalImagePipeline, defaults, STOCK, "## Metrics\n\nnone")
    assert "| teacher | digits-teacher |" in card and "| format" not in card
    assert "diffusers' own FlowMapEulerDiscreteScheduler" in card
    assert "`pipeline(..., num_inference_steps=4, guidance_scale=1.0)`" in card
    assert card.endswith("## Metrics\n\nnone\n")


def test_a_stock_class_is_opened_by_diffusers_alone():
    defaults = {"steps": 4, "guidance": 1.0, "description": "A student"}
    card = model_card(StableDiffusion3Pipeline, defaults, STOCK)
    assert "\n# A student\n" in card and "import genkit" not in card
    assert "from diffusers import DiffusionPipeline" in card
    assert 'pipeline("a prompt", num_inference_steps=4, guidance_scale=1.0).images[0]' in card
    assert "defaults are those of the class, not the trained" in card


@pytest.mark.parametrize(
    "owner, call",
    [
        (PixArtSigmaPipeline, '"a prompt", num_infer.*, use_resolution_binning=False'),
        (DDPMPipeline, "batch_size=1, num_inference_steps=4"),
    ],
)
def test_calls_of_other_families(owner, call):
    card = model_card(owner, {"steps": 4, "guidance": 1.0}, STOCK)
    assert re.search(rf"pipeline\({call}\)\.images", card)


def test_our_scheduler_in_a_stock_class():
    """diffusers opens it only where its module is imported first."""
    ours = {"scheduler": ("genkit.schedulers.consistency", "ConsistencyScheduler")}
    card = model_card(StableDiffusionPipeline, {"steps": 2}, ours)
    assert "import genkit.schedulers.consistency  # its scheduler\nfrom diffusers" in card
    assert "Its scheduler is genkit's ConsistencyScheduler" in card
