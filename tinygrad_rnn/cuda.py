"""Whether a CUDA device can be used."""

from __future__ import annotations

from .engine import backend


class Availability:
    """True or False, and the reason when False."""

    def __init__(self, reason: str | None) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        return self.reason is None

    def __repr__(self) -> str:
        return "True" if self else f"False ({self.reason})"


def is_available() -> Availability:
    """Tell whether a CUDA device can be used; when not, the answer (false) prints the reason.

    Returns
    -------
    Availability
        True or False in conditions; its ``reason`` is None, or why no device can be used.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> device = "cuda" if tg.cuda.is_available() else "cpu"
    """
    return Availability(backend.cuda_unavailable_because())
