"""Random numbers: one generator of the library, or one that you pass.

NumPy's global state is never touched. Numbers are drawn on the host by a counter-based generator
(Philox4x64; Salmon, Moraes, Dror and Shaw 2011), so that the CPU and the GPU get the same ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import ArgumentError

_library = np.random.Generator(np.random.Philox(0))


def generator(rng: int | np.random.Generator | None = None) -> np.random.Generator:
    """Return the generator that `rng` names.

    Parameters
    ----------
    rng : int or numpy.random.Generator, optional
        A seed for a new generator, or the one to use; the library's own if not given.

    Returns
    -------
    numpy.random.Generator
        What was named.

    Raises
    ------
    ArgumentError
        If `rng` is anything else.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> bool(tg.random.generator(3).random() == tg.random.generator(3).random())
    True
    """
    if rng is None:
        return _library
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool) and rng >= 0:
        return np.random.Generator(np.random.Philox(int(rng)))
    raise ArgumentError(
        f"rng must be None, a seed (an integer >= 0) or a numpy.random.Generator, got {rng!r}"
    )


def manual_seed(seed: int) -> None:
    """Start the library's generator anew.

    Parameters
    ----------
    seed : int
        At least 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.manual_seed(0)
    >>> a = tg.randn(3)
    >>> tg.manual_seed(0)
    >>> bool((a == tg.randn(3)).numpy().all())
    True
    """
    set_state(dict(generator(seed).bit_generator.state))


def get_state() -> dict[str, Any]:
    """Return the state of the library's generator.

    Returns
    -------
    dict
        Its key, counter and buffer, as numbers and arrays.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> state = tg.random.get_state()
    >>> a = tg.randn(3)
    >>> tg.random.set_state(state)
    >>> bool((a == tg.randn(3)).numpy().all())
    True
    """
    return dict(_library.bit_generator.state)


def set_state(state: dict[str, Any]) -> None:
    """Give the library's generator a state that `get_state` returned.

    Parameters
    ----------
    state : dict
        The state.

    Raises
    ------
    ArgumentError
        If it is no such state.
    """
    if not isinstance(state, dict) or state.get("bit_generator") != "Philox":
        raise ArgumentError("random.set_state takes what random.get_state returned")
    _library.bit_generator.state = state


def keep_mask(
    shape: tuple[int, ...], keep: float, rng: int | np.random.Generator | None = None
) -> Any:
    """Return booleans, each True with probability `keep`: raw random bits below a threshold."""
    count = int(np.prod(shape, dtype=np.int64))
    bits = generator(rng).integers(0, 2**32, count, dtype=np.uint32)
    return (bits <= np.uint32(round(keep * (2**32 - 1)))).reshape(shape)
