"""Namespaces: the primitives on arrays and on Tensors by the same names, ``F`` of a vjp."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from . import backend
from .backend import SCALARS
from .tensor import Tensor, wrap

Operation = Callable[..., Any]
PRIMITIVES: dict[str, Operation] = {}


class Raw:
    """The primitives on arrays of one library: ``F`` in the ordinary backward pass."""

    records = False

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        forward = functools.partial(_primitive(name).definition.forward, self.module)
        setattr(self, name, forward)
        return forward


class Recorded:
    """The primitives on Tensors: ``F`` under ``create_graph=True``."""

    records = True

    def __getattr__(self, name: str) -> Any:
        operation, on_arrays = _primitive(name), getattr(namespaces[np.ndarray], name)

        def function(*args: Any, **params: Any) -> Any:
            if all(x.__class__ in SCALARS for x in args):  # numbers have no dtype: return a number
                return on_arrays(*args, **params).item()
            return operation(*args, **params)

        setattr(self, name, function)
        return function

    def wrap(self, value: Any, node: Any, version: Any) -> Any:
        """Return saved arrays as Tensors with their nodes; scalars are returned unchanged."""
        if isinstance(value, tuple | list):
            return [self.wrap(*saved) for saved in zip(value, node, version, strict=True)]
        return value if value.__class__ in SCALARS else wrap(value, node, version)


def _primitive(name: str) -> Any:
    if name not in PRIMITIVES:
        raise AttributeError(f"no primitive {name!r} is defined")
    return PRIMITIVES[name]


class _Namespaces(dict[type, Any]):
    """``F`` for each kind of gradient: Tensors, and the arrays of each library."""

    def __missing__(self, kind: type) -> Any:
        F = Recorded() if issubclass(kind, Tensor) else Raw(backend.modules.get(kind, np))
        self[kind] = F
        return F


namespaces = _Namespaces()
