"""Recurrent layers: one loop over time, one wrapper for layers and directions, for every cell.

Letters: T time steps, B batch, I input size, H hidden size, L layers, D directions (2 if
bidirectional, else 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .. import checks
from .. import random as tg_random
from .. import tensors as ops
from ..engine import backend
from ..errors import ArgumentError, DTypeError, ShapeError
from ..functional import dropout as drop
from ..tensors.tensor import Tensor, tensor
from .cells import Cell, GRUCell, LSTMCell, RNNCell, State
from .module import Module, ModuleList

CellClass = Any  # called as cell_class(input_size, hidden_size, **cell_arguments)


def scan(
    cell: Cell, x: Tensor, state: State, alive: list[Tensor] | None = None, reverse: bool = False
) -> tuple[Tensor, State]:
    """Run a cell over time: the one loop of the library.

    Parameters
    ----------
    cell : Cell
        What a step does.
    x : Tensor
        (T, B, I).
    state : Tensor or tuple of Tensors
        (B, H) each.
    alive : list of T boolean Tensors (B, 1), optional
        Where a sequence has ended: its output is zero and its state stays.
    reverse : bool
        Whether to go from the last step to the first.

    Returns
    -------
    output : Tensor
        (T, B, H), the first element of the state after each step.
    state : Tensor or tuple of Tensors
        The state after the last.
    """
    steps = list(enumerate(ops.unbind(cell.project(ops.feature_major(x)))))
    outputs = []
    for t, z in reversed(steps) if reverse else steps:
        new = cell.step(z, state)
        output = new[0] if isinstance(new, tuple) else new
        if alive is not None:
            output = ops.where(alive[t], output, 0.0)
            if isinstance(new, tuple):
                new = tuple(ops.where(alive[t], n, s) for n, s in zip(new, state, strict=True))
            else:
                new = ops.where(alive[t], new, state)
        state = new
        outputs.append(output)
    return ops.stack(outputs[::-1] if reverse else outputs), state


class Recurrent(Module):
    """A recurrent layer of any cell: layers, directions, ragged batches, states.

    Parameters
    ----------
    cell : class or list of cells
        A subclass of `Cell`, called as ``cell(input_size, hidden_size, **cell_arguments)`` for
        every layer and direction; or L · D instances, the directions of a layer beside each other.
    input_size : int
        I.
    hidden_size : int
        H, as the cell takes it.
    num_layers : int
        L; each layer but the first reads the outputs of the one before.
    batch_first : bool
        Whether `x` and `output` are (B, T, ·).
    dropout : float
        Probability of dropping an element of the output of each layer but the last, in training.
    bidirectional : bool
        Whether a second cell reads each layer's input from the last step to the first.
    **cell_arguments
        Handed to the cell.

    Notes
    -----
    The parameters are named after those of the cells with PyTorch's suffixes: ``weight_ih`` of the
    second layer's reverse cell is ``weight_ih_l1_reverse``.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.Recurrent(tg.nn.GRUCell, 3, 5, num_layers=2)
    >>> output, state = layer(tg.zeros(7, 2, 3), lengths=[7, 4])
    >>> output.shape, state.shape
    ((7, 2, 5), (2, 2, 5))
    """

    def __init__(
        self,
        cell: CellClass | Sequence[Cell],
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **cell_arguments: Any,
    ) -> None:
        super().__init__()
        kind = type(self).__name__
        input_size = checks.positive(input_size, f"{kind}: input_size")
        hidden_size = checks.positive(hidden_size, f"{kind}: hidden_size")
        num_layers = checks.positive(num_layers, f"{kind}: num_layers")
        dropout = checks.number(dropout, f"{kind}: dropout", 0, 1, "[)")
        self.input_size, self.num_layers = input_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        count = num_layers * self.directions
        cells: list[Any]
        if isinstance(cell, type):
            make: Any = cell
            if not issubclass(cell, Cell):
                raise ArgumentError(
                    f"{kind}: a subclass of tinygrad_rnn.nn.Cell is expected, got {cell.__name__}"
                )
            first = make(input_size, hidden_size, **cell_arguments)
            sizes = [input_size] * self.directions
            sizes += [self.directions * first.state_sizes[0]] * (count - self.directions)
            cells = [first, *(make(n, hidden_size, **cell_arguments) for n in sizes[1:])]
        else:
            cells = list(cell) if isinstance(cell, list | tuple | ModuleList) else [cell]
            if not all(isinstance(c, Cell) for c in cells):
                raise ArgumentError(
                    f"{kind}: a class or instances of Cell are expected, got {cell!r}"
                )
            if len({id(c) for c in cells}) != count:
                raise ArgumentError(
                    f"{kind}: {num_layers} layers in {self.directions} directions need {count} "
                    "cells of their own, "
                    f"got {len({id(c) for c in cells})}: pass the class, or a list of instances"
                )
        self.cells = ModuleList(cells)
        self.state_sizes = cells[0].state_sizes

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    def _state(self, parameters: bool, buffers: bool) -> Iterator[tuple[str, Tensor]]:
        for name, value in super()._state(parameters, buffers):
            _, number, rest = name.split(".", 2)  # cells.<number>.<name in the cell>
            layer, direction = divmod(int(number), self.directions)
            yield f"{rest}_l{layer}{'_reverse' if direction else ''}", value

    def __getattr__(self, name: str) -> Any:
        if "_l" in name and "cells" in self.__dict__:
            for known, value in self._state(parameters=True, buffers=True):
                if known == name:
                    return value
        return super().__getattr__(name)

    def forward(self, x: Tensor, state: State = None, lengths: Any = None) -> tuple[Tensor, State]:
        """Run over whole sequences.

        Parameters
        ----------
        x : Tensor
            (T, B, I), (B, T, I) if `batch_first`, or (T, I) without a batch.
        state : Tensor or tuple of Tensors, optional
            The initial state, (L·D, B, H) for each element, or (L·D, H) without a batch; the cell's
            own (zeros) if not given.
        lengths : sequence of B integers, optional
            The number of steps of each sequence, in any order, from 0 to T.

        Returns
        -------
        output : Tensor
            (T, B, D·H), or as `x` is laid out; zero past the end of a sequence.
        state : Tensor or tuple of Tensors
            The final state, laid out as the initial one; that of a sequence's own last step.

        Raises
        ------
        ShapeError, DTypeError, ArgumentError
            If sizes, dtypes or lengths do not fit.
        """
        kind = type(self).__name__
        x = checks.as_tensor(x, kind)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            order = "(B, T, I)" if self.batch_first else "(T, B, I)"
            raise ShapeError(
                f"{kind}: input of shape {x.shape}: {order} or (T, I) with I = input_size = "
                f"{self.input_size} is needed"
            )
        weights = next(self.parameters(), None)
        if x.dtype.kind != "f" or (weights is not None and x.dtype != weights.dtype):
            raise DTypeError(
                f"{kind}: input is {x.dtype}, weights are "
                f"{weights.dtype if weights is not None else 'floating'}: use x.astype(...)"
            )
        batched = x.ndim == 3
        if not batched:
            x = ops.expand_dims(x, 1)
        elif self.batch_first:
            x = ops.swapaxes(x, 0, 1)
        T, B, _ = x.shape
        if T == 0:
            raise ShapeError(f"{kind}: input of shape {x.shape} has no time step")
        states = self._initial(x, state, batched)
        alive = self._alive(lengths, T, B, x.device)
        if (
            alive is not None
        ):  # whatever stands past an end, nan included, must not reach a gradient
            x = ops.where(ops.stack(alive), x, 0.0)

        finals = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = drop(x, self.dropout, self.training)
            outputs = []
            for direction in range(self.directions):
                number = layer * self.directions + direction
                output, final = scan(
                    self.cells[number], x, states[number], alive, reverse=direction == 1
                )
                outputs.append(output)
                finals.append(final if isinstance(final, tuple) else (final,))
            x = outputs[0] if len(outputs) == 1 else ops.concatenate(outputs, axis=-1)

        final = tuple(ops.stack(elements) for elements in zip(*finals, strict=True))
        if not batched:
            x, final = ops.squeeze(x, 1), tuple(ops.squeeze(element, 1) for element in final)
        elif self.batch_first:
            x = ops.swapaxes(x, 0, 1)
        return x, final if isinstance(self.cells[0].hidden_size, tuple) else final[0]

    def _initial(self, x: Tensor, state: State, batched: bool) -> list[State]:
        """Return the initial state of every cell."""
        kind, B = type(self).__name__, x.shape[1]
        if state is None:
            return [cell.initial_state(B, x.dtype, x.device) for cell in self.cells]
        leading = (len(self.cells), B) if batched else (len(self.cells),)
        first = state[0] if isinstance(state, tuple | list) and state else state
        if batched and x.shape[0] != B and getattr(first, "shape", ())[1:2] == x.shape[:1]:
            raise ShapeError(f"{kind}: state of shape {first.shape}{self._turned(x.shape[0], B)}")
        elements = self.cells[0].check_state(state, leading, x.dtype, kind)
        if not batched:
            elements = tuple(ops.expand_dims(element, 1) for element in elements)
        rows = list(zip(*(ops.unbind(element) for element in elements), strict=True))
        return [row if isinstance(self.cells[0].hidden_size, tuple) else row[0] for row in rows]

    def _turned(self, T: int, B: int) -> str:
        """Return what is said when a batch of `T` sequences of `B` steps seems to be meant."""
        order, cure = ("(B, T, I)", "False") if self.batch_first else ("(T, B, I)", "True")
        return f": the input, read as {order}, has {T} steps of {B} sequences; batch_first={cure}?"

    def _alive(self, lengths: Any, T: int, B: int, device: str) -> list[Tensor] | None:
        """Return which sequences go on at each step, (B, 1) each; None if all have full length."""
        if lengths is None:
            return None
        array = backend.to_numpy(
            backend.asarray(lengths._data if isinstance(lengths, Tensor) else lengths)
        )
        if (
            array.shape != (B,)
            or array.dtype.kind not in "iu"
            or (B and (array.min() < 0 or array.max() > T))
        ):
            turned = self._turned(T, B) if array.shape == (T,) != (B,) else ""
            raise ArgumentError(
                f"{type(self).__name__}: lengths are {B} integers from 0 to {T}, got "
                f"{array.tolist()}{turned}"
            )
        ends = array.reshape(B, 1)
        return None if (ends == T).all() else [tensor(t < ends, device=device) for t in range(T)]

    def extra_repr(self) -> str:
        """Return what differs from the defaults."""
        options = [
            f"{name}={getattr(self, name)!r}"
            for name in ("batch_first", "dropout", "bidirectional")
            if getattr(self, name)
        ]
        return ", ".join(
            [
                str(self.input_size),
                str(self.state_sizes[-1]),
                f"num_layers={self.num_layers}",
                *options,
            ]
        )


class RNN(Recurrent):
    """A layer of `RNNCell`: h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh).

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L.
    nonlinearity : {"tanh", "relu"}
        φ.
    bias : bool
        Whether there are b_ih and b_hh.
    batch_first, dropout, bidirectional
        As of `Recurrent`.
    dtype, device, rng
        Of the parameters, and the numbers they start from.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> output, state = tg.nn.RNN(3, 5)(tg.zeros(7, 2, 3))
    >>> output.shape, state.shape
    ((7, 2, 5), (1, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__(
            RNNCell, input_size, hidden_size, num_layers, batch_first, dropout, bidirectional,
            nonlinearity=nonlinearity, bias=bias, dtype=dtype, device=device,
            rng=tg_random.generator(rng),
        )  # fmt: skip


class GRU(Recurrent):
    """A layer of `GRUCell`, where the equations are.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L.
    bias : bool
        Whether there are b_ih and b_hh.
    batch_first, dropout, bidirectional
        As of `Recurrent`.
    dtype, device, rng
        Of the parameters, and the numbers they start from.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> output, state = tg.nn.GRU(3, 5, bidirectional=True)(tg.zeros(7, 2, 3))
    >>> output.shape, state.shape
    ((7, 2, 10), (2, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__(
            GRUCell, input_size, hidden_size, num_layers, batch_first, dropout, bidirectional,
            bias=bias, dtype=dtype, device=device, rng=tg_random.generator(rng),
        )  # fmt: skip


class LSTM(Recurrent):
    """A layer of `LSTMCell`, where the equations are; its state is the pair (h, c).

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L.
    bias : bool
        Whether there are b_ih and b_hh.
    batch_first, dropout, bidirectional
        As of `Recurrent`.
    proj_size : int
        P < H, the size of h if it is projected; 0 if not.
    dtype, device, rng
        Of the parameters, and the numbers they start from.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> output, (h, c) = tg.nn.LSTM(3, 5)(tg.zeros(7, 2, 3))
    >>> output.shape, h.shape, c.shape
    ((7, 2, 5), (1, 2, 5), (1, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__(
            LSTMCell, input_size, hidden_size, num_layers, batch_first, dropout, bidirectional,
            bias=bias, proj_size=proj_size, dtype=dtype, device=device,
            rng=tg_random.generator(rng),
        )  # fmt: skip
