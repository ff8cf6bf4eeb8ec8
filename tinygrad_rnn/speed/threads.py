"""The number of threads."""

from __future__ import annotations

import os


def limit() -> int:
    """Return the number of threads that a loop may use."""
    return len(os.sched_getaffinity(0))
