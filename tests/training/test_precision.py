"""Tests of genkit/training/precision.py, and that what samples in it keeps float32 samples."""

from pathlib import Path

import pytest
import torch
from diffusers import FlowMapEulerDiscreteScheduler
from torch import nn

from genkit.contenders import Contender, samples
from genkit.data import load
from genkit.hub import Pipeline
from genkit.modalities import modality
from genkit.sampling import sample
from genkit.training import precision
from genkit.training.precision import autocast

CPU = torch.device("cpu")
CPU_HAS_BF16 = precision.cpu_has_bf16()


pytestmark = pytest.mark.usefixtures("cpu_with_bf16")


def test_a_cpu_without_instructions_runs_float32_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    precision._say_float32.cache_clear()
    assert [precision.precision_on(CPU, "bf16") for _ in range(2)] == ["no", "no"]
    assert capsys.readouterr().err.count("float32 instead") == 1
    with autocast(CPU, "bf16"):
        assert nn.Linear(4, 4)(torch.randn(2, 4)).dtype == torch.float32
    assert precision.precision_on(torch.device("cuda"), "bf16") == "bf16"
    assert "float32" not in capsys.readouterr().err


def test_what_the_cpu_has_is_asked_of_onednn():
    assert CPU_HAS_BF16 == torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_networks_run_in_bfloat16_only_where_asked():
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    with autocast(CPU, "bf16"):
        assert layer(x).dtype == torch.bfloat16
    with autocast(CPU, "no"):
        assert layer(x).dtype == torch.float32


def test_a_stock_scheduler_does_not_round_the_sample():
    # diffusers' flow schedulers bring x to the dtype of the network's output.
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    scheduler = FlowMapEulerDiscreteScheduler(shift=1.0)
    with autocast(CPU, "bf16"):
        x = sample(lambda x, t: torch.zeros_like(x).bfloat16(), scheduler, noise, 4)
    assert x.dtype == torch.float32 and torch.equal(x, noise)


def test_samples_in_bfloat16_are_near_and_kept_apart(tiny_teacher: Path):
    kind, pipeline = modality(load("digits")), Pipeline.from_pretrained(tiny_teacher)
    full, _ = samples(Contender("a", pipeline, 3, 1.0), kind, 7, 8)
    half, _ = samples(Contender("a", pipeline, 3, 1.0, "bf16"), kind, 7, 8)
    difference = (full - half).abs().max()
    assert 0 < difference < 0.05 * full.abs().max()
