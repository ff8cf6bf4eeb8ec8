"""Compilation of CUDA text, once for each text and device, and the size of a launch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

# No multiplication and addition are contracted, so that an element has the same bits as in C.
OPTIONS = ("--fmad=false",)
THREADS = 256  # of a block

# NVRTC has no headers of the C library.
PREAMBLE = """
#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#endif
"""


@functools.lru_cache(maxsize=1024)
def kernel(module: Any, text: str, name: str) -> Callable[..., None]:
    """Return a kernel of a CUDA text, compiled by NVRTC for the current device now.

    It is called with the grid, the block and the arguments: arrays of the device, and numbers as
    NumPy's scalars of the parameters' types.

    Parameters
    ----------
    module : module
        CuPy.
    text : str
        With ``extern "C" __global__`` functions.
    name : str
        The name of one of them.
    """
    found: Callable[..., None] = module.RawModule(code=text, options=OPTIONS).get_function(name)
    return found


def blocks(count: int) -> tuple[int]:
    """Return the grid of blocks of `THREADS` threads, one thread for each of `count` elements."""
    return (-(-count // THREADS),)
