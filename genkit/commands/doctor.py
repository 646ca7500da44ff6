"""Say what genkit finds on this machine, and what is missing: genkit doctor.

One line each, ok or !!, with what to do about the latter.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

Finding = tuple[bool, str, str]


def run(argv: list[str]) -> int:
    """Print the findings; 1 if something needed does not work."""
    if argv:
        print(f"usage: genkit doctor\n\n{__doc__}")
        return 0
    broken = False
    for look in (_python, _packages, _machine, _disk, _gpu, _extras, _pipelines):
        for good, what, told in look():
            print(f"{'ok' if good else '!!'}  {what:<14}{told}", flush=True)
            broken |= not good and look is not _extras
    return int(broken)


def _python() -> Iterator[Finding]:
    yield sys.version_info >= (3, 11), "python", f"{platform.python_version()} ({sys.executable})"


def _packages() -> Iterator[Finding]:
    from genkit import __version__

    yield True, "genkit", __version__
    for name in ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors"):
        try:
            yield True, name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield False, name, f"is missing: pip install {name}"


def _machine() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    threads = torch.get_num_threads()
    yield threads <= cores, "cores", f"{cores}, torch uses {threads}"
    if sys.platform == "linux":
        page = os.sysconf("SC_PAGE_SIZE")
        free, whole = (
            page * os.sysconf(name) / 2**30 for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")
        )
        yield whole > 2, "memory", f"{free:.1f} of {whole:.1f} GiB free"


def _disk() -> Iterator[Finding]:
    from genkit.data.cache import cache_folder

    for what, folder in (("disk", Path.cwd()), ("cache", cache_folder())):
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free / 2**30
        writable = os.access(there, os.W_OK)
        told = f"{folder}, {free:.1f} GiB free" + ("" if writable else ", not writable")
        yield free > 1 and writable, what, told


def _gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        yield (
            True,
            "gpu",
            ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())),
        )
    else:
        yield True, "gpu", "none; everything here runs on the CPU"


def _extras() -> Iterator[Finding]:
    """The optional packages, by the extras genkit itself declares."""
    for extra, needed in sorted(extras().items()):
        missing = [name for name in needed if not _installed(name)]
        what = "genkit demo" if extra == "app" else "issues to come"
        told = f"for {what}, lacks: pip install {' '.join(missing)}"
        yield not missing, f"[{extra}]", told if missing else "installed"


def extras() -> dict[str, list[str]]:
    """{extra: its packages}, from genkit's own metadata."""
    found: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("genkit") or []:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"extra == .(\w+)", line)
        if name and extra:
            found.setdefault(extra[1], []).append(name[0])
    return found


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _pipelines() -> Iterator[Finding]:
    from genkit.catalogue import pipelines
    from genkit.hub import Pipeline

    for name in pipelines():
        try:
            Pipeline.from_pretrained(name)
            yield True, name, "opens"
        except ValueError as error:
            yield False, name, str(error)
