"""Compiles the Triton kernels for GPUs that are not there, as their launches would; prints JSON.

    python triton_compiler.py CAPABILITY DTYPE HEAD_DIM BLOCK_SIZE

A row for each kernel and each of its tile sizes: bytes of shared memory, asynchronous copies in the
loop, and what ptxas made of it (registers, bytes spilled to the stack).
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path


class Driver:
    """What Triton asks of a GPU's driver before a launch."""

    def __init__(self, capability):
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, _):
        return 0


class Recorder:
    """In a kernel's place: compiles it for each of its tile sizes, and launches nothing."""

    def __init__(self, kernel, found):
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid):
        def compile_all(*args, **given):
            name = self.kernel.base_fn.__name__
            self.found += [(name, each) for each in self.kernel.warmup(*args, grid=(1,), **given)]

        return compile_all


def compiled(capability, dtype, head_dim, block_size):
    """(name, Triton's compiled kernel) of every launch of forward, backward and both tangents."""
    import torch
    from triton.runtime.driver import driver

    driver.set_active(Driver(capability))
    from genkit_kernels import triton_attention, triton_backward, triton_forward, triton_jvp
    from genkit_kernels.problem import Problem

    found = []
    for module in (triton_forward, triton_backward, triton_jvp):
        for name in [name for name in vars(module) if name.endswith("_kernel")]:
            setattr(module, name, Recorder(getattr(module, name), found))
    q = torch.zeros(1, 2 * block_size, 2, head_dim, dtype=getattr(torch, dtype)).transpose(1, 2)
    order, lens = torch.arange(2 * block_size), torch.full((1, 2), block_size)
    problem = Problem(order, lens, torch.tensor([0, 1, 2]), torch.tensor([0, 1]), 0.125)
    lse = q.new_zeros(q.shape[:3], dtype=torch.float32)
    triton_attention.forward(problem, q, q, q)
    triton_attention.backward(problem, q, q, q, q, q, lse)
    triton_attention.tangent(problem, q, q, q, q, lse, q, q, q)
    triton_attention.forward_tangent(problem, q, q, q, q, q, q)
    return found


def row(name, kernel):
    """What is known of one compiled kernel."""
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [tools / "cuobjdump", "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = dict(re.findall(r"(REG|STACK):(\d+)", said))
    ttgir = kernel.asm["ttgir"]
    return {
        "kernel": name,
        "shared": kernel.metadata.shared,
        "warps": kernel.metadata.num_warps,
        "copies": ttgir.count("ttg.async_copy_global_to_local"),
        "products": len(re.findall(r"= tt\.dot |ttng\.warp_group_dot ", ttgir)),
        "registers": int(usage["REG"]),
        "stack": int(usage["STACK"]),
    }


if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "0"
    asked = compiled(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    print(json.dumps([row(*each) for each in asked]))
