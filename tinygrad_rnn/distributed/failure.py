"""Ranks that fail together: exceptions, the end of the program, different calls."""

from __future__ import annotations

import atexit
import itertools
import math
import os
import sys
import time
import traceback
from typing import Any

from ..errors import DistributedError


def differing(ranks: list[tuple[str, str]]) -> str:
    """Return the message about two ranks that do different things, by their actions and details.

    Examples
    --------
    >>> from tinygrad_rnn.distributed.failure import differing
    >>> differing([("all_reduce", "float32 (3,)"), ("all_reduce", "float32 (4,)")])
    'the ranks differ: rank 0 in all_reduce: float32 (3,); rank 1 in all_reduce: float32 (4,)'
    """
    other = next(i for i, texts in enumerate(ranks) if texts != ranks[0])
    actions, details = zip(ranks[0], ranks[other], strict=True)
    lines = itertools.zip_longest(*map(str.splitlines, details), fillvalue="")
    first = next((pair for pair in lines if pair[0] != pair[1]), ("", ""))
    own, others = (f"{x}: {line:.120}".rstrip(": ") for x, line in zip(actions, first, strict=True))
    return f"the ranks differ: rank 0 in {own}; rank {other} in {others}"


def watch(world: Any) -> None:
    """End all ranks with one message when one fails or ends too early; let rank 0 alone print."""

    def fail(kind: Any, error: BaseException, trace: Any) -> None:
        if world.rank:  # another rank may have the same to say, and that is enough
            time.sleep(3.0 if kind is DistributedError else 0.3)
        who = f"rank {world.rank} of {world.size} failed and ends all:\n"
        print(who, *traceback.format_exception(kind, error, trace), sep="", file=sys.stderr)
        world.messages.abort()
        os._exit(1)  # MPICH can return from there, and `end` below must not run

    def end() -> None:
        world.patience = math.inf  # others may work alone for long
        try:
            world.meet("the end of the program (its last line, or sys.exit)")
        except DistributedError as error:
            fail(DistributedError, error, None)

    sys.excepthook = fail
    atexit.register(end)
    if world.rank:
        sys.stdout = open(os.devnull, "w")  # until the program ends
