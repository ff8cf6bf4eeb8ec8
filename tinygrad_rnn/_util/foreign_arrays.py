"""Conversion of other libraries' arrays, which must not drop a graph or a mask implicitly.

NumPy converts every object that has ``__array__``, a buffer or a length. PyTorch and JAX raise an
error if that would lose a gradient; other libraries do not. So each object is examined before NumPy
converts it: by the attributes that such libraries share, not by a list of libraries.
"""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..errors import DTypeError, GraphError, ShapeError
from . import LIBRARY
from .api_hints import class_name
from .nested import leaves, map_nested

GRAPH_FLAGS = (("requires_grad", True), ("stop_gradient", False), ("constant", False))
GRAPH_ATTRIBUTES = ("backward", "grad")  # of an object without such a flag
PLAIN_TYPES = frozenset((bool, int, float, complex, str, bytes, type(None)))


def to_owned_array(data: Any) -> np.ndarray[Any, Any]:
    """Return an array of the values of an object that is not an array, in memory of its own.

    Parameters
    ----------
    data : object
        A number, nested lists or tuples, or an object that NumPy converts: a buffer, a tensor of
        another library.

    Returns
    -------
    ndarray
        Of the dtype that NumPy infers. It shares no memory with `data`, which may be overwritten
        before the backward pass.

    Raises
    ------
    ShapeError
        If rows differ in length.
    DTypeError
        If the object cannot be converted.

    Examples
    --------
    >>> from tinygrad_rnn._util.foreign_arrays import to_owned_array
    >>> buffer = bytearray(b"ab")
    >>> values = to_owned_array(memoryview(buffer))
    >>> buffer[0] = 0
    >>> values
    array([97, 98], dtype=uint8)
    """
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"the rows of a tensor differ in length ({error})") from None
    except TypeError as error:  # raised by its own library: bfloat16, memory of a GPU
        raise DTypeError(f"cannot make a tensor of {class_name(data)}: {error}") from error
    return array if type(data) in PLAIN_TYPES or isinstance(data, list | tuple) else np.array(array)


_CURES = {  # by the kind of a dtype that has no real numbers
    "M": "count time from a first date, (dates - dates.min()) / numpy.timedelta64(1, 'D')",
    "m": "divide durations by a unit, x / numpy.timedelta64(1, 'D')",
    "U": "number labels, numpy.unique(labels, return_inverse=True)[1], and encode text by "
    "tinygrad_rnn.data.text.Vocabulary",
}


def cure_of_dtype(data: Any, dtype: np.dtype[Any]) -> str:
    """Return the end of an error about data that are not real numbers: how to make them so.

    Parameters
    ----------
    data : object
        The data; of a table each column is looked at.
    dtype : dtype
        Of the data as an array.

    Returns
    -------
    str
        Empty for a dtype without a cure.

    Examples
    --------
    >>> import numpy as np
    >>> from tinygrad_rnn._util.foreign_arrays import cure_of_dtype
    >>> dates = np.array(["2024-01-01"], "datetime64[D]")
    >>> cure_of_dtype(dates, dates.dtype)[:40]
    ': count time from a first date, (dates -'
    """
    if not (hasattr(data, "columns") and hasattr(data, "dtypes") and hasattr(data, "iloc")):
        kind = _kind(data) if dtype.kind == "O" and hasattr(data, "__array__") else dtype.kind
        return f": {_CURES[kind]}" if kind in _CURES else ""
    columns = {name: np.asarray(data.iloc[:, i]) for i, name in enumerate(data.columns)}
    wrong = {
        name: _kind(column) for name, column in columns.items() if column.dtype.kind not in "fiub"
    }
    cures = dict.fromkeys(_CURES[kind] for kind in wrong.values() if kind in _CURES)
    return "; ".join([f": drop the columns, .drop(columns={[*wrong]}), or convert them", *cures])


def _kind(data: Any) -> str:
    """Return the kind of the dtype of an array; that of its first element for objects."""
    array = np.asarray(data)
    if array.dtype.kind == "O" and array.size:
        first = array.flat[0]
        return "U" if isinstance(first, str) else "M" if hasattr(first, "year") else "O"
    return array.dtype.kind.replace("S", "U")


def copy_arrays(kinds: Iterable[type], value: Any) -> Any:
    """Return a nested value with its arrays copied; copies keep the class and the memory layout.

    Parameters
    ----------
    kinds : iterable of type
        The array classes.
    value : object
        A leaf, or tuples, lists and dicts of leaves.

    Returns
    -------
    object
        `value` itself if it contains no array.

    Examples
    --------
    >>> import numpy as np
    >>> from tinygrad_rnn._util.foreign_arrays import copy_arrays
    >>> weights = {"w": np.ones(2)}
    >>> copy = copy_arrays([np.ndarray], weights)
    >>> weights["w"][:] = 0
    >>> copy
    {'w': array([1., 1.])}
    """
    arrays: Any = tuple(kinds)
    if not any(isinstance(x, arrays) for x in leaves(value)):
        return value
    return map_nested(lambda x: x.copy(order="K") if isinstance(x, arrays) else x, value)


def copy_aliased_output(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a user's forward such that its result does not share memory with an argument.

    Parameters
    ----------
    forward : callable
        A function of an array module (NumPy or CuPy) and of arrays.

    Returns
    -------
    callable
        It copies the result of `forward` if that is an argument or, on the CPU, a view.

    Examples
    --------
    >>> import numpy as np
    >>> from tinygrad_rnn._util.foreign_arrays import copy_aliased_output
    >>> x = np.ones(2)
    >>> np.shares_memory(copy_aliased_output(lambda xp, x: x[::-1])(np, x), x)
    False
    """

    @functools.wraps(forward)
    def call(xp: Any, *arrays: Any, **params: Any) -> Any:
        out = forward(xp, *arrays, **params)
        if out.__class__ is not np.ndarray:
            refuse_lossy_conversion(out)
        view = out.__class__ is np.ndarray and out.base is not None
        return out.copy(order="K") if view or any(out is x for x in arrays) else out

    return call


def refuse_lossy_conversion(x: Any) -> None:
    """Raise if converting `x` to an array would drop a graph or a mask.

    Parameters
    ----------
    x : object
        The object to be converted; the items of lists and tuples are checked too.

    Raises
    ------
    GraphError
        If a flag says that gradients are recorded (``requires_grad``, ``not stop_gradient``, ``not
        constant``), or if it has an attribute ``backward`` or ``grad`` and none of these flags.
    DTypeError
        If it is a masked array.

    Examples
    --------
    >>> from tinygrad_rnn._util.foreign_arrays import refuse_lossy_conversion
    >>> class Variable:
    ...     __module__, requires_grad = "theirs", True
    >>> refuse_lossy_conversion([1.0, Variable()])
    Traceback (most recent call last):
    tinygrad_rnn.errors.GraphError: theirs.Variable has a graph of another library ...
    """
    kind = type(x)
    if isinstance(x, list | tuple | deque):
        if not PLAIN_TYPES.issuperset(map(type, x)):
            for element in x:
                refuse_lossy_conversion(element)
    elif isinstance(x, np.ma.MaskedArray):
        raise DTypeError("a masked array has no tensor: fill the masked elements, .filled(value)")
    elif kind not in PLAIN_TYPES and kind.__module__.partition(".")[0] not in ("numpy", LIBRARY):
        if evidence := _evidence_of_graph(x):
            raise GraphError(
                f"{kind.__module__}.{kind.__qualname__} has a graph of another library "
                f"({evidence}), and its gradient would be lost without an error: pass its values, "
                "detached there (.detach(), .numpy(), ...), or compute everything in one library"
            )


def _evidence_of_graph(x: Any) -> str | None:
    """Return the attribute that shows that an object records a graph, or None."""
    has_flag = False
    for name, recording in GRAPH_FLAGS:
        value = getattr(x, name, None) if _has(x, name) else x
        if value is None or isinstance(value, bool):  # not a method, not a data frame's column
            has_flag = True
            if value is recording:
                return f"{name}={value}"
    names = () if has_flag else GRAPH_ATTRIBUTES
    return next((f"it has .{name}" for name in names if _has(x, name)), None)


def _has(x: Any, name: str) -> bool:
    """Return whether an object has an attribute that is not an entry of its data."""
    if not hasattr(x, name):
        return False
    missing = object()
    return inspect.getattr_static(x, name, missing) is not missing
