"""Random numbers: one generator of the library in every thread, or one that you pass.

NumPy's global state is never touched, and what a thread draws does not depend on another thread.
Numbers are drawn on the host by a counter-based generator (Philox4x64; Salmon, Moraes, Dror and
Shaw 2011), so that the CPU and the GPU get the same ones.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from .engine import backend
from .errors import ArgumentError

Rng = int | np.random.Generator | None


class _Library(threading.local):
    def __init__(self) -> None:  # once in every thread
        self.generator = np.random.Generator(np.random.Philox(0))


class _Notes(threading.local):
    states: dict[np.random.Generator | None, Any] | None = None  # of whom we draw from, if noted


_library = _Library()
_notes = _Notes()


def generator(rng: Rng = None) -> np.random.Generator:
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
    if rng is None or isinstance(rng, np.random.Generator):
        if _notes.states is not None and rng is not None and rng not in _notes.states:
            _notes.states[rng] = rng.bit_generator.state
        return rng or _library.generator
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool) and rng >= 0:
        return np.random.Generator(np.random.Philox(int(rng)))
    raise ArgumentError(f"rng must be an integer >= 0 or a numpy.random.Generator, got {rng!r}")


def manual_seed(seed: int) -> None:
    """Start the library's generator of this thread anew.

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
    return dict(_library.generator.bit_generator.state)


def set_state(state: dict[str, Any]) -> None:
    """Give the library's generator a state that `get_state` returned.

    Parameters
    ----------
    state : dict
        The state.

    Raises
    ------
    ArgumentError
        If it is no such state; the generator goes on as before.
    """
    trial: Any = np.random.Philox(0)  # NumPy writes what it can before it finds a fault
    try:
        trial.state = state
        if str(trial.state) != str(state) or not 0 <= state["buffer_pos"] <= 4:
            raise ValueError("an entry too many, or out of its range")  # NumPy does not mind
    except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ArgumentError("random.set_state takes what random.get_state returned") from error
    _library.generator.bit_generator.state = state


@contextlib.contextmanager
def noted() -> Iterator[dict[np.random.Generator | None, Any]]:
    """Note the states of the generators that the library draws from, for `replayed`.

    Returns
    -------
    context manager
        It gives a dict: under None the state of the library's generator at the start, and under
        each generator that `generator` is asked for (``rng=``) its state before that.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> rng = np.random.default_rng(0)
    >>> with tg.random.noted() as states:
    ...     a = tg.randn(3, rng=rng)
    >>> with tg.random.replayed(states):
    ...     print(bool((a == tg.randn(3, rng=rng)).numpy().all()))
    True
    """
    before, _notes.states = _notes.states, {None: get_state()}
    own = _notes.states
    try:
        yield own
    finally:
        _notes.states = before
        if before is not None:
            before.update({rng: state for rng, state in own.items() if rng not in before})


@contextlib.contextmanager
def replayed(state: dict[Any, Any]) -> Iterator[None]:
    """Draw the library's numbers from an earlier state again; afterwards as if nothing was drawn.

    Parameters
    ----------
    state : dict
        What `get_state` returned then, or what `noted` gave.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> state = tg.random.get_state()
    >>> a = tg.randn(3)
    >>> with tg.random.replayed(state):
    ...     print(bool((a == tg.randn(3)).numpy().all()))
    True
    """
    states = state if None in state else {None: state}
    generators = [rng for rng in states if rng is not None]
    after, others = get_state(), [rng.bit_generator.state for rng in generators]
    set_state(states[None])
    try:
        for rng in generators:
            rng.bit_generator.state = states[rng]
        yield
    finally:
        set_state(after)
        for rng, was in zip(generators, others, strict=True):
            rng.bit_generator.state = was


def keep_mask(shape: tuple[int, ...], keep: float, rng: Rng = None) -> Any:
    """Return booleans, each True with probability `keep`: raw random bits below a threshold."""
    bits = generator(rng).integers(0, 2**32, shape, dtype=np.uint32)
    return backend.asarray(bits <= np.uint32(round(keep * (2**32 - 1))))
