"""Random numbers: one generator of the library in every thread, or one that you pass.

NumPy's global state is never touched, and the numbers that one thread draws do not advance the
generator of another. Numbers are drawn on the host by a counter-based generator (Philox4x64;
Salmon, Moraes, Dror and Shaw 2011), so that the CPU and the GPU get the same ones.

**The main thread** starts from seed 0, or the seed of `manual_seed`.

**Other threads** have streams of their own. The stream of a thread follows from the seed of the
main thread and from the identity of the thread, which is fixed when it first draws: its name if it
was given one, otherwise its number, k for the k-th thread that was created after the last
`manual_seed` of the main thread (k-th worker, in an executor without ``thread_name_prefix``). So
the numbers of a thread do not depend on which thread is faster. Two threads of the same identity
(two workers of one name, two executors at the same time) have different streams too; they are told
apart by the order in which they first draw. In a pool it is not determined which worker runs which
task: where a task shall draw the same numbers in each run, it calls ``manual_seed(seed, stream)``
with its own number.

`manual_seed` in the main thread also restarts the streams of the threads that run already, at their
next draw. `manual_seed` or `set_state` in another thread set the generator of that thread only, and
from then on it does not follow the main thread.

**A forked process** has a stream that follows from that of the thread that forked, and from the
number of the fork, counted in that thread since it was seeded. So the children differ from the
parent and from each other, and are the same in each run.

**A spawned process** (also by ``forkserver``) is a new one: it starts from seed 0 as every program
does. Let each worker call ``manual_seed(seed, stream)`` with its own number.

A generator that you made and pass (``rng=``) is shared by threads and copied by a fork, as NumPy's
are.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from ._util.contexts import reusable_context
from .engine import backend
from .errors import ArgumentError

Rng = int | np.random.Generator | None
Key = tuple[int, int]  # of Philox: it says which stream, the counter how far


class _Library(threading.local):
    def __init__(self) -> None:  # once in every thread
        self.generator = np.random.Generator(np.random.Philox(0))


class _Own(threading.local):
    """What a thread knows of its stream."""

    follows = True  # the seed of the main thread; False once the thread was seeded itself
    root: Any = None  # the `_Root` that its stream was made from
    identity: str | None = None
    forks = 0  # since it was seeded


class _Root:
    """The key of the main thread, since it was last seeded, and the threads that follow it."""

    def __init__(self, key: Key, created: int) -> None:
        self.key, self.created = key, created
        self.pools: list[str] = []  # prefixes of the executors without a name
        self.seen: Counter[str] = Counter()

    def identity(self, name: str) -> str:
        """Return by what a thread is known: its name, or its number if Python named it."""
        if found := re.fullmatch(r"(?:Thread|Dummy)-(\d+)(?: \(.*\))?", name):
            return f"thread {int(found[1]) - self.created}"
        if found := re.fullmatch(r"(ThreadPoolExecutor-\d+)_(\d+)", name):
            if found[1] not in self.pools:
                self.pools.append(found[1])
            return f"pool {self.pools.index(found[1])} {found[2]}"
        return f"name {name}"


class _Notes(threading.local):
    states: dict[np.random.Generator | None, Any] | None = None  # of whom we draw from, if noted


_library, _own, _notes = _Library(), _Own(), _Notes()
_lock = threading.Lock()


def _key(rng: np.random.Generator) -> Key:
    first, second = rng.bit_generator.state["state"]["key"].tolist()
    return first, second


def _stream(key: Key, *name: int) -> np.random.Philox:
    """Return the stream of a name under a key: no two names have the same one."""
    sequence = np.random.SeedSequence(key[0] | key[1] << 64, spawn_key=name)
    return np.random.Philox(sequence)


_THREAD, _FORK, _NUMBER = range(3)  # the first of a name: what it counts
_root = _Root(_key(_library.generator), 0)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _threads_created() -> int:
    """Return how many threads without a name were created in this process: Python counts them."""
    return int(threading.Thread().name.rpartition("-")[2])


def _mine() -> np.random.Generator:
    """Return the library's generator of this thread, at the place where it is to go on."""
    root = _root
    if _own.root is not root and _own.follows:
        if not _is_main():
            with _lock:
                if _own.identity is None:
                    _own.identity = root.identity(threading.current_thread().name)
                twin = root.seen[_own.identity]
                root.seen[_own.identity] += 1
            stream = _stream(root.key, _THREAD, twin, *_own.identity.encode())
            _library.generator.bit_generator.state = stream.state
            _own.forks = 0
        _own.root = root
    return _library.generator


def _seed(state: Any, again: bool) -> None:
    """Set the generator of this thread; of the main one also the root of the other threads."""
    global _root
    _library.generator.bit_generator.state = state
    key = _key(_library.generator)
    if not _is_main():
        _own.follows = False
    elif again or key != _root.key:
        _root = _own.root = _Root(key, _threads_created())
    else:
        return
    _own.forks = 0


def _before_fork() -> None:
    _mine()
    _own.forks += 1


def _after_fork() -> None:
    global _lock, _root
    _lock = threading.Lock()  # another thread may have held it
    stream = _stream(_key(_library.generator), _FORK, _own.forks)
    _own.follows = True
    _seed(stream.state, True)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


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
        return rng or _mine()
    return _of_seed(rng, "rng must be an integer >= 0 or a numpy.random.Generator")


def _of_seed(seed: Any, wanted: str) -> np.random.Generator:
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0:
        return np.random.Generator(np.random.Philox(int(seed)))
    raise ArgumentError(f"{wanted}, got {seed!r}")


def manual_seed(seed: int, stream: int = 0) -> None:
    """Start the library's generator of this thread anew.

    In the main thread it also seeds the other threads and the processes that are forked: each has
    a stream of its own that follows from the seed, as `tinygrad_rnn.random` describes.

    Parameters
    ----------
    seed : int
        At least 0.
    stream : int
        At least 0: which of the streams of the seed. Two numbers give numbers that are independent
        of each other, in whichever thread or process they are drawn.

    Raises
    ------
    ArgumentError
        If one of them is no such number.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.manual_seed(0)
    >>> a = tg.randn(3)
    >>> tg.manual_seed(0)
    >>> bool((a == tg.randn(3)).numpy().all())
    True
    """
    rng = _of_seed(seed, "manual_seed: seed must be an integer >= 0")
    _of_seed(stream, "manual_seed: stream must be an integer >= 0")
    if stream:
        rng = np.random.Generator(_stream(_key(rng), _NUMBER, int(stream)))
    _seed(rng.bit_generator.state, True)


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
    return dict(_mine().bit_generator.state)


def set_state(state: dict[str, Any]) -> None:
    """Give the library's generator of this thread a state that `get_state` returned.

    In the main thread, a state of another seed also seeds the other threads, as `manual_seed` does.

    Parameters
    ----------
    state : dict
        The state.

    Raises
    ------
    ArgumentError
        If it is no such state; the generator goes on as before.
    """
    _seed(_checked(state), False)


def _rewind(state: dict[str, Any]) -> None:
    """Set the library's generator to a state that it had, for a while: no other thread notices."""
    _mine().bit_generator.state = state


def _checked(state: dict[str, Any]) -> dict[str, Any]:
    trial: Any = np.random.Philox(0)  # NumPy writes what it can before it finds a fault
    try:
        trial.state = state
        if str(trial.state) != str(state) or not 0 <= state["buffer_pos"] <= 4:
            raise ValueError("an entry too many, or out of its range")  # NumPy does not mind
    except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ArgumentError("random.set_state takes what random.get_state returned") from error
    return state


@functools.partial(reusable_context, resumes=False)
def record_states() -> Iterator[dict[np.random.Generator | None, Any]]:
    """Note the states of the generators that the library draws from, for `replay`.

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
    >>> with tg.random.record_states() as states:
    ...     a = tg.randn(3, rng=rng)
    >>> with tg.random.replay(states):
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


@functools.partial(reusable_context, resumes=False)
def replay(state: dict[Any, Any]) -> Iterator[None]:
    """Draw the library's numbers from an earlier state again; afterwards as if nothing was drawn.

    Parameters
    ----------
    state : dict
        What `get_state` returned then, or what `record_states` gave.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> state = tg.random.get_state()
    >>> a = tg.randn(3)
    >>> with tg.random.replay(state):
    ...     print(bool((a == tg.randn(3)).numpy().all()))
    True
    """
    states = state if None in state else {None: state}
    generators = [rng for rng in states if rng is not None]
    after, others = get_state(), [rng.bit_generator.state for rng in generators]
    library = _checked(states[None])
    try:
        _rewind(library)
        for rng in generators:
            rng.bit_generator.state = states[rng]
        yield
    finally:
        _rewind(after)
        for rng, was in zip(generators, others, strict=True):
            rng.bit_generator.state = was


def keep_mask(shape: tuple[int, ...], keep: float, rng: Rng = None) -> Any:
    """Return booleans, each True with probability `keep`: raw random bits below a threshold."""
    bits = generator(rng).integers(0, 2**32, shape, dtype=np.uint32)
    return backend.asarray(bits <= np.uint32(round(keep * (2**32 - 1))))
