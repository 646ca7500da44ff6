"""Students of another size: fresh, of the teacher's class, and what cannot be is refused."""

import pytest
import torch

from genkit.denoisers.base import NetworkDenoiser
from genkit.denoisers.calls import network_call
from genkit.denoisers.preconditioned import EDMPreconditioned
from genkit.networks.mlp import MLPDenoiser
from genkit.networks.size import parameters, parsed, resized
from genkit.paths import EDM, RectifiedFlow


def denoiser(network, path=None):
    return NetworkDenoiser(network, network_call(network), path or RectifiedFlow(), "x_0", 1000.0)


def test_a_student_is_fresh_and_smaller():
    teacher = denoiser(MLPDenoiser(width=32, depth=4, num_classes=3)).requires_grad_(False)
    student = resized(teacher, {"width": 16, "depth": 2})
    config = student.network.config
    assert (config["width"], config["depth"], config["num_classes"]) == (16, 2, 3)
    assert parameters(student) < parameters(teacher) / 2
    assert parameters(student, trained=True) == parameters(student)
    assert teacher.network.config["width"] == 32, "the teacher stays"
    assert (student.kind, student.time_scale) == (teacher.kind, teacher.time_scale)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.9])
    assert student.predict(x, t, {"label": torch.tensor([1, 3])}, "x_0").shape == x.shape


def test_what_is_around_the_network_stays_around_it():
    around = EDMPreconditioned(denoiser(MLPDenoiser(width=32), EDM()), EDM(), 0.7)
    student = resized(around, {"width": 8})
    assert isinstance(student, EDMPreconditioned) and student.sigma_data == 0.7
    assert student.network.config["width"] == 8


def test_a_transformer_begins_as_a_fresh_one_does():
    from genkit.networks.text import text_transformer

    network = text_transformer(3, 16, heads=2, width=16, depth=3)
    student = resized(denoiser(network), {"num_layers": 1}).network
    assert len(student.transformer_blocks) == 1
    assert not student.proj_out.weight.any() and not student.scale_shift_table.any()


@pytest.mark.parametrize("changes", [{"widht": 8}, {"sample_size": 4}, {"two_time": 1}], ids=str)
def test_a_name_that_cannot_be_changed_is_refused(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))}.*width, depth"):
        resized(denoiser(MLPDenoiser(width=8)), changes)


def test_sizes_are_read_as_a_person_writes_them():
    assert parsed(("width=96", "depth=2")) == {"width": 96, "depth": 2}
    for wrong in ("width", "width=", "width=a", "width=0", "=3"):
        with pytest.raises(ValueError, match="such as width=96"):
            parsed((wrong,))
