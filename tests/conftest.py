"""What several tests share: a tiny teacher of digits, and a cache that is nobody's own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Triton decides when it is first imported; TRITON_INTERPRET=0 tests its kernels on a GPU instead.
os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Samples and pairs of the tests go to a folder of their own."""
    before = os.environ.get("GENKIT_CACHE")
    os.environ["GENKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["GENKIT_CACHE"]
    else:
        os.environ["GENKIT_CACHE"] = before


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved teacher of digits with random weights, 4 steps by default. Read it only."""
    import torch

    from genkit.hub import make_scheduler, save_pipeline
    from genkit.networks.mlp import MLPDenoiser
    from genkit.paths import RectifiedFlow
    from genkit.sampling import Sampler
    from genkit_pipelines.image.class_conditional import ClassConditionalImagePipeline

    torch.manual_seed(0)
    network = MLPDenoiser(width=16, depth=1)
    for begins_at_zero in (network.leave, network.blocks[0].modulation):
        torch.nn.init.normal_(begins_at_zero.weight, std=0.1)
    scheduler = make_scheduler(Sampler(4), RectifiedFlow(), "velocity", 1000.0)
    folder = tmp_path_factory.mktemp("teachers") / "tiny"
    facts = {"steps": 4, "guidance": 1.0, "method": "flow_matching", "data": "digits"}
    save_pipeline(ClassConditionalImagePipeline(network, scheduler), folder, facts)
    return folder


@pytest.fixture
def cpu_with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU that has instructions for bfloat16, which others emulate."""
    from genkit.training import precision

    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
