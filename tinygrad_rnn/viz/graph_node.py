"""The description of one node of a computation graph."""

from __future__ import annotations

from typing import NamedTuple


class GraphNode(NamedTuple):
    """A node of a `Graph`: the result of an operation, or a tensor that the user created.

    Attributes
    ----------
    label : str
        The name of the tensor if one was given, the operation, or both: ``h = tanh``. The i-th
        result of an operation with several results, such as a checkpoint, is ``[i]``.
    shape : tuple of int
    dtype : str
    leaf : bool
        Whether it is a tensor that requires a gradient and was not computed.
    step : int or None
        The time step that it belongs to. None before the first step, after the last, and for nodes
        that several steps share: weights, and values that are computed for all steps at once.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> tg.viz.graph(x.sum()).nodes[-1]
    GraphNode(label='sum', shape=(), dtype='float32', leaf=False, step=None)
    """

    label: str
    shape: tuple[int, ...]
    dtype: str
    leaf: bool
    step: int | None
