"""Recurrent layers of any cell: stacked layers, two directions, ragged batches, BPTT strategies.

In a call, `Recurrent.forward` checks the arguments, `Recurrent._run` stacks layers and
directions, `_Pass.segment` runs some cells over some time steps (dropout between layers is there),
and `recurrence.loop.run` is the loop over time, which scales and cuts the gradient between steps.

Letters: T time steps, B batch, I input size, H hidden size, L layers, D directions (2 if
bidirectional, else 1). Cells are numbered layer · D + direction.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from .. import random as tg_random
from .. import tensors as ops
from .._util.nested import leaves
from ..bptt import Strategy
from ..bptt.strategies import Full, strategy_of
from ..engine import backend
from ..engine.grad_mode import is_grad_enabled, no_grad
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError, DTypeError, ShapeError
from ..functional import masked
from ..recurrence.loop import (
    LoopReport,
    ordered,
    reason_against,
    report,
    reports,
    run,
    unaliased,
)
from ..recurrence.ragged import RaggedBatch, edges_of, ragged_batch
from ..tensors import checks
from .cells import Cell, GRUCell, LSTMCell, RNNCell, State
from .containers import ModuleList
from .module import Parameter
from .suffixes import SuffixedNames

CellClass = Any  # called as cell_class(input_size, hidden_size, **cell_arguments)

# Called with the number of a cell, a time step and the state after it; returns the state to use.
Observer = Callable[[int, int, State], State]


class Recurrent(SuffixedNames):
    """A recurrent layer of any cell: layers, directions, ragged batches, states.

    Parameters
    ----------
    cell : class or list of cells
        A subclass of `Cell`, called as ``cell(input_size, hidden_size, **cell_arguments)`` for
        every layer and direction; or L · D instances, ordered by layer, then by direction.
    input_size : int
        I.
    hidden_size : int
        H, passed to the cell class; of instances one of the sizes of their state.
    num_layers : int
        L; each layer but the first reads the outputs of the one before.
    batch_first : bool
        Whether `x` and `output` are (B, T, ·).
    dropout : float
        Probability of dropping an element of the output of each layer but the last, in training.
    bidirectional : bool
        Whether a second cell reads each layer's input from the last step to the first.
    bptt : Strategy, optional
        How far and with which weights gradients flow back through time (`tg.bptt`). Default: all
        the way, with weight 1. The attribute can be assigned later.
    **cell_arguments
        Passed to the cell class.

    Raises
    ------
    ArgumentError
        If a size or option is out of range, or instances do not fit one another: each must read
        the outputs of the layer below, and all must have states of the same sizes, as states are
        stacked.

    Notes
    -----
    The parameters of the cells have PyTorch's names: ``weight_ih`` of the second layer's reverse
    cell is ``weight_ih_l1_reverse``. They can be read, assigned and deleted under these names:
    ``layer.weight_ih_l0_reverse = layer.weight_ih_l0`` ties the two. Other parameters, buffers and
    modules that are assigned to a layer keep their own names, as in any module.

    In a ragged batch the rows of sequences that have ended are computed with the input and state of
    the longest sequence, and nothing of the result is used. So the padding is never read, a cell
    never computes with numbers that no sequence has, and gradients are those of each sequence
    alone. `bptt` does not cut or scale an edge after the end of a sequence.

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
        self.input_size = checks.positive(input_size, f"{kind}: input_size")
        self.hidden_size = checks.positive(hidden_size, f"{kind}: hidden_size")
        self.num_layers = checks.positive(num_layers, f"{kind}: num_layers")
        self.dropout = checks.number(dropout, f"{kind}: dropout", 0, 1, "[)")
        if self.dropout and num_layers == 1:
            warnings.warn(
                f"{kind}: dropout={dropout} does nothing in one layer: it acts between layers, so "
                "set num_layers above 1, or put nn.Dropout after the layer",
                stacklevel=3 if type(self) is Recurrent else 5,  # at the caller
            )
        self.batch_first, self.bidirectional = batch_first, bidirectional
        if isinstance(cell, type):
            self.cells = ModuleList(self._create(cell, cell_arguments))
        else:
            self.cells = ModuleList(self._checked_instances(cell, cell_arguments))
        self.state_sizes = self.cells[0].state_sizes
        self.bptt = bptt
        strategy_of(bptt, kind)

    # -- construction: the cells -------------------------------------------------------------------

    def _create(self, cell_class: CellClass, arguments: dict[str, Any]) -> list[Cell]:
        """Return a cell of a class for every layer and direction."""
        if not issubclass(cell_class, Cell):
            raise ArgumentError(
                f"{type(self).__name__}: a subclass of tinygrad_rnn.nn.Cell is expected, got "
                f"{cell_class.__name__}"
            )
        create: Any = cell_class
        cells: list[Cell] = []
        for number in range(self.num_layers * self.directions):
            cells.append(create(self._reads(number, cells), self.hidden_size, **arguments))
            self._check_sizes(number, cells)
        return cells

    def _checked_instances(self, cell: Any, arguments: dict[str, Any]) -> list[Cell]:
        """Return instances of cells as a list if they fit one another."""
        kind, count = type(self).__name__, self.num_layers * self.directions
        cells = list(cell) if isinstance(cell, list | tuple | ModuleList) else [cell]
        if not all(isinstance(c, Cell) for c in cells):
            raise ArgumentError(f"{kind}: a class or instances of Cell are expected, got {cell!r}")
        if len(cells) != count or len({id(c) for c in cells}) != count:
            raise ArgumentError(
                f"{kind}: {self.num_layers} layers in {self.directions} directions need {count} "
                f"cells of their own, got {len({id(c) for c in cells})}: pass the class, or a list "
                "of instances"
            )
        if arguments:
            raise ArgumentError(
                f"{kind}: {', '.join(arguments)}: arguments of a cell are for a class; give them "
                "to the instances when they are made"
            )
        for number in range(count):
            self._check_sizes(number, cells)
        if self.hidden_size not in cells[0].state_sizes:
            raise ArgumentError(
                f"{kind}: hidden_size = {self.hidden_size}, and the cells, "
                f"{type(cells[0]).__name__}, have hidden_size = {cells[0].hidden_size}"
            )
        for number, instance in enumerate(cells):
            width, reads = self._reads(number, cells), getattr(instance, "input_size", None)
            if hasattr(reads, "__index__") and reads != width:
                source = (
                    "outputs below it" if number >= self.directions else "input_size of the layer"
                )
                raise ArgumentError(
                    f"{kind}: cell {number}, {type(instance).__name__}, has input_size = {reads}, "
                    f"and gets {width} features, the {source}"
                )
        return cells

    def _reads(self, number: int, cells: list[Cell]) -> int:
        """Return how many features a cell reads."""
        if number < self.directions:
            return self.input_size
        return self.directions * cells[0].state_sizes[0]

    def _check_sizes(self, number: int, cells: list[Cell]) -> None:
        """Raise unless a cell's state can be stacked with that of the first cell."""
        cell, first = cells[number], cells[0]
        cell._check_sizes()
        if cell.hidden_size != first.hidden_size:
            raise ArgumentError(
                f"{type(self).__name__}: cell {number}, {type(cell).__name__}, has hidden_size = "
                f"{cell.hidden_size}, cell 0, {type(first).__name__}, {first.hidden_size}: states "
                "of all layers and directions are stacked and must be alike; for others make one "
                "Recurrent each and call them one after another"
            )

    # -- a call ------------------------------------------------------------------------------------

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
            The initial state, (L·D, B, H) for each element, or (L·D, H) without a batch. Default:
            the initial state of the cells (zeros).
        lengths : sequence of B integers, optional
            The number of steps of each sequence, in any order, from 0 to T. The values of `x` after
            the end of a sequence are never read, nan included.
        bptt : Strategy, optional
            For this call, in place of the layer's own.
        output : bool
            Whether to return the output. Without it memory need not grow with T
            (``tg.bptt.Full(checkpoint=True)``).

        Returns
        -------
        output : Tensor
            (T, B, D·H), or with the axes of `x`; zero after the end of a sequence. None if `output`
            is False.
        state : Tensor or tuple of Tensors
            The final state, with the axes of the initial one; that of a sequence's own last step.

        Raises
        ------
        ShapeError, DTypeError, ArgumentError
            If sizes, dtypes or lengths do not fit.
        """
        kind = type(self).__name__
        x, batched = self._time_first(x, kind)
        T, B, _ = x.shape
        states = self._initial_states(x, state, batched)
        ragged = ragged_batch(lengths, T, B, x.device, kind, self._other_order(T, B))
        y, finals = self._run(x, states, ragged, bptt, output)

        flat = leaves(finals)
        width = len(self.state_sizes)
        last = tuple([_stacked(flat[i::width]) for i in range(width)])
        if not batched:
            y = ops.squeeze(y, 1) if output else None
            last = tuple(ops.squeeze(element, 1) for element in last)
        elif self.batch_first and output:
            y = ops.swapaxes(y, 0, 1)
        return y, last if isinstance(self.cells[0].hidden_size, tuple) else last[0]

    def explain(self, x: Tensor, state: State = None, lengths: Any = None) -> list[LoopReport]:
        """Run the layer, and return how each loop over time was run.

        Parameters
        ----------
        x, state, lengths
            As of `forward`.

        Returns
        -------
        list of LoopReport
            One for each loop: usually one for each cell, in the order of computation. `traced`
            tells whether the loop was one operation, `executor` what ran it, and `reason`, `file`
            and `line` why the step was not traced.

        Notes
        -----
        No graph is recorded, and random numbers are as if the layer had not been called. Other
        side effects of a step, such as an attribute that it assigns, remain.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> layer, x = tg.nn.GRU(3, 5), tg.zeros(7, 2, 3)
        >>> with tg.eager():
        ...     [report] = layer.explain(x)
        >>> report.traced, report.reason
        (False, 'eager() runs every operation separately')

        Otherwise ``print(layer.explain(x)[0])`` prints ``one operation, executor c``, or
        ``numpy`` without a C compiler. For a step that branches on a value it prints the reason and
        the line.
        """
        with no_grad(), tg_random.record_states() as drawn, reports() as found:
            self(x, state, lengths)
        for rng, before in drawn.items():
            tg_random.generator(rng).bit_generator.state = before
        return found

    def _time_first(self, x: Any, name: str) -> tuple[Tensor, bool]:
        """Return a valid input as (T, B, I), and whether it has a batch axis."""
        x = checks.require_tensor(x, name)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            order = "(B, T, I)" if self.batch_first else "(T, B, I)"
            raise ShapeError(
                f"{name}: input of shape {x.shape}: {order} or (T, I) with I = input_size = "
                f"{self.input_size} is needed"
            )
        cell = self.cells[0]
        own = (value for value in vars(cell).values() if isinstance(value, Parameter))
        weight = next(own, None)
        weight = next(cell.parameters(), None) if weight is None else weight
        if x.dtype.kind != "f" or (weight is not None and x.dtype != weight.dtype):
            wanted = "floating" if weight is None else str(weight.dtype)
            cure = "..." if weight is None else repr(wanted)
            raise DTypeError(
                f"{name}: input is {x.dtype}, weights are {wanted}: use x.astype({cure})"
            )
        batched = x.ndim == 3
        if not batched:
            x = ops.expand_dims(x, 1)
        elif self.batch_first:
            x = ops.swapaxes(x, 0, 1)
        if not len(x):
            raise ShapeError(f"{name}: input of shape {x.shape} has no time step")
        return x, batched

    def _initial_states(self, x: Tensor, state: State, batched: bool = True) -> list[State]:
        """Return the initial state of every cell."""
        kind, (T, B, _) = type(self).__name__, x.shape
        if state is None:
            return [cell._checked_initial_state(B, x.dtype, x.device) for cell in self.cells]
        first = state[0] if isinstance(state, tuple | list) and state else state
        if batched and T != B and getattr(first, "shape", ())[1:2] == (T,):
            raise ShapeError(f"{kind}: state of shape {first.shape}{self._other_order(T, B)}")
        leading = (len(self.cells), B) if batched else (len(self.cells),)
        stacks = self.cells[0].check_state(state, leading, x.dtype, kind)
        if not batched:
            stacks = tuple(ops.expand_dims(stack, 1) for stack in stacks)
        rows = list(zip(*(ops.unbind(stack) for stack in stacks), strict=True))
        return rows if isinstance(self.cells[0].hidden_size, tuple) else [row[0] for row in rows]

    def _other_order(self, T: int, B: int) -> str:
        """Return the hint for an input with its first two axes in the wrong order."""
        order, cure = ("(B, T, I)", "False") if self.batch_first else ("(T, B, I)", "True")
        return f": the input, read as {order}, has {T} steps of {B} sequences; batch_first={cure}?"

    # -- layers and directions ---------------------------------------------------------------------

    def _run(
        self,
        x: Tensor,
        states: list[State],
        ragged: RaggedBatch | None,
        bptt: Strategy | None,
        output: bool = True,
        observe: Observer | None = None,
    ) -> tuple[Any, list[State]]:
        """Return the output (T, B, D·H), None unless `output`, and each cell's final state.

        With one direction all layers make one pass over time: each segment of the strategy contains
        all layers, and an edge has one weight. With two directions each layer makes a pass in both,
        with weights of its own: a path can cross an edge forward in one layer and back in the next,
        and random weights have the mean 1 on it only if they are independent.
        """
        strategy = strategy_of(
            self.bptt if bptt is None else bptt, type(self).__name__, self.bidirectional
        )
        T, B, _ = x.shape
        if T == self.directions == 1 and type(strategy) is Full and not is_grad_enabled():
            plain = ragged is None and observe is None
            if plain and not (self.dropout and self.training):
                return self._run_single_step(x, states, output)
        masks = self._dropout_masks(T, B, x.device)
        y: Tensor = x if ragged is None else ragged.fill(x)  # shorter if every sequence is
        finals: list[State] = []
        together = 1 if self.bidirectional else self.num_layers
        for first in range(0, self.num_layers, together):
            layers = range(first, first + together)
            wanted = output or layers.stop < self.num_layers
            weights = strategy.layer_weights(T, self.training)[: len(y)]
            sides = []
            for direction in range(self.directions):
                over_time = _Pass(
                    self, layers, direction, y, weights, ragged, masks, wanted, observe
                )
                initial = tuple(states[number] for number in over_time.numbers)
                final, outputs = strategy.unroll(over_time.segment, len(y), initial, over_time.cuts)
                finals += final
                if wanted:
                    sides.append(ordered(_joined(outputs, direction)))
            if wanted:
                y = sides[0] if len(sides) == 1 else ops.concatenate(sides, axis=-1)
        if not output:
            return None, finals
        return y if ragged is None else ragged.zero_padding(y), finals

    def _run_single_step(
        self, x: Tensor, states: list[State], output: bool
    ) -> tuple[Any, list[State]]:
        """Return the results of `_run` for one time step: the loop over time costs more than it.

        A text is generated in such steps.
        """
        y, finals = x, []
        for cell, state in zip(self.cells, states, strict=True):
            report(LoopReport(False, "python", reason_against(1)))
            z = cell.project(y)
            cell._check_projection(z, y)
            [z] = ops.unbind(unaliased(z))
            new = cell.step(z, unaliased(state))
            cell._check_step(new, state)
            finals.append(new)
            h = new[0] if isinstance(new, tuple) else new
            # The output shares no memory with the state, as after several steps.
            y = wrap(backend.copy(h._data)[None], None, None)
        return y if output else None, finals

    def _dropout_masks(self, T: int, B: int, device: str) -> list[Any]:
        """Return the dropout mask of the output of each layer but the last; [] without dropout.

        All are drawn before the first step, so that they are the same with every strategy.
        """
        if not (self.dropout and self.training):
            return []
        shape = (T, B, self.directions * self.state_sizes[0])
        keep = 1.0 - self.dropout
        return [tg_random.keep_mask(shape, keep, device=device) for _ in range(self.num_layers - 1)]

    def extra_repr(self) -> str:
        """Return the sizes, and the options that differ from the defaults."""
        names = ("batch_first", "dropout", "bidirectional", "bptt")
        options = [f"{name}={getattr(self, name)!r}" for name in names if getattr(self, name)]
        sizes = [str(self.input_size), str(self.hidden_size), f"num_layers={self.num_layers}"]
        return ", ".join([*sizes, *options])


@dataclasses.dataclass
class _Pass:
    """One pass over time, forward or reverse, of one layer or of all layers."""

    rnn: Recurrent
    layers: range
    direction: int  # 1: reverse
    x: Tensor  # (T, B, ·), the input of the first of the layers
    weights: list[float]  # ξ_t of edge t
    ragged: RaggedBatch | None
    masks: list[Any]  # of the dropout between layers
    wanted: bool  # whether the outputs of the last of the layers are needed
    observe: Observer | None

    @property
    def numbers(self) -> list[int]:
        """The numbers of the cells."""
        return [layer * self.rnn.directions + self.direction for layer in self.layers]

    @property
    def cuts(self) -> list[int]:
        """The cut edges where a segment must end.

        A layer above the first computes its projection of all steps of a segment at once, and so
        connects the steps that a cut in the layer below separates.
        """
        if len(self.layers) == 1:
            return []
        return [t for t in range(1, len(self.weights)) if self.weights[t] == 0]

    def segment(self, start: int, stop: int, states: State) -> tuple[State, list[Any]]:
        """Run the steps start … stop - 1, counted in the order of the loop, in each layer.

        Returns the new states of the cells and the outputs of the steps, one Tensor in a list.
        """
        T, reverse = len(self.weights), self.direction == 1
        if reverse:
            start, stop = T - stop, T - start
        weights = edges_of(self.weights, start, stop, reverse)
        ragged = self.ragged and self.ragged.segment(start, stop, reverse)
        y = self.x if stop - start == T else self.x[start:stop]
        finals = []
        for layer, number, state in zip(self.layers, self.numbers, states, strict=True):
            if layer and self.masks:  # dropout between layers
                y = masked(y, self.masks[layer - 1][start:stop], self.rnn.dropout)
            cell = self.rnn.cells[number]
            z = cell.project(ordered(y))
            cell._check_projection(z, y)
            last = layer == self.layers.stop - 1
            times = range(start, stop)[:: -1 if reverse else 1]
            step = _CellStep(cell, self.wanted or not last, self.observe, number, times)
            final, y = run(step, state, z, weights, ragged, reverse, self.observe is None)
            finals.append(final)
        return tuple(finals), [y] if self.wanted else []


class _CellStep:
    """The step of a cell as a function for `run`; y is the first element of the state."""

    def __init__(
        self, cell: Cell, wanted: bool, observe: Observer | None, number: int, times: range
    ) -> None:
        self.__wrapped__ = cell.step  # tells the loop over time whose step it is
        self.cell, self.wanted, self.observe = cell, wanted, observe
        self.number, self.clock = number, iter(times)

    def __call__(self, state: State, z: Tensor) -> tuple[State, Any]:
        cell, observe = self.cell, self.observe
        new = cell.step(z, state)
        cell._check_step(new, state)
        if observe is not None:
            new = observe(self.number, next(self.clock), new)
        return new, (new[0] if isinstance(new, tuple) else new) if self.wanted else None


def _stacked(states: list[Tensor]) -> Tensor:
    """Return the states of the cells as one Tensor, with an axis in front."""
    if len(states) == 1 and states[0]._version is None:  # computed: it is not written to
        return ops.expand_dims(states[0], 0)
    return ops.stack(states)


def _joined(outputs: list[Tensor], reverse: int) -> Tensor:
    """Return the outputs of segments, in the order of the loop, as one Tensor in that of time."""
    if len(outputs) == 1:
        return outputs[0]
    return ops.concatenate(outputs[::-1] if reverse else outputs, axis=0)


class RNN(Recurrent):
    """A layer of `RNNCell`: h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh).

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L.
    nonlinearity : {"tanh", "relu"}
        φ.
    bias : bool
        Whether to add b_ih and b_hh.
    batch_first, dropout, bidirectional, bptt
        As of `Recurrent`.
    dtype, device
        Of the parameters.
    rng : int or numpy.random.Generator, optional
        Source of the initial parameters. Default: the library's generator.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or an option is out of range.
    DTypeError
        If `dtype` is not floating.
    DeviceError
        If `device` is unknown or cannot be used.

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
    """A layer of `GRUCell`, which documents the equations.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L.
    bias : bool
        Whether to add b_ih and b_hh.
    batch_first, dropout, bidirectional, bptt
        As of `Recurrent`.
    dtype, device
        Of the parameters.
    rng : int or numpy.random.Generator, optional
        Source of the initial parameters. Default: the library's generator.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or an option is out of range.
    DTypeError
        If `dtype` is not floating.
    DeviceError
        If `device` is unknown or cannot be used.

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
    """A layer of `LSTMCell`, which documents the equations; its state is the pair (h, c).

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L.
    bias : bool
        Whether to add b_ih and b_hh.
    batch_first, dropout, bidirectional, bptt
        As of `Recurrent`.
    proj_size : int
        P < H, the size of the projected h; 0 for no projection.
    dtype, device
        Of the parameters.
    rng : int or numpy.random.Generator, optional
        Source of the initial parameters. Default: the library's generator.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or an option is out of range.
    DTypeError
        If `dtype` is not floating.
    DeviceError
        If `device` is unknown or cannot be used.

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
