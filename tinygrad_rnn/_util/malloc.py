"""Settings of the C library's malloc, made once when the package is imported."""

from __future__ import annotations

import ctypes
import os
import sys


def keep_freed_memory() -> None:
    """Configure glibc to keep freed memory instead of returning large blocks to the system.

    A training step frees and allocates the same large arrays again and again. By default each
    allocation is fresh memory, zeroed page by page by the kernel (about 1 ms for an array of 4
    MiB). Set ``TINYGRAD_RNN_MALLOPT=0`` to leave malloc as it was configured.
    """
    if sys.platform.startswith("linux") and os.environ.get("TINYGRAD_RNN_MALLOPT", "1") != "0":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries lack it
        if mallopt is not None:
            trim_threshold, mmap_threshold = -1, -3  # from <malloc.h>
            mallopt(mmap_threshold, 1 << 25)  # the largest value that glibc accepts
            mallopt(trim_threshold, 1 << 30)
