"""Availability of CUDA devices."""

from __future__ import annotations

from .engine import backend


class Availability:
    """A truth value, with the reason if it is false.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> available = tg.cuda.is_available()
    >>> bool(available) == (available.reason is None)
    True
    """

    def __init__(self, reason: str | None) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        return self.reason is None

    def __repr__(self) -> str:
        return "True" if self else f"False ({self.reason})"


def is_available() -> Availability:
    """Return whether a CUDA device can be used; a false result prints the reason.

    Returns
    -------
    Availability
        True or False in conditions. Its ``reason`` is None if a device can be used, or else a str.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> device = "cuda" if tg.cuda.is_available() else "cpu"
    """
    return Availability(backend.cuda_unavailable_because())
