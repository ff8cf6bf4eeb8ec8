"""How the C library keeps memory: a setting made once, when the package is imported."""

from __future__ import annotations

import ctypes
import os
import sys


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of handing every large block back to the system.

    A training step frees and takes the same large arrays again and again; by default each is fresh
    memory, zeroed page by page by the kernel (a 4 MiB array costs about 1 ms). Set
    ``TINYGRAD_RNN_MALLOPT=0`` to leave the allocator alone.
    """
    if sys.platform.startswith("linux") and os.environ.get("TINYGRAD_RNN_MALLOPT", "1") != "0":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from other C libraries
        if mallopt is not None:
            trim_threshold, mmap_threshold = -1, -3  # from <malloc.h>
            mallopt(mmap_threshold, 1 << 25)  # the largest that glibc takes
            mallopt(trim_threshold, 1 << 30)
