"""Tests of genkit/modalities: pictures with class labels, and which modality a data set has."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genkit.data import load
from genkit.data.base import Samples
from genkit.hub import Pipeline
from genkit.modalities import call_arguments, labels, modality
from genkit.rng import sample_generators


def test_digits_are_pictures_with_classes():
    digits = modality(load("digits"))
    assert digits.name == "digits" and digits.latent == (1, 8, 8)
    assert digits.uncond["label"].tolist() == [10]


def test_conditions_do_not_depend_on_how_many_are_asked_for():
    digits = modality(load("digits"))
    few, many = digits.cond(7)["label"], digits.cond(40)["label"]
    assert torch.equal(few, many[:7])
    assert torch.equal(torch.bincount(many), torch.full((10,), 4))


def test_every_condition_of_a_preview_comes_twice():
    digits = modality(load("digits"))
    counts = torch.bincount(digits.cond(digits.preview_n)["label"], minlength=10)
    assert int(counts.min()) >= 2


def test_unknown_conditions_and_shapes_are_refused():
    with pytest.raises(ValueError, match="known kinds"):
        modality(Samples(torch.zeros(2, 1, 8, 8), {"melody": torch.zeros(2)}, "tunes"))
    with pytest.raises(ValueError, match="c, size, size"):
        modality(Samples(torch.zeros(2, 1, 8, 4), {"label": torch.zeros(2).long()}, "strips", 2))


def test_a_sheet_shows_samples_enlarged_without_smoothing(tmp_path: Path):
    digits = modality(load("digits"))
    samples = torch.full((3, 1, 8, 8), -1.0)
    samples[1, 0, 2, 5] = 1.0
    file = digits.render({"teacher": samples, "student": samples}, tmp_path / "step-1.5")
    assert file == tmp_path / "step-1.5.png"
    pixels = np.asarray(Image.open(file))
    assert set(np.unique(pixels[14 : 14 + 48])) <= {0, 255}
    # Sample 1 begins after 9 pixels of sample 0 and its gap, each 6 wide.
    block = pixels[14 + 2 * 6 : 14 + 3 * 6, (9 + 5) * 6 : (9 + 6) * 6]
    assert block.min() == 255
    assert pixels[14 + 2 * 6 - 1, (9 + 5) * 6].max() == 0


def test_generating_is_the_pipelines_own_call(tiny_teacher: Path):
    digits, pipeline = modality(load("digits")), Pipeline.from_pretrained(tiny_teacher)
    x = digits.generate(pipeline, digits.asked(5), sample_generators(3, 5), 2, 1.0)
    again = pipeline(
        class_labels=[0, 1, 2, 3, 4],
        num_inference_steps=2,
        generator=sample_generators(3, 5),
        output_type="latent",
    ).images
    assert torch.equal(x, again)
    assert not torch.equal(
        x, digits.generate(pipeline, digits.asked(5), sample_generators(4, 5), 2, 1.0)
    )


@pytest.mark.parametrize(
    ("prompt", "expected"), [("3", [3]), ("3,5", [3, 5]), (" 0 , 9", [0, 9]), (None, [*range(10)])]
)
def test_prompts_are_labels(prompt: str | None, expected: list[int]):
    assert labels(prompt, 10) == expected


@pytest.mark.parametrize(("prompt", "says"), [("cat", "no list of classes"), ("10", "0 to 9")])
def test_a_wrong_label_is_refused(prompt: str, says: str):
    with pytest.raises(ValueError, match=says):
        labels(prompt, 10)


def test_a_pipeline_of_text_takes_the_prompt():
    class TextPipeline:
        def __call__(self, prompt):
            return prompt

    assert call_arguments(TextPipeline(), "a cat") == {"prompt": ["a cat"]}
    with pytest.raises(ValueError, match="needs a prompt"):
        call_arguments(TextPipeline(), None)
