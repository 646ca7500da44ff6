"""Makes tiny_families importable; tiny pipelines of all kinds, with random weights."""

import sys
from pathlib import Path

import pytest
import torch

from genkit.hub import make_scheduler
from genkit.networks.causal_video import CausalVideoTransformer
from genkit.networks.mlp import MLPDenoiser
from genkit.networks.speech import SpeechDecoder, SpeechEncoder
from genkit.networks.text import text_encoder, text_transformer, word_tokenizer
from genkit.paths import EDM, RectifiedFlow
from genkit.phonemes import SYMBOLS
from genkit.sampling import Sampler
from genkit_apps.lanes import Lane, Pair
from genkit_apps.racing import Worker
from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline
from genkit_pipelines.image.text_to_image import TextToImagePipeline
from genkit_pipelines.speech.text_to_speech import TextToSpeechPipeline
from genkit_pipelines.video.interactive import InteractiveVideoPipeline

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


def _speech(role, steps):
    torch.manual_seed(0)
    encoder = SpeechEncoder(len(SYMBOLS), ("ann", "bob"), False, width=16, layers=1).eval()
    decoder = SpeechDecoder(80, 128, width=16, depth=2, voice_width=16)
    scheduler = make_scheduler(Sampler(steps), EDM(), "x_0", 1.0)
    pipeline = TextToSpeechPipeline(encoder, decoder, scheduler)
    return _lane(pipeline, role, steps, 1.0, "voices")


@pytest.fixture(scope="session")
def sound_pair():
    """A voice of one step, and its teacher of three."""
    return Pair(_speech("student", 1), _speech("teacher", 3))


def _world(role, steps):
    torch.manual_seed(0)
    network = CausalVideoTransformer(
        sample_size=16, sample_frames=4, width=32, depth=1, heads=2, context=3
    )
    scheduler = make_scheduler(Sampler(steps), RectifiedFlow(), "velocity", 1000.0)
    pipeline = InteractiveVideoPipeline(network.eval(), scheduler)
    return _lane(pipeline, role, steps, 1.0, "world")


@pytest.fixture(scope="session")
def world_pair():
    """A world of one step a frame, and its teacher of two."""
    return Pair(_world("student", 1), _world("teacher", 2))


@pytest.fixture(scope="session")
def worker():
    """The thread that draws."""
    return Worker()
