"""Tests of kernels/genkit_kernels/resolve.py."""

import logging
from types import SimpleNamespace

import pytest
import torch
from kernel_toys import implementation

from genkit_kernels import native, resolve, triton_attention, use


@pytest.fixture(autouse=True)
def _say_again():
    resolve._say.cache_clear()


def test_the_choice_is_said_once(caplog, monkeypatch):
    monkeypatch.setattr(native, "refusal", lambda *_: "no C++ compiler was found")
    caplog.set_level(logging.INFO, "genkit_kernels")
    assert resolve.resolve(torch.zeros(1, 16)) == "torch"
    assert resolve.resolve(torch.zeros(2, 16)) == "torch"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "runs the torch implementation: no C++ compiler was found" in record.message


def test_what_was_never_expected_is_no_warning(caplog):
    caplog.set_level(logging.INFO, "genkit_kernels")
    assert resolve.resolve(torch.zeros(1, 16, dtype=torch.float64)) == "torch"
    assert [record.levelno for record in caplog.records] == [logging.INFO]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_kernel_is_taken_where_it_runs(dtype):
    implementation("cpp", dtype, head_dim=64)
    assert resolve.resolve(torch.zeros(1, 64, dtype=dtype)) == "cpp"


@pytest.mark.parametrize(
    ("why", "name", "level"),
    [("", "triton", logging.INFO), ("Triton is not installed", "torch", logging.WARNING)],
)
def test_gpus_have_triton_where_it_is_installed(why, name, level, caplog, monkeypatch):
    monkeypatch.setattr(triton_attention, "refusal", lambda *_: why)
    caplog.set_level(logging.INFO, "genkit_kernels")
    on_gpu = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, shape=(1, 64))
    assert resolve.resolve(on_gpu) == resolve.resolve(on_gpu) == name
    (record,) = caplog.records
    assert record.levelno == level and f"on cuda runs the {name} implementation" in record.message


def test_use_overrides_and_ends():
    with use("reference"):
        assert resolve.resolve(torch.zeros(1, 16)) == "reference"
        with use("torch"):
            assert resolve.resolve(torch.zeros(1, 16)) == "torch"
        assert resolve.resolve(torch.zeros(1, 16)) == "reference"
    with pytest.raises(ValueError, match="not one of"), use("cuda"):
        pass


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (torch.zeros(1, 16, dtype=torch.float64), "float64"),
        (torch.zeros(1, 260), "head dims"),
        (torch.zeros(1, 16, device="meta"), "meta"),
    ],
)
def test_what_was_asked_for_and_cannot_run_is_an_error(x, why):
    with use("cpp"), pytest.raises(ValueError, match=why):
        resolve.resolve(x)
