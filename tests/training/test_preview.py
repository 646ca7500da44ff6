"""Preview noise is a pipeline's noise of the same seed."""

import torch
from training_toys import render

from genkit.rng import sample_generators, sample_noise
from genkit.training.preview import Preview


def test_noise_is_that_of_one_generator_per_sample():
    preview = Preview(3, {}, 11, render)
    noise, generators = preview.draw((2, 4))
    again = sample_generators(11, 3)
    assert torch.equal(noise, sample_noise((2, 4), again))
    assert torch.equal(preview.draw((2, 4))[0], noise)
    assert torch.equal(torch.randn(2, generator=generators[1]), torch.randn(2, generator=again[1]))


def test_the_reference_stands_first_where_there_is_one(tmp_path):
    seen = []
    show = lambda rows, stem: (seen.append((list(rows), stem.name)), stem)[1]  # noqa: E731
    Preview(1, {}, 0, show).write(torch.zeros(1), tmp_path / "samples", 20)
    Preview(1, {}, 0, show, None, torch.ones(1), "data").write(torch.zeros(1), tmp_path, 3)
    assert seen == [(["student"], "step-00000020"), (["data", "student"], "step-00000003")]
