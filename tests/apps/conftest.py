"""Makes tiny_families importable; tiny pipelines of labels and of text, with random weights."""

import sys
from pathlib import Path

import pytest
import torch

from genkit.hub import make_scheduler
from genkit.networks.mlp import MLPDenoiser
from genkit.networks.text import text_encoder, text_transformer, word_tokenizer
from genkit.paths import RectifiedFlow
from genkit.sampling import Sampler
from genkit_apps.lanes import Lane
from genkit_apps.racing import Worker
from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline
from genkit_pipelines.image.text_to_image import TextToImagePipeline

sys.path.insert(0, str(Path(__file__).parents[1] / "denoisers"))


def _lane(pipeline, role, steps, guidance, data):
    record = {"steps": steps, "guidance": guidance, "data": data, "method": "none"}
    pipeline.register_to_config(_genkit=record)
    pipeline.set_progress_bar_config(disable=True)
    return Lane.of(f"tiny-{role}", role, pipeline)


@pytest.fixture(scope="session")
def labels_lane():
    """A teacher of ten labels, 8 x 8, 4 steps."""
    torch.manual_seed(0)
    scheduler = make_scheduler(Sampler(4), RectifiedFlow(), "velocity", 1000.0)
    network = MLPDenoiser(width=16, depth=1)
    torch.nn.init.normal_(network.leave.weight, std=0.1)
    pipeline = ClassConditionalImagePipeline(network, scheduler)
    return _lane(pipeline, "teacher", 4, 2.0, "digits")


def _text(role, steps, guidance):
    torch.manual_seed(0)
    tokenizer = word_tokenizer(["a red ball"], length=6)
    network = text_transformer(3, 8, heads=1, width=16, depth=1).eval()
    torch.nn.init.normal_(network.proj_out.weight, std=0.1)
    encoder = text_encoder(len(tokenizer)).eval()
    scheduler = make_scheduler(Sampler(steps), RectifiedFlow(), "velocity", 1000.0)
    pipeline = TextToImagePipeline(tokenizer, encoder, network, scheduler)
    return _lane(pipeline, role, steps, guidance, "balls")


@pytest.fixture(scope="session")
def text_teacher():
    """A teacher of the words "a red ball", 8 x 8, 5 steps, guidance 3."""
    return _text("teacher", 5, 3.0)


@pytest.fixture(scope="session")
def text_student():
    """The same network as a student of one step."""
    return _text("student", 1, 1.0)


@pytest.fixture(scope="session")
def worker():
    """The thread that draws."""
    return Worker()
