"""Settings that make no sense are refused in one sentence."""

import pytest

from genkit.training.config import TrainerConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_steps": 0},
        {"max_steps": -5},
        {"batch_size": 0},
        {"accumulate": 0},
        {"log_every": 0},
        {"measure_every": -1},
        {"max_minutes": 0.0},
        {"mixed_precision": "fp16"},
        {"muon": "blocks("},
        {"slow": "text("},
    ],
)
def test_bad_values_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        TrainerConfig(**wrong)
