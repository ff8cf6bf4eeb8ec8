"""Recurrent layers: one loop over time, one wrapper for layers and directions, for every cell.

Letters: T time steps, B batch, I input size, H hidden size, L layers, D directions (2 if
bidirectional, else 1).
"""

from __future__ import annotations

import contextlib
import functools
import gc
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import random as tg_random
from .. import tensors as ops
from ..bptt import Strategy, scale_gradient
from ..bptt.strategies import strategy_of
from ..engine import backend
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError, ShapeError
from ..functional import masked
from ..tensors import checks
from ..tensors.creation import arange, tensor, zeros
from .cells import Cell, GRUCell, LSTMCell, RNNCell, State, _elements, _unwritten
from .containers import ModuleList
from .module import Module

if TYPE_CHECKING:
    from ..bptt.strategies import Segment

CellClass = Any  # called as cell_class(input_size, hidden_size, **cell_arguments)
_IN_A_CELL = re.compile(r"(.+)_l(0|[1-9]\d*)(_reverse)?")  # PyTorch's names


class _Ragged(NamedTuple):
    """Which sequences go on at each step, up to the end of the longest one."""

    masks: Tensor  # (T, B, 1), of all steps
    steps: list[Tensor | None]  # (B, 1) each; None where all go on
    edges: list[Tensor | None]  # the same, by the edge into a step: of the later of its two steps
    longest: slice | None  # of the batch: one that goes on to the end; None if all are empty

    def lend(self, mask: Tensor, x: Tensor) -> Tensor:
        """Return x (..., B, ·) with the longest sequence's row in place of those that ended.

        An ended sequence is computed on with numbers that a living one really has there, and what
        comes of it is left out. So a cell is never asked for a value or a derivative that no
        sequence needs: that of a logarithm at the zeros of a padding is infinite, and nan once it
        meets the gradient 0. Nothing flows back through what is lent.
        """
        return x if self.longest is None else ops.where(mask, x, x.detach()[..., self.longest, :])


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
    ragged: _Ragged | None = None,
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
    ragged : _Ragged, optional
        Where a sequence has ended: its state stays, and its output is one of the longest sequence.
    reverse : bool
        Whether to go from the last step to the first.

    Returns
    -------
    outputs : list of T Tensors
        (B, H), the first element of the state after each step, in the order of the loop.
    state : Tensor or tuple of Tensors
        The state after the last.
    """
    projected = cell.project(ops.feature_major(x))
    cell._check_projection(projected, x)
    steps, state = list(enumerate(ops.unbind(_unwritten(projected)))), _unwritten(state)
    outputs: list[Tensor] = []
    for t, z in reversed(steps) if reverse else steps:
        seen = state
        if weights[t] != 1:
            seen = scale_gradient(state, weights[t])
            if ragged is not None:
                seen = _chosen(ragged.edges[t], seen, state)
        alive = None if ragged is None else ragged.steps[t]
        if ragged is not None and alive is not None:
            seen = _map(functools.partial(ragged.lend, alive), seen)
        new = cell.step(z, seen)
        if not outputs:
            cell._check_step(new, seen)
        outputs.append(new[0] if isinstance(new, tuple) else new)
        state = _chosen(alive, new, state)
    return outputs, state


def _chosen(mask: Tensor | None, one: State, other: State) -> State:
    """Return the rows of one state where the mask is true, or not there, and else of another."""
    return one if mask is None else _map(functools.partial(ops.where, mask), one, other)


def _map(function: Callable[..., Tensor], *states: State) -> State:
    """Return the state of a function of the elements of states."""
    if isinstance(states[0], tuple):
        return tuple(map(function, *states))
    return function(*states)


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
        H, as the cell takes it, or one of the sizes of the state of the instances.
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

    Raises
    ------
    ArgumentError
        A size or option out of its range, or instances that do not fit one another: each reads what
        the layer below gives, and all have states of the same sizes, which are stacked.

    Notes
    -----
    The parameters of the cells have PyTorch's names: ``weight_ih`` of the second layer's reverse
    cell is ``weight_ih_l1_reverse``, to be read, assigned and deleted under this name too, so that
    ``layer.weight_ih_l0_reverse = layer.weight_ih_l0`` ties the two. Other parameters, buffers and
    modules that are assigned to a layer keep their own names, as in any module.

    In a ragged batch the rows of sequences that have ended are computed on with the input and state
    of the longest sequence, and nothing of the result is used: the padding is never read, a cell
    meets no numbers there that it does not meet elsewhere, and gradients are those of each sequence
    alone. An edge past the end of a sequence is not cut or weighed by `bptt`.

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
            cells = self._made(cell, cell_arguments)
        else:
            cells = self._given(cell, cell_arguments)
        self.cells = ModuleList(cells)
        self.state_sizes = cells[0].state_sizes
        self.bptt = bptt
        strategy_of(bptt, kind)

    def _made(self, cell: CellClass, arguments: dict[str, Any]) -> list[Cell]:
        """Return a cell of a class for every layer and direction."""
        if not issubclass(cell, Cell):
            raise ArgumentError(
                f"{type(self).__name__}: a subclass of tinygrad_rnn.nn.Cell is expected, got "
                f"{cell.__name__}"
            )
        make: Any = cell
        cells = [make(self.input_size, self.hidden_size, **arguments)]
        cells[0]._check_sizes()
        for i in range(1, self.num_layers * self.directions):
            cells.append(make(self._width(i, cells[0]), self.hidden_size, **arguments))
            self._check_state_sizes(i, cells[i], cells[0])
        return cells

    def _given(self, cell: Any, arguments: dict[str, Any]) -> list[Cell]:
        """Return instances as a list, once it is checked that they fit one another."""
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
        for i, instance in enumerate(cells):
            self._check_state_sizes(i, instance, cells[0])
        if self.hidden_size not in cells[0].state_sizes:
            raise ArgumentError(
                f"{kind}: hidden_size = {self.hidden_size}, and the cells, "
                f"{type(cells[0]).__name__}, have hidden_size = {cells[0].hidden_size}"
            )
        for i, instance in enumerate(cells):
            width, reads = self._width(i, cells[0]), getattr(instance, "input_size", None)
            if hasattr(reads, "__index__") and reads != width:
                source = "input_size of the layer" if i < self.directions else "outputs below it"
                raise ArgumentError(
                    f"{kind}: cell {i}, {type(instance).__name__}, has input_size = {reads}, and "
                    f"gets {width} features, the {source}"
                )
        return cells

    def _width(self, i: int, first: Cell) -> int:
        """Return how many features cell `i` reads."""
        below = self.directions * first.state_sizes[0]
        return self.input_size if i < self.directions else below

    def _check_state_sizes(self, i: int, cell: Cell, first: Cell) -> None:
        """Raise unless the state of a cell can be stacked on the first one's, to be handed back."""
        cell._check_sizes()
        if cell.hidden_size != first.hidden_size:
            raise ArgumentError(
                f"{type(self).__name__}: cell {i}, {type(cell).__name__}, has hidden_size = "
                f"{cell.hidden_size}, cell 0, {type(first).__name__}, {first.hidden_size}: states "
                "of all layers and directions are stacked and must be alike; for others make one "
                "Recurrent each and call them one after another"
            )

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    # -- names: those of the cells' own tensors have PyTorch's suffixes

    def _qualified_name(self, child: str, inner: str) -> str:
        name = super()._qualified_name(child, inner)
        match = re.fullmatch(r"cells\.(\d+)\.(.+)", name)
        if match is None:
            return name
        layer, direction = divmod(int(match[1]), self.directions)
        return f"{match[2]}_l{layer}{'_reverse' if direction else ''}"

    def _place(self, name: str) -> tuple[Module, str] | None:
        """Return the module and its attribute that a name with a suffix means, if there is one."""
        match = _IN_A_CELL.fullmatch(name)
        own = name in self.__dict__ or hasattr(type(self), name)
        if match is None or own or "cells" not in self.__dict__:
            return None
        path, layer, reverse = match.groups()
        number = int(layer) * self.directions + bool(reverse)
        if number >= len(self.cells) or (reverse and not self.bidirectional):
            return None
        parent, _, attribute = path.rpartition(".")
        owner = dict(self.cells[number].named_modules()).get(parent)
        return None if owner is None else (owner, attribute)

    def _holder(self, name: str) -> tuple[Module, str] | None:
        """Return the place that a name means, if a tensor or None is there."""
        owner, attribute = place = self._place(name) or (self, name)
        held = owner is not self and attribute in vars(owner)
        return place if held and isinstance(vars(owner)[attribute], Tensor | None) else None

    def __getattr__(self, name: str) -> Any:
        holder = self._holder(name)
        if holder is not None and (value := getattr(*holder)) is not None:
            return value
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        holder = self._holder(name)
        if holder is None and isinstance(value, Tensor) and (place := self._place(name)):
            holder = None if hasattr(*place) else place  # one that was deleted, or a new one
        if holder is None:
            super().__setattr__(name, value)
        else:
            owner, attribute = holder
            self._check_replacement(name, vars(owner).get(attribute), value)
            setattr(owner, attribute, value)

    def _replacement_hint(self, name: str) -> str:
        place = self._place(name)
        return (
            super()._replacement_hint(name)
            if place is None
            else place[0]._replacement_hint(place[1])
        )

    def __delattr__(self, name: str) -> None:
        holder = self._holder(name)
        if holder is None:
            super().__delattr__(name)
        else:
            delattr(*holder)

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
            The number of steps of each sequence, in any order, from 0 to T. What `x` holds past
            the end of a sequence, nan included, changes nothing.
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
        x = checks.require_tensor(x, kind)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            order = "(B, T, I)" if self.batch_first else "(T, B, I)"
            raise ShapeError(
                f"{kind}: input of shape {x.shape}: {order} or (T, I) with I = input_size = "
                f"{self.input_size} is needed"
            )
        weights = next(self.cells[0].parameters(), None)
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
        ragged = self._ragged(lengths, T, B, x.device)

        strategy = strategy_of(self.bptt if bptt is None else bptt, kind)
        if strategy.overlaps and self.bidirectional:
            raise ArgumentError(
                f"{kind}: {strategy!r} in a bidirectional layer: the losses of a block would have "
                "to reach back in time and forward; leave stride out"
            )
        with _uncollected():
            sequence, finals = self._through_time(strategy, x, states, ragged, output)

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
        ragged: _Ragged | None,
        output: bool,
    ) -> tuple[Any, list[Tensor]]:
        """Return the output (T, B, D·H), None if not wanted, and all elements of the final states.

        Layers of one direction go through time together: a segment of the strategy has them all,
        and an edge one weight. In two directions a path can cross an edge once in each layer, to
        and fro, and random weights have the mean 1 on it only if each layer has its own.
        """
        given, B, _ = x.shape
        masks = self._masks(given, B)
        T = given if ragged is None else len(ragged.steps)
        if ragged is not None:
            x = self._unpadded(x, ragged)
        depth = 1 if self.bidirectional else self.num_layers
        finals: list[Tensor] = []
        for bottom in range(0, self.num_layers, depth):
            if bottom and masks:
                x = masked(x, masks[bottom - 1][:T], self.dropout)
            wanted = output or bottom + depth < self.num_layers
            edges = [1.0] * given if strategy.overlaps else strategy.weights(given, self.training)
            # The first weight is that of the initial state, in both directions.
            first, edges = edges[0], [1.0, *edges[1:T], 1.0]
            # The products over all steps join what a cut parts, in every layer but the first.
            cuts = [t for t in range(1, T) if edges[t] == 0] if depth > 1 else []
            sides = []
            for direction in range(self.directions):
                number = bottom * self.directions + direction
                numbers = range(number, number + depth)
                segment = self._segments(numbers, x, edges, ragged, masks, direction == 1, wanted)
                start = [
                    scale_gradient(element, first)
                    for i in numbers
                    for element in _elements(states[i])
                ]
                final, outputs = strategy.walk(segment, T, start, cuts)
                finals += final
                if wanted:
                    sides.append(
                        ops.feature_major(ops.stack_over_time(*outputs[:: -1 if direction else 1]))
                    )
            if wanted:
                x = sides[0] if len(sides) == 1 else ops.concatenate(sides, axis=-1)
        if output and ragged is not None:
            x = ops.where(ragged.masks, x, 0.0)
            if T < given:
                past = zeros((given - T, *x.shape[1:]), dtype=x.dtype, device=x.device)
                x = ops.concatenate([x, past], axis=0)
        return x if output else None, finals

    def _segments(
        self,
        numbers: Sequence[int],
        x: Tensor,
        edges: Sequence[float],
        ragged: _Ragged | None,
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
            living = ragged and ragged._replace(
                steps=ragged.steps[start:stop], edges=ragged.edges[start + reverse : stop + reverse]
            )

            def run(*state: Tensor) -> list[Tensor]:
                z, finals = inputs, list[Tensor]()
                outputs: list[Tensor] = []
                for i, number in enumerate(numbers):
                    if i:
                        z = ops.stack_over_time(*outputs)
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
            return [cell._first_state(B, x.dtype, x.device) for cell in self.cells]
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

    def _ragged(self, lengths: Any, T: int, B: int, device: str) -> _Ragged | None:
        """Return which sequences go on at each step; None if all have full length."""
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
        ends: list[int] = array.tolist()
        if all(end == T for end in ends):
            return None
        # One step, which is then all padding, if every sequence is empty: results and gradients are
        # zeros, and a loss of them has a graph as any other has.
        count = max(1, *ends)
        masks = ops.less(
            ops.reshape(arange(count, device=device), (count, 1, 1)),
            tensor(array.reshape(1, B, 1), device=device),
        )
        steps = [mask if t >= min(ends) else None for t, mask in enumerate(ops.unbind(masks))]
        longest = ends.index(max(ends))
        some = slice(longest, longest + 1) if max(ends) else None
        return _Ragged(masks, steps, [*steps, None], some)

    def _unpadded(self, x: Tensor, ragged: _Ragged) -> Tensor:
        """Return the input up to the end of the longest sequence, the padding replaced.

        Whatever stands past an end, nan included, must not reach a value or a gradient. If there is
        nothing but padding, 0.5 will do: logarithms, roots and inverses of x and 1 - x are finite.
        """
        x = x if len(x) == len(ragged.steps) else x[: len(ragged.steps)]
        if ragged.longest is None:
            return ops.where(ragged.masks, x, 0.5)
        return ragged.lend(ragged.masks, x)

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
                str(self.hidden_size),
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
