"""A function of several arrays as a function of one vector.

A gradient check works on one Jacobian matrix J: a row for each element of the outputs, a column for
each element of the inputs, both numbered through all arrays in their order. `flatten` and
`unflatten` convert between arrays and such vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..engine.autograd import grad
from ..engine.tensor import Tensor
from ..tensors import reshape

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class FlatFunction(NamedTuple):
    """A function of Tensors that returns a list of Tensors, and the point x where it is checked."""

    function: Callable[..., list[Any]]
    inputs: list[Array]  # the point x
    devices: list[str]  # of the inputs
    input_names: list[str]
    output_names: list[str]
    magnitudes: list[Array]  # of each output: lower bounds of the terms that it is computed from

    def evaluate(self, vector: Array) -> list[Tensor]:
        """Return the outputs at a vector of inputs."""
        return self.function(*self._tensors(vector, requires_grad=False))

    def record(self, vector: Array) -> tuple[list[Tensor], list[Tensor]]:
        """Return the inputs as leaves, and the outputs with their graph."""
        leaves = self._tensors(vector, requires_grad=True)
        return leaves, self.function(*computed(leaves))

    def _tensors(self, vector: Array, requires_grad: bool) -> list[Tensor]:
        arrays = zip(unflatten(vector, self.inputs), self.devices, strict=True)
        return [Tensor(a, device=device, requires_grad=requires_grad) for a, device in arrays]


def computed(leaves: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of leaves that are results of an operation, so that ``x *= 2`` is allowed."""
    return [reshape(x, shape=None) for x in leaves]


def flatten(arrays: Sequence[Array]) -> Array:
    """Return the elements of all arrays as one vector."""
    return np.concatenate([np.zeros(0), *[a.ravel() for a in arrays]])


def unflatten(vector: Array, like: Sequence[Any]) -> list[Array]:
    """Return the elements of a vector as arrays of the shapes of `like`."""
    parts = np.split(vector, np.cumsum([x.size for x in like])[:-1]) if like else []
    return [part.reshape(x.shape) for part, x in zip(parts, like, strict=True)]


def flatten_outputs(outputs: Sequence[Tensor]) -> Array:
    """Return the elements of all outputs as one vector of float64."""
    return flatten([y.numpy().astype(np.float64) for y in outputs])


def flatten_gradients(grads: Sequence[Tensor | None], inputs: Sequence[Array]) -> Array:
    """Return gradients as one vector, with zeros for an input that has none."""
    pairs = zip(grads, inputs, strict=True)
    return flatten([np.zeros(a.shape) if g is None else g.numpy() for g, a in pairs])


def vjp(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Any], **keywords: Any
) -> list[Any]:
    """Return Jᵀu by the graph, one gradient (or None) for each input.

    An output without a graph contributes nothing. If it should have one, its finite differences are
    not 0, and the check fails.
    """
    pairs = [(y, u) for y, u in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    ends, starts = zip(*pairs, strict=True)
    return list(grad(ends, inputs, starts, allow_unused=True, **keywords))


def element_name(number: int, arrays: Sequence[Any], names: Sequence[str]) -> str:
    """Return the array and the index of one element of the joint vector: ``input 0 at [1, 2]``."""
    for array, name in zip(arrays, names, strict=True):
        if number < array.size:
            index = [int(n) for n in np.unravel_index(number, array.shape)]
            return f"{name} at {index}" if index else name
        number -= array.size
    raise IndexError(number)
