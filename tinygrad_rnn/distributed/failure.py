"""Ranks that fail together: exceptions, signals, the end of the program, different calls."""

from __future__ import annotations

import atexit
import itertools
import math
import os
import signal
import sys
import time
import traceback
from typing import Any

from ..errors import DistributedError

END = "the end of the program (its last line, or sys.exit)"


def differing(ranks: list[tuple[str, str]]) -> str:
    """Return the message about ranks that do different things, by their actions and details.

    Examples
    --------
    >>> from tinygrad_rnn.distributed.failure import differing
    >>> differing([("all_reduce", "float32 (3,)"), ("all_reduce", "float32 (4,)")])
    'the ranks differ: rank 0 in all_reduce: float32 (3,); rank 1 in all_reduce: float32 (4,)'
    """
    texts = [text.splitlines() if action == ranks[0][0] else [] for action, text in ranks]
    lines = itertools.zip_longest(*texts, fillvalue="") if all(texts) else ()
    first = next((line for line in lines if len(set(line)) > 1), [""] * len(ranks))
    places: dict[str, list[str]] = {}
    for rank, ((action, _), line) in enumerate(zip(ranks, first, strict=True)):
        places.setdefault(f"{action}: {line:.120}".rstrip(": "), []).append(str(rank))
    return "the ranks differ: " + "; ".join(
        f"rank{'s' * (len(found) > 1)} {', '.join(found)} in {place}"
        for place, found in places.items()
    )


def watch(world: Any) -> None:
    """End all ranks with one message when one fails or ends too early; let rank 0 alone print."""

    def fail(kind: Any, error: BaseException, trace: Any) -> None:
        if world.rank:  # another rank may have the same to say, and that is enough
            time.sleep(3.0 if isinstance(error, DistributedError) else 0.3)
        text = "".join(traceback.format_exception(kind, error, trace))
        print(f"rank {world.rank} of {world.size} failed and ends all:\n{text}", file=sys.stderr)
        sys.stderr.flush()
        world.messages.abort()

    def end() -> None:
        try:
            world.meet(END, patience=math.inf)
        except DistributedError as error:
            fail(DistributedError, error, None)

    sys.excepthook = fail
    atexit.register(end)
    if world.rank:
        sys.stdout = open(os.devnull, "w")  # until the program ends


def catch_signals(world: Any) -> None:
    """Record SIGTERM and Ctrl-C; a second one ends the program as usual."""

    def record(number: int, frame: Any) -> None:
        world.signals.append(number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, record)
