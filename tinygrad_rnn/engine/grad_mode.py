"""Grad mode: whether the operations of a thread are recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from .._util.api_hints import explain_errors
from .._util.contexts import ReusableContext


class _Thread(threading.local):
    recording = True


thread = _Thread()
paused: list[None] = []  # empty: no thread is in a block, so none need look up its own mode


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

    The object can be entered again. Of a decorated generator or coroutine function the body runs in
    the block; at each ``yield`` or ``await`` the mode of the caller is restored. (A ``with`` block
    around them leaves the thread, and so the caller, in its mode meanwhile.)

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
    """Tell whether operations of this thread are being recorded.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.is_grad_enabled()
    True
    """
    return thread.recording
