"""Random numbers: one generator of the library per thread, or one that you pass.

NumPy's global generator is not used, and draws in one thread do not advance the generator of
another. The generator is counter-based (Philox4x64; Salmon, Moraes, Dror and Shaw 2011): a number
is a function of the key and the counter. So a GPU draws dropout masks and uniform numbers itself,
the same ones as the host would draw. Other numbers, such as normal ones, are drawn on the host.

**The main thread** starts from seed 0, or the seed of `manual_seed`.

**Other threads** have independent streams. The stream of a thread is derived from the seed of the
main thread and from the identity of the thread, which is fixed at its first draw: its name if it
was given one, otherwise k for the k-th thread that was created since the last `manual_seed` of the
main thread (the k-th worker, in an executor without ``thread_name_prefix``). So the numbers of a
thread do not depend on the scheduling of the threads. Two threads of the same identity (two workers
of one name, two executors at the same time) have different streams too; which one gets which
depends on the order of their first draws. In a pool, the assignment of tasks to workers is not
deterministic: a task that needs the same numbers in each run calls ``manual_seed(seed, stream)``
with its own number.

`manual_seed` in the main thread also restarts the streams of running threads, at their next draw.
`manual_seed` or `set_state` in another thread sets the generator of that thread only, which no
longer follows the main thread.

**A forked process** has a stream derived from that of the thread that forked and from the number of
the fork, counted in that thread since it was seeded. So the children differ from the parent and
from each other, and are the same in each run.

**A spawned process** (also by ``forkserver``) starts from seed 0 as every program does. Let each
worker call ``manual_seed(seed, stream)`` with its own number.

A generator that you pass (``rng=``) is shared by threads and copied by a fork, as NumPy's are.
"""

from __future__ import annotations

import functools
import math
import re
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from ._util.contexts import reusable_context
from .engine import backend
from .engine.ops import kernels
from .errors import ArgumentError

Rng = int | np.random.Generator | None
Key = tuple[int, int]  # of Philox: the key selects the stream, the counter the position in it


class _ThreadGenerator(threading.local):
    """The library's generator of the current thread."""

    def __init__(self) -> None:  # called once in each thread
        self.generator = np.random.Generator(np.random.Philox(0))


class _ThreadState(threading.local):
    """The derivation of the current thread's stream."""

    follows = True  # the seed of the main thread; False after the thread was seeded itself
    main_seed: Any = None  # the `_MainSeed` that the stream was derived from
    identity: str | None = None
    forks = 0  # the number of forks since it was seeded


class _MainSeed:
    """The key of the main thread since it was last seeded, and the threads that follow it."""

    def __init__(self, key: Key, created: int) -> None:
        self.key, self.created = key, created
        self.pools: list[str] = []  # name prefixes of the executors without a name
        self.seen: Counter[str] = Counter()

    def identity(self, name: str) -> str:
        """Return the identity of a thread: its name, or its number if Python named it."""
        if found := re.fullmatch(r"(?:Thread|Dummy)-(\d+)(?: \(.*\))?", name):
            return f"thread {int(found[1]) - self.created}"
        if found := re.fullmatch(r"(ThreadPoolExecutor-\d+)_(\d+)", name):
            if found[1] not in self.pools:
                self.pools.append(found[1])
            return f"pool {self.pools.index(found[1])} {found[2]}"
        return f"name {name}"


class _Recording(threading.local):
    states: dict[np.random.Generator | None, Any] | None = None  # before their first draw
    tracer: Any = None  # records the draws of a function that is traced, in place of drawing


_current, _thread, _recording = _ThreadGenerator(), _ThreadState(), _Recording()
_lock = threading.Lock()


def _philox_key(rng: np.random.Generator) -> Key:
    first, second = rng.bit_generator.state["state"]["key"].tolist()
    return first, second


def _derived(key: Key, *name: int) -> np.random.Philox:
    """Return the stream derived from a key and a name; different names give different streams."""
    sequence = np.random.SeedSequence(key[0] | key[1] << 64, spawn_key=name)
    return np.random.Philox(sequence)


_THREAD, _FORK, _NUMBER = range(3)  # the first component of a name: the kind of the others
_main_seed = _MainSeed(_philox_key(_current.generator), 0)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _threads_created() -> int:
    """Return how many threads without a name were created: Python numbers them."""
    return int(threading.Thread().name.rpartition("-")[2])


def _current_generator() -> np.random.Generator:
    """Return the library's generator of this thread, restarted if the main thread was seeded."""
    seed = _main_seed
    if _thread.main_seed is not seed and _thread.follows:
        if not _in_main_thread():
            with _lock:
                if _thread.identity is None:
                    _thread.identity = seed.identity(threading.current_thread().name)
                twin = seed.seen[_thread.identity]
                seed.seen[_thread.identity] += 1
            stream = _derived(seed.key, _THREAD, twin, *_thread.identity.encode())
            _current.generator.bit_generator.state = stream.state
            _thread.forks = 0
        _thread.main_seed = seed
    return _current.generator


def _seed(state: Any, restart: bool) -> None:
    """Set the generator of this thread; in the main thread, other threads follow a new key.

    With `restart` they restart their streams even if the key is the same.
    """
    global _main_seed
    _current.generator.bit_generator.state = state
    key = _philox_key(_current.generator)
    if not _in_main_thread():
        _thread.follows = False
    elif restart or key != _main_seed.key:
        _main_seed = _thread.main_seed = _MainSeed(key, _threads_created())
    else:
        return
    _thread.forks = 0


def _before_fork() -> None:
    """Count a fork. The package calls this and the next, also if this module was not imported."""
    _current_generator()
    _thread.forks += 1


def _after_fork() -> None:
    """Begin the stream of a forked process."""
    global _lock, _main_seed
    _lock = threading.Lock()  # another thread may have held it
    stream = _derived(_philox_key(_current.generator), _FORK, _thread.forks)
    _thread.follows = True
    _seed(stream.state, True)


def generator(rng: Rng = None) -> np.random.Generator:
    """Return the generator for an argument ``rng=``.

    Parameters
    ----------
    rng : int or numpy.random.Generator, optional
        A seed for a new generator, or the generator itself. Default: the library's generator.

    Returns
    -------
    numpy.random.Generator

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
    if _recording.tracer is not None:
        _recording.tracer.refuse_draw()
    if rng is None or isinstance(rng, np.random.Generator):
        if _recording.states is not None and rng is not None and rng not in _recording.states:
            _recording.states[rng] = rng.bit_generator.state
        return rng or _current_generator()
    return _seeded(rng, "rng must be an integer >= 0 or a numpy.random.Generator")


def _seeded(seed: Any, wanted: str) -> np.random.Generator:
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0:
        return np.random.Generator(np.random.Philox(int(seed)))
    raise ArgumentError(f"{wanted}, got {seed!r}")


def manual_seed(seed: int, stream: int = 0) -> None:
    """Restart the library's generator of this thread from a seed.

    In the main thread this also seeds the other threads and forked processes: each has a stream of
    its own, derived from the seed as `tinygrad_rnn.random` describes.

    Parameters
    ----------
    seed : int
        At least 0.
    stream : int
        At least 0: the number of a stream of the seed. Different streams are independent; a stream
        does not depend on the thread or process that draws from it.

    Raises
    ------
    ArgumentError
        If `seed` or `stream` is not an integer of at least 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.manual_seed(0)
    >>> a = tg.randn(3)
    >>> tg.manual_seed(0)
    >>> bool((a == tg.randn(3)).numpy().all())
    True
    """
    rng = _seeded(seed, "manual_seed: seed must be an integer >= 0")
    _seeded(stream, "manual_seed: stream must be an integer >= 0")
    if stream:
        rng = np.random.Generator(_derived(_philox_key(rng), _NUMBER, int(stream)))
    _seed(rng.bit_generator.state, True)


def get_state() -> dict[str, Any]:
    """Return the state of the library's generator.

    Returns
    -------
    dict
        The key, counter and buffer of Philox, as numbers and arrays.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> state = tg.random.get_state()
    >>> a = tg.randn(3)
    >>> tg.random.set_state(state)
    >>> bool((a == tg.randn(3)).numpy().all())
    True
    """
    return dict(_current_generator().bit_generator.state)


def set_state(state: dict[str, Any]) -> None:
    """Set the library's generator of this thread to a state that `get_state` returned.

    In the main thread, a state of another seed also seeds the other threads, as `manual_seed` does.

    Parameters
    ----------
    state : dict
        The result of `get_state`.

    Raises
    ------
    ArgumentError
        If `state` is not a state of Philox; the generator is unchanged.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> state = tg.random.get_state()
    >>> first = tg.rand(3)
    >>> tg.random.set_state(state)
    >>> (tg.rand(3) == first).numpy().all()
    np.True_
    """
    _seed(_check_state(state), False)


def _check_state(state: dict[str, Any]) -> dict[str, Any]:
    trial: Any = np.random.Philox(0)  # a trial, since NumPy writes some entries before it raises
    try:
        trial.state = state
        if str(trial.state) != str(state) or not 0 <= state["buffer_pos"] <= 4:
            raise ValueError("unknown entry, or entry out of range")  # NumPy ignores both
    except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ArgumentError(
            "random.set_state: a state from random.get_state is expected"
        ) from error
    return state


@functools.partial(reusable_context, resumes=False)
def record_states() -> Iterator[dict[np.random.Generator | None, Any]]:
    """Record the states of the generators that the library draws from, for `replay`.

    Returns
    -------
    context manager
        Its value is a dict: None maps to the state of the library's generator at the start, and
        each generator passed as ``rng=`` in the block to its state before the first draw.

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
    states: dict[np.random.Generator | None, Any] = {None: get_state()}
    outer, _recording.states = _recording.states, states
    try:
        yield states
    finally:
        _recording.states = outer
        if outer is not None:
            outer.update({rng: state for rng, state in states.items() if rng not in outer})


@functools.partial(reusable_context, resumes=False)
def replay(state: dict[Any, Any]) -> Iterator[None]:
    """Draw random numbers from earlier states again; the current states are restored at the end.

    Parameters
    ----------
    state : dict
        A result of `get_state`, or a dict of `record_states`.

    Raises
    ------
    ArgumentError
        If a state is not one of `get_state`.

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
    _check_state(states[None])
    before = {rng: (rng or _current_generator()).bit_generator.state for rng in states}
    try:
        restore(states)
        yield
    finally:
        restore(before)


def restore(states: dict[np.random.Generator | None, Any]) -> None:
    """Set generators to the states of `record_states`, without effect on other threads.

    Parameters
    ----------
    states : dict
        The dict of `record_states`: a state for None, the library's generator, and for others.

    Raises
    ------
    ValueError or TypeError
        NumPy's, if a state is not one of its generator.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> with tg.random.record_states() as states:
    ...     a = tg.randn(3)
    >>> tg.random.restore(states)
    >>> bool((a == tg.randn(3)).numpy().all())
    True
    """
    for rng, state in states.items():
        (rng or _current_generator()).bit_generator.state = state


def keep_mask(shape: tuple[int, ...], keep: float, rng: Rng = None, device: str = "cpu") -> Any:
    """Return booleans, each True with probability `keep`: random bits compared to a threshold.

    Parameters
    ----------
    shape : tuple of int
        Of the result.
    keep : float
        The probability, from 0 to 1.
    rng : int or numpy.random.Generator, optional
        A seed or a generator; the library's own generator if not given.
    device : str
        Of the result.

    Returns
    -------
    array
        Booleans of `shape`, an array of NumPy or CuPy.

    Raises
    ------
    ArgumentError
        If `keep` is not a probability.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.random.keep_mask((2, 3), 1.0)
    array([[ True,  True,  True],
           [ True,  True,  True]])
    """
    if _recording.tracer is not None:
        return _recording.tracer.keep_mask(shape, keep, rng)
    if not hasattr(keep, "__float__") or not 0 <= keep <= 1:
        raise ArgumentError(f"random.keep_mask: keep is a probability from 0 to 1, got {keep!r}")
    source, limit = generator(rng), round(keep * (2**32 - 1))
    found = _drawn_on_gpu(source, device, "keep_mask", 32, shape, limit)
    if found is not NotImplemented:
        return found
    bits = source.integers(0, 2**32, shape, dtype=np.uint32)
    return backend.to_device(np.asarray(bits <= np.uint32(limit)), device)


def draw_uniform(
    shape: tuple[int, ...],
    dtype: Any,
    low: float = 0.0,
    high: float = 1.0,
    rng: Rng = None,
    device: str = "cpu",
) -> Any:
    """Return an array of draws from U(low, high), drawn in double precision and then rounded.

    Parameters
    ----------
    shape : tuple of int
        Of the result.
    dtype : dtype
        Of the result.
    low, high : float
        The interval, with `low` and without `high` before rounding.
    rng : int or numpy.random.Generator, optional
        A seed or a generator; the library's own generator if not given.
    device : str
        Of the result.

    Returns
    -------
    array
        Of `shape`, an array of NumPy or CuPy.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.random.draw_uniform((2, 3), "float32", -1, 1, rng=0)
    >>> x.shape, abs(x).max() <= 1
    ((2, 3), np.True_)
    """
    source = generator(rng)
    found = _drawn_on_gpu(source, device, "uniform", 64, shape, dtype, low, high)
    if found is not NotImplemented:
        return found
    return backend.to_device(source.uniform(low, high, shape).astype(dtype), device)


# -- drawing on a GPU ------------------------------------------------------------------------------


def _drawn_on_gpu(
    rng: np.random.Generator, device: str, name: str, bits: int, shape: tuple[int, ...], *args: Any
) -> Any:
    """Return numbers that a function of `kernels.on_gpu` draws, and advance the generator.

    The numbers are those that the generator would draw on the host.
    """
    draw, generator = kernels.on_gpu.get(name), rng.bit_generator
    if device == "cpu" or draw is None or type(generator) is not np.random.Philox:
        return NotImplemented
    advance = functools.partial(_advanced, count=math.prod(shape), bits=bits)
    with generator.lock:
        before: dict[str, Any] = dict(generator.state)
        found = draw(device, (generator, before, advance), shape, *args)
        if found is not NotImplemented:
            after: Any = advance(before)
            generator.state = after
    return found


def _advanced(state: dict[str, Any], count: int, bits: int) -> dict[str, Any]:
    """Return the state of Philox after `count` numbers of 32 or 64 bits."""
    state = {**state, "state": dict(state["state"]), "buffer": state["buffer"].copy()}
    words = count
    if bits == 32:  # a word is two numbers; the second one may be left from before
        left = min(count, state["has_uint32"])
        state["has_uint32"] += (count - left) % 2 - left
        words = -(-(count - left) // 2)
    buffered = 4 - state["buffer_pos"]
    blocks = max(0, -(-(words - buffered) // 4))
    if blocks:
        parts = [int(part) for part in state["state"]["counter"]]
        counter = sum(part << 64 * i for i, part in enumerate(parts)) + blocks
        parts = [counter >> 64 * i & _WORD for i in range(4)]
        state["state"]["counter"] = np.array(parts, np.uint64)
        state["buffer"][:] = _philox_block(parts, [int(k) for k in state["state"]["key"]])
    state["buffer_pos"] += words - 4 * blocks
    if bits == 32 and words:
        state["uinteger"] = int(state["buffer"][state["buffer_pos"] - 1]) >> 32
    return state


_WORD = 2**64 - 1


def _philox_block(counter: list[int], key: list[int]) -> list[int]:
    """Return the four words of 64 bits of a counter: Philox4x64 of ten rounds."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        p, q = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = q >> 64 ^ b ^ k, q & _WORD, p >> 64 ^ d ^ m, p & _WORD
        k, m = k + 0x9E3779B97F4A7C15 & _WORD, m + 0xBB67AE8584CAA73B & _WORD
    return [a, b, c, d]
