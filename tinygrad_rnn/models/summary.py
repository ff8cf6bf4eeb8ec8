"""One vector for each sequence, by recurrent layers of any cell: what follows is a linear layer.

Letters: N sequences, B of them in a batch, T time steps, I features of the input, H hidden size,
L layers, D directions (2 if bidirectional, else 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from .. import tensors as ops
from .._util.api_hints import class_name
from ..data import batches, ragged_batches
from ..engine import backend
from ..engine.grad_mode import no_grad
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..nn import Dropout, Module, Recurrent
from ..random import Rng
from ..tensors import checks
from ..tensors.creation import tensor
from .saved import SavedModel

Array = npt.NDArray[Any]
POOLS = ("last", "mean", "max")


class Summary(Module):
    """Recurrent layers, and the vector of a sequence: its last state, or a pool of its outputs.

    Parameters
    ----------
    cell : class or list of cells
        As of `nn.Recurrent`.
    input_size, hidden_size, num_layers, bidirectional, dropout
        As of `nn.Recurrent`; dropout also acts on the vector.
    pool : {"last", "mean", "max"}
        The state after the last step (of both directions); or the mean or the maximum of the
        outputs of all steps of the sequence.
    common, options : dict
        The `common_options`, and further arguments of `nn.Recurrent` and of the cell.
    """

    def __init__(
        self, cell: Any, input_size: int, hidden_size: int, num_layers: int, bidirectional: bool,
        pool: str, dropout: float, common: dict[str, Any], options: dict[str, Any],
    ) -> None:  # fmt: skip
        super().__init__()
        if pool not in POOLS:
            raise ArgumentError(f"pool: one of {', '.join(map(repr, POOLS))} is expected: {pool!r}")
        self.rnn = recurrent_layers(
            cell, input_size, hidden_size, num_layers, dropout, common, options,
            batch_first=True, bidirectional=bidirectional,
        )  # fmt: skip
        self.dropout, self.pool = Dropout(dropout), pool
        self.size = self.rnn.directions * self.rnn.state_sizes[0]

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that may have changed after it was made."""
        return {"pool": self.pool, "dropout": self.dropout.p, "bptt": self.rnn.bptt}

    def forward(self, x: Tensor, lengths: Any = None) -> Tensor:
        """Return a vector (B, D·H) for each sequence of x (B, T, I)."""
        output, state = self.rnn(x, lengths=lengths, output=self.pool != "last")
        if self.pool == "last":
            h = state[0] if isinstance(state, tuple) else state
            last = [h[k] for k in range(len(h) - self.rnn.directions, len(h))]
            pooled = last[0] if len(last) == 1 else ops.concatenate(last, axis=-1)
        elif self.pool == "mean":  # outputs after the end of a sequence are 0
            T = output.shape[1]
            if lengths is None:
                pooled = output.sum(axis=1) / T
            else:
                steps = ops.maximum(_ends(lengths, output), 1)
                pooled = output.sum(axis=1) / steps.astype(output.dtype)
        else:
            pooled = _greatest(output, lengths)
        return self.dropout(pooled)


def _ends(lengths: Any, output: Tensor) -> Tensor:
    """Return the lengths as a column (B, 1), on the device of the outputs."""
    given = lengths if isinstance(lengths, Tensor) else tensor(np.asarray(lengths))
    return given.to(output.device).reshape(-1, 1)


def _greatest(output: Tensor, lengths: Any) -> Tensor:
    """Return the maximum over the steps of each sequence; 0 for one without a step."""
    if lengths is None:
        return output.max(axis=1)
    steps = tensor(np.arange(output.shape[1]), device=output.device)
    read = steps < ops.maximum(_ends(lengths, output), 1)  # (B, T); step 0 of an empty one is 0
    return ops.where(ops.expand_dims(read, -1), output, -np.inf).max(axis=1)


def recurrent_layers(
    cell: Any, input_size: int, hidden_size: int, num_layers: int, dropout: float,
    common: dict[str, Any], options: dict[str, Any], **more: Any,
) -> Recurrent:  # fmt: skip
    """Return recurrent layers with the `common_options`, unless the cells are instances."""
    own = common if isinstance(cell, type) else {}  # instances have their parameters
    between = dropout if num_layers > 1 else 0.0
    return Recurrent(
        cell, input_size, hidden_size, num_layers, dropout=between, **more, **own, **options
    )


def common_options(dtype: Any, device: str | None, rng: Rng) -> dict[str, Any]:
    """Return the arguments that all layers have, without defaults: a cell may lack them."""
    given = {"dtype": dtype, "device": device}
    options = {name: value for name, value in given.items() if value is not None}
    return options if rng is None else options | {"rng": tg_random.generator(rng)}


class SequenceModel(Module, SavedModel):
    """A model from sequences to one result each: its `summary`, and a linear layer."""

    summary: Summary

    def _outputs(self, rows: Array | list[Array], batch_size: int) -> Array:
        """Return the outputs of all sequences, in evaluation mode and without a graph."""
        checks.positive(batch_size, f"{type(self).__name__}.predict: batch_size")
        check_sequences(type(self).__name__, rows)
        source = ragged_batches if isinstance(rows, list) else batches
        device, outputs = next(self.parameters()).device, []
        with self.evaluating(), no_grad():
            for x, *lengths in source(rows, batch_size=batch_size, shuffle=False):
                outputs.append(self(x.to(device), *lengths).numpy())
        return np.concatenate(outputs)


def check_sequences(name: str, x: Any) -> None:
    """Raise for no sequences, and for an argument that is neither a list nor an array."""
    array = ("shape", "__array__", "__array_interface__", "__dlpack__")
    if not isinstance(x, list | tuple) and not any(hasattr(x, a) for a in array):
        raise ArgumentError(
            f"{name}.predict: a list of sequences or an array is expected, got "
            f"{repr(x) if x is None else f'a {class_name(x)}'}: pass list(...) of the sequences"
        )
    if (x.shape[:1] == (0,)) if hasattr(x, "shape") else (hasattr(x, "__len__") and not len(x)):
        raise ArgumentError(f"{name}.predict: an empty list of sequences: pass one or more")


def is_ragged(x: Any) -> bool:
    """Tell whether an argument is a list of sequences, and not one array."""
    return isinstance(x, list | tuple) and any(np.ndim(row) for row in x)


def as_array(x: Any) -> Array:
    """Return an array, a Tensor or nested lists as an array of NumPy."""
    return x.numpy() if isinstance(x, Tensor) else backend.to_numpy(backend.asarray(x))
