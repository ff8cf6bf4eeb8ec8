"""Operands of a call: promotion to one array library and dtype, and error messages of calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._util.api_hints import call_named, prefix_message, translate_error, unknown_argument
from ..errors import DeviceError, ShapeError
from . import backend
from .backend import SCALARS, modules, tracing_modules
from .tensor import Tensor

OpDefinition = Any  # defined in codegen, a higher layer

_LISTS = frozenset((list, tuple))


class _Constant:
    """Represents an argument other than a Tensor: it has no node in the graph."""

    _node = _version = None


def promote_operands(op: OpDefinition, args: Sequence[Any]) -> tuple[Any, list[Any], list[Any]]:
    """Promote the arguments of a call: integers get the dtype of the floats among them.

    Python scalars stay as they are, unless all arguments are scalars. Returns the array library,
    the arrays (and Python scalars), and the Tensor of each, or `_Constant`.
    """
    if not _LISTS.isdisjoint(map(type, args)):
        args = [Tensor._stacked(x) for x in args]  # lists of Tensors: each has a node
    for x in args:
        module: Any = modules.get(x._data.__class__) if isinstance(x, Tensor) else None
        if module in tracing_modules:
            args = module.adopt(args)
            break
    sources = [x if isinstance(x, Tensor) else _Constant for x in args]
    values = [x._data if isinstance(x, Tensor) else _as_array(x, op) for x in args]
    xp, values = backend.common_module(values, op.title)
    differentiable = [i for i, name in enumerate(op.inputs) if name in op.differentiable] or range(
        len(values)
    )
    if op.joint or all(values[i].__class__ in SCALARS for i in differentiable):
        values = [xp.asarray(backend.asarray(x)) if x.__class__ in SCALARS else x for x in values]
    dtypes = [values[i].dtype for i in differentiable if values[i].__class__ not in SCALARS]
    floating = next((dtype for dtype in dtypes if dtype.kind == "f"), None)
    if op.floating or any(values[i].__class__ is float for i in differentiable):
        floating = floating or backend.get_default_dtype()
    for i in differentiable:
        if floating and values[i].__class__ not in SCALARS and values[i].dtype.kind != "f":
            values[i] = values[i].astype(floating)
    return xp, values, sources


def _as_array(x: Any, op: OpDefinition) -> Any:
    """Return an argument as a Python scalar or an array; a copy if the operation retains it."""
    x = x.item() if isinstance(x, np.generic) else x
    if x.__class__ in SCALARS:
        return x
    array = call_named(op.title, backend.asarray, x)
    return backend.copy(array) if op.retains_inputs and backend.is_array(x) else array


def failure(
    op: OpDefinition, values: Sequence[Any], given: dict[str, Any], error: Any
) -> Exception:
    """Return an error of the array library with the operation and its arguments in the message."""
    if type(error).__module__ == ShapeError.__module__:
        return prefix_message(error, op.title)
    mismatch = backend.device_mismatch(values)
    if mismatch:
        return DeviceError(f"{op.title}: {mismatch}")
    shapes = " and ".join(str(getattr(x, "shape", x)) for x in values)
    options = ", ".join(f"{k}={v!r:.60}" for k, v in given.items() if v is not None)
    error_class, text = translate_error(error)
    message = f"{op.title} of {shapes}{' with ' * bool(options)}{options}: {text}"
    return error_class(message)


def refuse_unknown(op: OpDefinition, unknown: dict[str, Any]) -> None:
    """Raise for keyword arguments that the operation does not have."""
    raise TypeError(unknown_argument(op.title, next(iter(unknown)), [*op.inputs, *op.params]))
