"""The model card says the defaults, how to open the folder, and whose scheduler it has."""

from diffusers import StableDiffusion3Pipeline

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


def test_a_stock_class_is_imported_from_diffusers():
    card = model_card(StableDiffusion3Pipeline, {"steps": 4, "description": "A student"}, {})
    assert "from diffusers import StableDiffusion3Pipeline" in card
    assert "\n# A student\n" in card
