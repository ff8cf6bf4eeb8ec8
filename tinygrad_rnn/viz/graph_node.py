"""A node of the graph of a computation, as `graph` describes and draws it."""

from __future__ import annotations

from typing import NamedTuple


class GraphNode(NamedTuple):
    """A node of a `Graph`: an operation, or a tensor that the user made.

    Attributes
    ----------
    label : str
        The name of the tensor if it has one, the operation, or both: ``h = tanh``. The i-th result
        of an operation that returns several, such as a checkpoint, is ``[i]``.
    shape : tuple of int
    dtype : str
    leaf : bool
        Whether it is a leaf that requires grad.
    step : int or None
        The time step; None before the first, after the last, and for nodes that several steps use:
        weights, and projections computed for all steps at once.
    """

    label: str
    shape: tuple[int, ...]
    dtype: str
    leaf: bool
    step: int | None
