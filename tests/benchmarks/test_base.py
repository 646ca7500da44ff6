"""What benches share: the teacher beside students."""

import torch

from genkit.rng import sample_generators, sample_noise


def test_the_teacher_takes_the_solver_that_ends_nearest_to_its_own_ode(tiny, monkeypatch):
    """Whichever of the figures is luckier, and whatever number of samples is measured."""
    noise = sample_noise((1, 4, 4), sample_generators(6_000_000, 60)).double()
    ones, cond = torch.ones(60).double(), tiny.problem.cond(60)
    exact = tiny.problem.density.flow_map(noise, ones, 0 * ones, cond)
    tiny.n = 60
    for steps in (1, 4, 16):
        far = {k: (tiny._solved(steps, k, 60, 0) - exact).square().mean() for k in (1, 2, 3)}
        best = min(far, key=lambda k: far[k]) if steps > 1 else 1
        monkeypatch.setattr(tiny, "distance", lambda x, cond: float(len(x)))
        assert tiny.teacher(steps, 5)["order"] == best
    assert best > 1 and far[best] < far[1] / 4
