"""Namespaces: the same names for arrays and for Tensors, ``F`` of a vjp."""

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
        forward = functools.partial(_known(name).definition.forward, self.module)
        setattr(self, name, forward)
        return forward


class Recorded:
    """The primitives on Tensors: what ``F`` is under ``create_graph=True``."""

    records = True

    def __getattr__(self, name: str) -> Any:
        operation, numbers = _known(name), getattr(namespaces[np.ndarray], name)

        def on(*args: Any, **params: Any) -> Any:  # of numbers a number: no dtype would be right
            alone = all(x.__class__ in SCALARS for x in args)
            return numbers(*args, **params).item() if alone else operation(*args, **params)

        setattr(self, name, on)
        return on

    def wrap(self, value: Any, node: Any, version: Any) -> Any:
        """Return saved arrays as Tensors at their places in the graph; a scalar stays."""
        if isinstance(value, tuple | list):
            return [self.wrap(*saved) for saved in zip(value, node, version, strict=True)]
        return value if value.__class__ in SCALARS else wrap(value, node, version)


def _known(name: str) -> Any:
    if name not in PRIMITIVES:
        raise AttributeError(f"there is no primitive {name!r}")
    return PRIMITIVES[name]


class _Namespaces(dict[type, Any]):
    """``F`` for each kind of gradient: Tensors, and the arrays of each library."""

    def __missing__(self, kind: type) -> Any:
        F = Recorded() if issubclass(kind, Tensor) else Raw(backend.modules.get(kind, np))
        self[kind] = F
        return F


namespaces = _Namespaces()
