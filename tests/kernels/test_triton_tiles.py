"""Tests of kernels/genkit_kernels/triton_tiles.py: which tiles are tried, and that all compile.

Compiling needs no GPU. Nothing is run, so this says nothing about results or speed.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
SHARED = {80: 163 << 10, 90: 227 << 10}  # bytes that one program may have


def compiled(capability, dtype, head_dim, block_size):
    """What triton_compiler.py prints, from a process in which Triton is no interpreter."""
    script = Path(__file__).parent / "triton_compiler.py"
    asked = [sys.executable, script, *map(str, (capability, dtype, head_dim, block_size))]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def check(capability, dtype, rows):
    """Every kernel of every pass is there and fits; only float32 may spill."""
    names = [row["kernel"] for row in rows]
    assert set(names) == {"forward_kernel", "queries_kernel", "keys_kernel", "tangent_kernel"}
    for row in rows:
        assert row["shared"] <= SHARED[capability], row
        assert row["products"] >= 2, row
        assert dtype == "float32" or row["stack"] <= 256, row


def test_tiles_follow_head_dim_dtype_and_block_size():
    from genkit_kernels.triton_tiles import config, suited

    table = ((64, 2, 128, 64, 4, 3), (128, 2, 64, 64, 4, 2), (64, 4, 64, 32, 4, 2))
    assert suited(table, 16, 2) == [table[0]] and suited(table, 128, 2) == [table[1]]
    assert suited(table, 64, 4) == [table[2]]
    made = config(table[0], 77)
    assert made.kwargs == {"BLOCK_M": 128, "BLOCK_N": 64}
    assert (made.num_warps, made.num_stages) == (4, 3)
    assert config(table[0], 60).kwargs == {"BLOCK_M": 64, "BLOCK_N": 64}
    assert config(table[0], 4).kwargs == {"BLOCK_M": 16, "BLOCK_N": 16}


def test_kernels_compile_for_a_gpu():
    check(90, "bfloat16", compiled(90, "bfloat16", 72, 16))


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("head_dim", [64, 72, 128, 256])
def test_every_tile_compiles_and_fits(capability, dtype, head_dim):
    rows = compiled(capability, dtype, head_dim, 256)
    check(capability, dtype, rows)
    # Keys and values are fetched while the products before them run.
    assert all(row["copies"] >= 2 for row in rows), rows
