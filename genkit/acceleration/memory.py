"""Keep freed memory in the process, where the C library is glibc.

A training step on a CPU makes and frees blocks of many megabytes. glibc maps each anew and gives it
back, so the kernel clears every page of it again, which was a tenth of a 4M transformer's step.
"""

from __future__ import annotations

import ctypes
import sys

# mallopt(3): free memory at the top of the heap that is kept, size from which a block is mapped.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """Whether it could be asked for: False where the C library is another one than glibc."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    try:
        mallopt = library.mallopt
    except AttributeError:  # musl has none
        return False
    return all(mallopt(option, KEPT) == 1 for option in (TRIM_THRESHOLD, MMAP_THRESHOLD))
