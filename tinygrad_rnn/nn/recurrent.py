"""Recurrent layers: one loop over time, one wrapper for layers and directions, for every cell.

Letters: T time steps, B batch, I input size, H hidden size, L layers, D directions (2 if
bidirectional, else 1).
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .. import checks
from .. import random as tg_random
from .. import tensors as ops
from ..bptt import Strategy, weigh
from ..bptt.strategies import strategy_of
from ..engine import backend
from ..errors import ArgumentError, DTypeError, ShapeError
from ..functional import masked
from ..tensors.tensor import Tensor, tensor
from .cells import Cell, GRUCell, LSTMCell, RNNCell, State
from .module import Module, ModuleList

if TYPE_CHECKING:
    from ..bptt.strategies import Segment

CellClass = Any  # called as cell_class(input_size, hidden_size, **cell_arguments)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Put Python's cyclic collector off: a graph has no cycles, and a round would walk it all."""
    before = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if before:
            gc.enable()


def scan(
    cell: Cell,
    x: Tensor,
    state: State,
    weights: Sequence[float],
    alive: list[Tensor] | None = None,
    reverse: bool = False,
) -> tuple[list[Tensor], State]:
    """Run a cell over time: the one loop of the library.

    Parameters
    ----------
    cell : Cell
        What a step does.
    x : Tensor
        (T, B, I).
    state : Tensor or tuple of Tensors
        (B, H) each.
    weights : sequence of T floats
        For each step of `x`: what the gradient through the state that it starts from is
        multiplied by.
    alive : list of T boolean Tensors (B, 1), optional
        Where a sequence has ended: its output is zero and its state stays.
    reverse : bool
        Whether to go from the last step to the first.

    Returns
    -------
    outputs : list of T Tensors
        (B, H), the first element of the state after each step, in the order of the loop.
    state : Tensor or tuple of Tensors
        The state after the last.
    """
    steps = list(enumerate(ops.unbind(cell.project(ops.feature_major(x)))))
    outputs = []
    for t, z in reversed(steps) if reverse else steps:
        if weights[t] != 1:
            state = weigh(state, weights[t])
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
    return outputs, state


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
    bptt : Strategy, optional
        How far and with which weights gradients flow back through time (`tg.bptt`): all the way
        and whole, if not given. It can be set later too.
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
        bptt: Strategy | None = None,
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
        self.bptt = bptt
        strategy_of(bptt, kind)

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    def _state(
        self, parameters: bool, buffers: bool, above: tuple[Module, ...] = ()
    ) -> Iterator[tuple[str, Tensor]]:
        for name, value in super()._state(parameters, buffers, above):
            _, number, rest = name.split(".", 2)  # cells.<number>.<name in the cell>
            layer, direction = divmod(int(number), self.directions)
            yield f"{rest}_l{layer}{'_reverse' if direction else ''}", value

    def __getattr__(self, name: str) -> Any:
        if "_l" in name and "cells" in self.__dict__:
            for known, value in self._state(parameters=True, buffers=True):
                if known == name:
                    return value
        return super().__getattr__(name)

    def forward(
        self,
        x: Tensor,
        state: State = None,
        lengths: Any = None,
        bptt: Strategy | None = None,
        output: bool = True,
    ) -> tuple[Tensor, State]:
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
        bptt : Strategy, optional
            For this call, in place of the layer's own.
        output : bool
            Whether the output is wanted. Without it memory need not grow with T
            (``tg.bptt.Full(checkpoint=True)``).

        Returns
        -------
        output : Tensor
            (T, B, D·H), or as `x` is laid out; zero past the end of a sequence. None if not wanted.
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

        strategy = strategy_of(self.bptt if bptt is None else bptt, kind)
        if strategy.overlaps and self.bidirectional:
            raise ArgumentError(
                f"{kind}: {strategy!r} in a bidirectional layer: the losses of a block would have "
                "to reach back in time and forward; leave stride out"
            )
        with _uncollected():
            sequence, finals = self._through_time(strategy, x, states, alive, output)

        width = len(self.state_sizes)
        last = tuple(ops.stack(finals[i::width]) for i in range(width))
        if not batched:
            last = tuple(ops.squeeze(element, 1) for element in last)
            sequence = ops.squeeze(sequence, 1) if output else None
        elif self.batch_first and output:
            sequence = ops.swapaxes(sequence, 0, 1)
        return sequence, last if isinstance(self.cells[0].hidden_size, tuple) else last[0]

    def _through_time(
        self,
        strategy: Strategy,
        x: Tensor,
        states: list[State],
        alive: list[Tensor] | None,
        output: bool,
    ) -> tuple[Any, list[Tensor]]:
        """Return the output (T, B, D·H), None if not wanted, and all elements of the final states.

        Layers of one direction go through time together: a segment of the strategy has them all,
        and an edge one weight. In two directions a path can cross an edge once in each layer, to
        and fro, and random weights have the mean 1 on it only if each layer has its own.
        """
        T, B, _ = x.shape
        masks = self._masks(T, B)
        depth = 1 if self.bidirectional else self.num_layers
        finals: list[Tensor] = []
        for bottom in range(0, self.num_layers, depth):
            if bottom and masks:
                x = masked(x, masks[bottom - 1], self.dropout)
            wanted = output or bottom + depth < self.num_layers
            edges = [1.0] * T if strategy.overlaps else strategy.weights(T, self.training)
            edges.append(edges[0])  # of the state that the reverse direction starts from
            # The products over all steps join what a cut parts, in every layer but the first.
            cuts = [t for t in range(1, T) if edges[t] == 0] if depth > 1 else []
            sides = []
            for direction in range(self.directions):
                first = bottom * self.directions + direction
                numbers = range(first, first + depth)
                segment = self._segments(numbers, x, edges, alive, masks, direction == 1, wanted)
                start = [element for i in numbers for element in _elements(states[i])]
                final, outputs = strategy.walk(segment, T, start, cuts)
                finals += final
                if wanted:
                    sides.append(
                        ops.feature_major(ops.sequence(*outputs[:: -1 if direction else 1]))
                    )
            if wanted:
                x = sides[0] if len(sides) == 1 else ops.concatenate(sides, axis=-1)
        return x if output else None, finals

    def _segments(
        self,
        numbers: Sequence[int],
        x: Tensor,
        edges: Sequence[float],
        alive: list[Tensor] | None,
        masks: list[Any],
        reverse: bool,
        wanted: bool,
    ) -> Segment:
        """Return what runs some of the cells, one upon another, over a segment of the time steps.

        Steps are counted in the order of the loop, from the last one if `reverse`.
        """
        T, width = len(x), len(self.state_sizes)

        def segment(start: int, stop: int) -> Callable[..., list[Tensor]]:
            if reverse:
                start, stop = T - stop, T - start
            inputs = x if stop - start == T else x[start:stop]
            weights = edges[start + reverse : stop + reverse]
            living = alive and alive[start:stop]

            def run(*state: Tensor) -> list[Tensor]:
                z, finals = inputs, list[Tensor]()
                outputs: list[Tensor] = []
                for i, number in enumerate(numbers):
                    if i:
                        z = ops.sequence(*outputs)
                    if i and masks:
                        z = masked(z, masks[i - 1][start:stop], self.dropout)
                    own: State = state[i * width : (i + 1) * width]
                    if not isinstance(self.cells[number].hidden_size, tuple):
                        (own,) = own
                    outputs, final = scan(self.cells[number], z, own, weights, living, reverse)
                    finals += _elements(final)
                return finals + outputs if wanted else finals

            return run

        return segment

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

    def _masks(self, T: int, B: int) -> list[Any]:
        """Return what dropout keeps of the output of each layer but the last, or nothing.

        It is drawn before anything runs, so that every strategy drops the same.
        """
        if not (self.dropout and self.training):
            return []
        shape = (T, B, self.directions * self.state_sizes[0])
        return [tg_random.keep_mask(shape, 1.0 - self.dropout) for _ in range(self.num_layers - 1)]

    def extra_repr(self) -> str:
        """Return what differs from the defaults."""
        options = [
            f"{name}={getattr(self, name)!r}"
            for name in ("batch_first", "dropout", "bidirectional", "bptt")
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


def _elements(state: State) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


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
    batch_first, dropout, bidirectional, bptt
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
        bptt: Strategy | None = None,
    ) -> None:
        super().__init__(
            RNNCell, input_size, hidden_size, num_layers, batch_first, dropout, bidirectional, bptt,
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
    batch_first, dropout, bidirectional, bptt
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
        bptt: Strategy | None = None,
    ) -> None:
        super().__init__(
            GRUCell, input_size, hidden_size, num_layers, batch_first, dropout, bidirectional, bptt,
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
    batch_first, dropout, bidirectional, bptt
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
        bptt: Strategy | None = None,
    ) -> None:
        super().__init__(
            LSTMCell, input_size, hidden_size, num_layers, batch_first, dropout, bidirectional,
            bptt, bias=bias, proj_size=proj_size, dtype=dtype, device=device,
            rng=tg_random.generator(rng),
        )  # fmt: skip
