"""Tests of genkit/benchmarks/attention_cases.py."""

import pytest
import torch

from genkit.benchmarks import attention_cases as cases
from genkit.benchmarks.attention_cases import PASSES, Problem, Thinned, dense, errors, grouped
from genkit_kernels import criss_cross, full, reference, surround

EVEN = Problem((8, 8), (2, 2), "float32", 16, 2)
RAGGED = Problem((7, 10), (3, 4), "float32", 16, 1)
FEW = Problem((8, 8), (2, 2), "float32", 16, 2, dense_rows=16, whole=32)


def test_pairs_are_counted():
    assert EVEN.pairs(full()) == 64**2
    assert EVEN.pairs(surround(1)) == 16 * 9 * 4**2
    assert EVEN.pairs(criss_cross()) == 16 * 7 * 4**2
    assert EVEN.pairs(Thinned(5)) == (4 * 16 + 12) * 4**2  # groups 0, 5, 10 and 15 see all


@pytest.mark.parametrize("region", [surround(1), criss_cross(), Thinned(3)])
def test_who_sees_whom_is_the_references_mask(region):
    layout = RAGGED.layout
    mask = reference.token_mask(layout, region, layout.lens(None, 1))[0, 0]
    rows = torch.tensor([0, 13, 69, 41])
    assert torch.equal(RAGGED.seen(region, rows), mask[rows])
    assert RAGGED.pairs(region) == int(mask.sum())


def test_dense_attention_of_many_tokens_is_run_for_a_share():
    assert (EVEN.share, FEW.share) == (1, 4)
    assert EVEN.region(full()) == full() and FEW.region(full()) == Thinned(4)
    assert FEW.region(surround(1)) == surround(1)
    assert dense(FEW, "forward")().shape == (1, 16, 2, 16)


@pytest.mark.parametrize("kind", PASSES)
@pytest.mark.parametrize("problem", [EVEN, RAGGED, FEW], ids=["even", "ragged", "few"])
def test_every_pass_is_near_float64(problem: Problem, kind: str):
    for region in (surround(1), problem.region(full())):
        found = grouped(problem, region, "torch", kind)()
        assert found.shape == problem.tensors[0].shape
        mine, theirs = errors(problem, region, kind, found, 20)
        assert 0 < mine < 2e-5 and 0 < theirs < 2e-5
    if kind in ("forward", "backward"):
        assert errors(problem, full(), kind, dense(problem, kind)(), 20)[0] < 2e-5


def test_flex_attention_runs_on_the_same_blocks():
    """Uncompiled here: on a CPU it has no backward."""
    problem = Problem((16, 48), (8, 16), "float32", 16, 1)
    assert "blocks of 128" in cases.flex_refusal(RAGGED) and not cases.flex_refusal(problem)
    found = problem.layout.uncluster(cases.flex(problem, surround(0), "forward")())
    assert errors(problem, surround(0), "forward", found, 20)[0] < 2e-5
    assert errors(problem, surround(1), "forward", found, 20)[0] > 0.01


@pytest.mark.parametrize("kind", PASSES)
def test_wrong_rows_are_noticed(kind: str):
    found = grouped(EVEN, surround(1), "torch", kind)()
    assert errors(EVEN, criss_cross(), kind, found, 20)[0] > 0.01
    assert errors(EVEN, surround(1), kind, found.roll(1, 1), 20)[0] > 0.01
    found[0, 5] = torch.nan
    assert not errors(EVEN, surround(1), kind, found, 64)[0] < 1
    assert errors(EVEN, surround(1), kind, found, 64)[1] < 2e-5


def test_plain_products_give_the_same_derivative():
    found = dense(EVEN, "func.jvp", fused=False)()
    assert errors(EVEN, full(), "func.jvp", found, 20)[0] < 2e-5


def test_memory_is_that_of_the_call():
    problem = Problem((32, 64), (16, 16), "float32", 16, 1)
    taken = cases.peak_memory(problem, full(), "naive", "func.jvp")
    assert taken is None or 2 < taken / (4 * 2048**2) < 20  # some matrices of logits
