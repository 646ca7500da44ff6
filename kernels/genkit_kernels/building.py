"""Builds cpp/ into a library, once per machine, source and version of torch.

One call of a C++ compiler, some ten seconds: only torch's C++ headers are read, not Python's, for
the library is opened by ctypes. It lies in $GENKIT_KERNELS_CACHE, or ~/.cache/genkit/kernels.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

logger = logging.getLogger("genkit_kernels")
SOURCES = Path(__file__).parent / "cpp"
# -march=native: what the processor has decides between AVX-512 and plain vectors. No -ffast-math:
# NaN must come through.
FLAGS = (
    "-std=c++20 -O3 -march=native -fPIC -shared -fopenmp -fvisibility=hidden -Wno-psabi"
).split()
ENTRIES = ("forward", "backward", "tangent", "both", "probe")  # genkit_forward, ...


@cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """(the library, "") or (None, why there is none). Builds it where it is not there yet."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return None, f"the compiled kernel is for Linux on x86-64, not {platform.platform()}"
    compiler = find_compiler()
    if not compiler:
        return None, "no C++ compiler was found (set CXX, or install g++ or clang++)"
    try:
        return opened(build(compiler)), ""
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        return None, f"the compiled kernel could not be built or opened: {first_line(error)}"


def find_compiler() -> str | None:
    """The C++ compiler's path: $CXX, or the first of the usual names."""
    asked = os.environ.get("CXX")
    return next(
        filter(None, map(shutil.which, [asked] if asked else ["c++", "g++", "clang++"])), None
    )


def cache_folder() -> Path:
    """Where libraries are kept."""
    asked = os.environ.get("GENKIT_KERNELS_CACHE")
    return Path(asked) if asked else Path.home() / ".cache" / "genkit" / "kernels"


def build(compiler: str) -> Path:
    """The library's file, compiled where it is not there. OSError or SubprocessError otherwise."""
    file = cache_folder() / f"{key(compiler)}.so"
    if file.is_file():
        return file
    logger.warning("building the CPU kernel, once: some ten seconds, into %s", file)
    root = Path(torch.__file__).parent
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / "library.so"
        command = [compiler, *FLAGS, *extra_flags(), abi, f"-I{root / 'include'}"]
        command += [str(SOURCES / "kernels.cpp"), "-o", str(made)]
        command += [f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        made.replace(file)  # at once, so that two processes may build at the same time
    return file


def extra_flags() -> list[str]:
    """Flags of $GENKIT_KERNELS_FLAGS, such as -DGENKIT_KEY_TILE=128, for measurements."""
    return os.environ.get("GENKIT_KERNELS_FLAGS", "").split()


def key(compiler: str) -> str:
    """What the library depends on, as a name: source, torch, compiler, flags and processor."""
    digest = hashlib.sha256()
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    features = [line for line in cpuinfo() if line.startswith(("flags", "model name"))]
    digest.update(repr([torch.__version__, compiler, FLAGS, extra_flags(), features]).encode())
    return digest.hexdigest()[:24]


def cpuinfo() -> list[str]:
    """Lines about the first processor."""
    return Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()


def opened(file: Path) -> ctypes.CDLL:
    """The library. OSError or AttributeError where it is not ours."""
    found = ctypes.CDLL(str(file))
    for entry in ENTRIES:
        function = getattr(found, f"genkit_{entry}")
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int]
    return found


@cache
def refusal(dtype: torch.dtype) -> str:
    """Why the library does not run float32 or bfloat16 on this machine, or nothing."""
    found, why = library()
    if found is None:
        return why
    error = found.genkit_probe(None, int(dtype == torch.bfloat16))
    return f"torch's products of {dtype} do not run here: {error.decode()}" if error else ""


def first_line(error: Exception) -> str:
    """The first line of a compiler's errors, or of the exception's text."""
    output = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    lines = [line for line in (output or "").splitlines() if "error" in line]
    return (lines or str(error).splitlines() or [type(error).__name__])[0]
