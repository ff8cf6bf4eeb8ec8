"""Ctrl-C between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def ctrl_c(pressed: Callable[[], Any]) -> Iterator[None]:
    """Call a function at Ctrl-C instead of raising KeyboardInterrupt; a second Ctrl-C raises it.

    So a loop can end between two steps, where its state is consistent. Signals arrive in the main
    thread only: in other threads this does nothing.

    Parameters
    ----------
    pressed : callable
        Called without arguments, at any point of the program: it should only set a flag.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> pressed = []
    >>> with tg.training.ctrl_c(lambda: pressed.append(True)):
    ...     for step in range(3):
    ...         if pressed:
    ...             break
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = signal.getsignal(signal.SIGINT)
    on_signals(pressed, signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def on_signals(function: Callable[[], Any], *numbers: int) -> None:
    """Call a function at the first of some signals; the next one acts as usual.

    Parameters
    ----------
    function : callable
        Called without arguments, at any point of the program: it should only set a flag.
    *numbers : int
        Such as ``signal.SIGTERM``. In other threads than the main one, where Python allows no
        handlers, nothing happens.

    Examples
    --------
    >>> import signal
    >>> import tinygrad_rnn as tg
    >>> before, received = signal.getsignal(signal.SIGTERM), []
    >>> tg.training.on_signals(lambda: received.append(True), signal.SIGTERM)
    >>> signal.raise_signal(signal.SIGTERM)
    >>> received
    [True]
    >>> _ = signal.signal(signal.SIGTERM, before)
    """

    def first(number: int, frame: Any) -> None:
        for each in numbers:
            usual = each == signal.SIGINT and signal.default_int_handler
            signal.signal(each, usual or signal.SIG_DFL)
        function()

    for number in numbers if threading.current_thread() is threading.main_thread() else ():
        signal.signal(number, first)
