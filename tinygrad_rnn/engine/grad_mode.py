"""The modes of a thread: whether it records operations, and whether it checks their results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from .._util.api_hints import explain_errors
from .._util.contexts import ReusableContext


class _Thread(threading.local):
    recording = True
    watcher: Any = None  # checks results and gradients: `transforms.anomaly.Watcher`


thread = _Thread()
# One element for each block that a thread is in. While a list is empty, no operation has to look up
# the modes of its thread, which would cost more than the test of a list.
paused: list[None] = []  # blocks of no_grad and enable_grad
watching: list[None] = []  # blocks of detect_anomaly


def watch_result(definition: Any, result: Any, inputs: Any, options: dict[str, Any]) -> None:
    """Let the watcher of this thread, if there is one, check the result of an operation."""
    if thread.watcher is not None:
        thread.watcher.check_result(definition, result, [*inputs, *options.values()])


def _recording(on: bool) -> Iterator[None]:
    before = thread.recording
    paused.append(None)
    try:
        thread.recording = on
        yield
    finally:
        thread.recording = before
        paused.pop()


@explain_errors
def no_grad() -> ReusableContext[None]:
    """Record no graph in a ``with`` block or decorated function, for this thread alone.

    The object can be entered again. Decorated generator and coroutine functions run their bodies in
    the block; at each ``yield`` or ``await`` the mode of the caller is restored. (A ``with`` block
    around the ``yield`` leaves the thread, and so the caller, in the mode of the block.)

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.ones(2, requires_grad=True)
    >>> with tg.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """
    return ReusableContext("no_grad", lambda: _recording(False))


@explain_errors
def enable_grad() -> ReusableContext[None]:
    """Record the graph again inside a `no_grad` block.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.ones(2, requires_grad=True)
    >>> with tg.no_grad(), tg.enable_grad():
    ...     (x * 2).requires_grad
    True
    """
    return ReusableContext("enable_grad", lambda: _recording(True))


def is_grad_enabled() -> bool:
    """Return whether operations of this thread are recorded.

    Returns
    -------
    bool
        False in `no_grad`.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.is_grad_enabled()
    True
    """
    return thread.recording
