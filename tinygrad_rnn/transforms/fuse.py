"""The decorator `fuse`, and the mode `eager` that disables it.

The core decorates pointwise functions, such as the arithmetic of a cell, and calls them operation
by operation. ``speed`` registers a subclass of `Pointwise` that compiles them. The core never
imports ``speed``: without it every result is the same, computed more slowly.
"""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

from .._util.contexts import reusable_context
from .._util.functions import check_function
from .._util.late import load
from ..engine.tensor import wrap


class _Mode(threading.local):
    eager = False


mode = _Mode()


@reusable_context
def eager() -> Iterator[None]:
    """Run every operation separately in a ``with`` block, for this thread alone.

    No function is traced or fused, and a loop over time runs step by step: each operation of each
    step has its node in the graph. Debuggers and `detect_anomaly` see every operation.
    ``tg.fuse.disabled`` is another name.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> double = tg.fuse(lambda x: 2 * x)
    >>> with tg.eager():
    ...     double(tg.ones(2))
    tensor([2., 2.])
    """
    before = mode.eager
    try:
        mode.eager = True
        yield
    finally:
        mode.eager = before


class Symbolic:
    """Base class of the arrays without values that a function is traced with."""

    __slots__ = ()


class Pointwise:
    """A decorated function, called operation by operation."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = getattr(function, "__name__", repr(function)).lstrip("_")

    def __deepcopy__(self, memo: Any) -> Pointwise:
        return self  # functions are not copied either

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **by_name: Any) -> Any:
        """Call the function."""
        load()
        if self.__class__ is not Pointwise:  # it has become one of the registered kind
            return self(*args, **by_name)
        return self.function(*args, **by_name)

    def on_arrays(self, *arrays: Any) -> tuple[Any, ...]:
        """Call a function that returns several Tensors with arrays; return its results as arrays.

        Nothing is recorded.
        """
        load()
        if self.__class__ is not Pointwise:
            return self.on_arrays(*arrays)
        return tuple([y._data for y in self.function(*[wrap(x, None, None) for x in arrays])])


_kind: type[Pointwise] = Pointwise  # of decorated functions
_early: list[Pointwise] = []  # functions decorated before another kind was registered


def register(kind: type[Pointwise], backend: Callable[..., Any]) -> None:
    """Let `fuse` return instances of `kind`, and provide ``fuse.backend``.

    ``speed`` calls this when it is imported. Functions that are decorated already become instances
    of `kind` too: so a call of a fused function costs no lookup of its implementation.

    Parameters
    ----------
    kind : type
        A subclass of `Pointwise`.
    backend : callable
        Selects how kernels run.
    """
    global _kind
    _kind = kind
    fuse.backend = backend  # type: ignore[attr-defined]
    while _early:
        function = _early.pop()
        vars(function).update(vars(kind(function.function)))
        function.__class__ = kind  # last, since another thread may call it


def fuse(function: Callable[..., Any]) -> Pointwise:
    """Make a pointwise function of Tensors one operation, with kernels derived from it.

    Parameters
    ----------
    function : callable
        Takes Tensors and numbers, in any kind of parameter (by position, by name, ``*args``, in
        lists and dicts), computes elementwise with the primitives of the library, and returns a
        Tensor or a flat tuple of Tensors. Arguments may broadcast, and `split` may split the last
        axis. The function is run twice for each signature (dtypes, which axes have length 1,
        options other than numbers), and must have no side effects.

    Returns
    -------
    Pointwise
        The function, with the same arguments and results, and derivatives of any order.

    Raises
    ------
    ArgumentError
        If `function` cannot be called. When it is called: if the function branches on a value,
        reduces, indexes, reads a Tensor or an array other than its arguments, or computes something
        else when it is run with the same arguments again (an iterator, a random number, the clock).
        The message names the line.

    Notes
    -----
    Kernels are made by ``tinygrad_rnn.speed``. In a core without that folder the function is called
    unchanged.

    Values and dtypes are those of the unfused function, called with the same Tensors and numbers.
    Array arguments and lists of numbers are converted to Tensors.

    Inside ``with tg.fuse.disabled():`` the function runs operation by operation. On the CPU its
    kernels are loops in C, or without a C compiler lists of ufuncs (see ``fuse.backend``).

    A number argument may change from call to call. The function is traced again for each answer
    that Python derives from it (``if``, ``range``, ``math.sqrt``).

    Numbers, functions and objects that its code reads from globals, closures, defaults, attributes
    and elements of containers are compared at each call with those of the trace; after a change the
    function is traced again. The comparison follows the names in its code and in the code of the
    user's functions that it finds. It does not see the contents of containers of more than 1,000
    elements, of files and of the environment, the state of objects of the standard library and of
    NumPy, and whether gradients are recorded. A function that has to be traced again at nearly
    every call runs operation by operation after 16 times.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> @tg.fuse
    ... def gated(x, gate):
    ...     return tg.sigmoid(gate) * tg.tanh(x)
    >>> x = tg.tensor([0.5, -1.0], requires_grad=True)
    >>> y = gated(x, tg.zeros(2))
    >>> y.sum().backward()
    >>> (x.grad - (1 - tg.tanh(x) ** 2) / 2).abs().max().item() < 1e-7
    True

    Numbers are arguments like Tensors; one trace serves all values:

    >>> @tg.fuse
    ... def leaky(x, *, slope):
    ...     return tg.where(x > 0, x, slope * x)
    >>> [leaky(x, slope=0.1 * i).detach().numpy().tolist() for i in range(2)]
    [[0.5, -0.0], [0.5, -0.10000000149011612]]
    """
    check_function(function, "fuse")
    made = _kind(function)
    if _kind is Pointwise:
        _early.append(made)
    return made


fuse.disabled = eager  # type: ignore[attr-defined]
