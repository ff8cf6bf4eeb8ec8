"""Recurrent cells: one time step each, plain tensor code in the order of the equations.

A cell defines the part of its equations that depends on the input alone (`project`, called once for
all time steps) and one step from that and the state to the new state (`step`). The loop over time
is in `recurrence`, layers and directions are in `nn.recurrent`. The graph contains the gradient
through time.

Letters: B batch, I input size, H hidden size, P projected size, G gates; σ is the sigmoid, ⊙ the
product element by element.
"""

from __future__ import annotations

import math
from typing import Any

from .. import random as tg_random
from .. import tensors as ops
from .._util.nested import leaves
from ..engine import backend
from ..engine.ops import affine, linear
from ..engine.tensor import Tensor, wrap
from ..errors import ArgumentError, DTypeError, ShapeError
from ..recurrence.loop import unaliased
from ..tensors import checks
from ..tensors.creation import zeros
from ..transforms.fuse import fuse
from . import init
from .module import Module, Parameter

State = Any  # a Tensor (B, H), or a flat tuple of them whose first element is the output


def _alike(new: Any, old: Any) -> bool:
    """Return whether two states have one structure, the same shapes and dtypes."""
    if new.__class__ is Tensor:
        is_tensor = old.__class__ is Tensor
        return is_tensor and bool(new.shape == old.shape and new.dtype == old.dtype)
    pair = new.__class__ is tuple and old.__class__ is tuple and len(new) == len(old)
    return pair and all(map(_alike, new, old))


class Cell(Module):
    """One step of a recurrence; the base class of the built-in cells and of your own.

    A subclass sets ``hidden_size`` (an integer, or a tuple with one for each element of the state)
    and defines `step`. It can define `project` for the part that depends on the input alone.
    `nn.Recurrent` makes a layer of it.

    Raises
    ------
    ArgumentError
        If a layer is made of a cell whose `hidden_size` is missing or no positive integer.

    Examples
    --------
    A minimal gated unit (Zhou et al. 2016):

    >>> import tinygrad_rnn as tg
    >>> class MinimalGatedUnit(tg.nn.Cell):
    ...     def __init__(self, input_size, hidden_size):
    ...         super().__init__()
    ...         self.hidden_size = hidden_size
    ...         self.W = tg.nn.Linear(input_size, 2 * hidden_size)
    ...         self.U_f = tg.nn.Linear(hidden_size, hidden_size, bias=False)
    ...         self.U_n = tg.nn.Linear(hidden_size, hidden_size, bias=False)
    ...     def project(self, x):
    ...         return self.W(x)
    ...     def step(self, z, h):
    ...         z_f, z_n = z.split(2, axis=-1)
    ...         f = tg.sigmoid(z_f + self.U_f(h))
    ...         n = tg.tanh(z_n + self.U_n(f * h))
    ...         return (1 - f) * h + f * n
    >>> layer = tg.nn.Recurrent(MinimalGatedUnit, 28, 16)
    >>> output, state = layer(tg.zeros(35, 4, 28))
    >>> output.shape, state.shape
    ((35, 4, 16), (1, 4, 16))

    A weight that is computed for each sequence is a Tensor that `project` assigns. Dropout of the
    recurrent weights (Merity et al. 2018, arXiv:1708.02182):

    >>> class WeightDropLSTMCell(tg.nn.LSTMCell):
    ...     def __init__(self, *sizes, **options):
    ...         super().__init__(*sizes, **options)
    ...         self.raw_hh = self.weight_hh
    ...         del self.weight_hh
    ...     def project(self, x):
    ...         mask = tg.functional.dropout(tg.ones_like(self.raw_hh), 0.5, self.training)
    ...         self.weight_hh = self.raw_hh * mask
    ...         return super().project(x)
    >>> layer = tg.nn.Recurrent(WeightDropLSTMCell, 28, 16)
    >>> [name for name, _ in layer.named_parameters()]
    ['weight_ih_l0', 'bias_ih_l0', 'bias_hh_l0', 'raw_hh_l0']
    """

    hidden_size: int | tuple[int, ...]

    def project(self, x: Tensor) -> Tensor:
        """Return the part that depends on the input alone. Here it is x itself.

        Parameters
        ----------
        x : Tensor
            (..., B, I). A layer passes all steps at once, (T, B, I).

        Returns
        -------
        Tensor
            (..., B, ·), whose last axis can have any length.
        """
        return x

    def step(self, z: Tensor, state: State) -> State:
        """Return the new state. Every cell defines this.

        Parameters
        ----------
        z : Tensor
            The projected input of one step, (B, ·).
        state : Tensor or tuple of Tensors
            The old state, (B, H) for each element.

        Returns
        -------
        Tensor or tuple of Tensors
            The new state, with the shapes and dtypes of the old one. Its first (or only) element
            is the output.

        Raises
        ------
        NotImplementedError
            If the cell does not define it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define step(z, state), which returns the new state"
        )

    def initial_state(self, batch: int, dtype: Any, device: str) -> State:
        """Return the state before the first step: zeros, (B, H) for each element.

        Parameters
        ----------
        batch : int
            B.
        dtype : dtype
            That of the input.
        device : str
            That of the input.

        Returns
        -------
        Tensor or tuple of Tensors
            As of `step`.
        """
        # Feature-major memory: the product of the first step, and so of all, is twice as fast.
        arrays = [backend.filled((size, batch), 0, dtype, device).T for size in self.state_sizes]
        state = tuple([wrap(array, None, [0]) for array in arrays])
        return state if isinstance(self.hidden_size, tuple) else state[0]

    def _checked_initial_state(self, batch: int, dtype: Any, device: str) -> State:
        """Return the result of `initial_state`, or raise if it is not a state of this cell."""
        state = self.initial_state(batch, dtype, device)
        name = f"{type(self).__name__}.initial_state"
        self._check_structure(state, tuple, name)
        self.check_state(state, (batch,), dtype, name)
        return state

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The size of each element of the state."""
        return self.hidden_size if isinstance(self.hidden_size, tuple) else (self.hidden_size,)

    def _replacement_hint(self, name: str) -> str:
        return (
            ". For a weight that is computed from others, such as by weight drop, make a Recurrent "
            "of a cell of your own:\n"
            f"  class Own({type(self).__name__}):\n"
            "    def __init__(self, *sizes, **options):\n"
            "      super().__init__(*sizes, **options)\n"
            f"      self.raw = self.{name}\n"
            f"      del self.{name}\n"
            "    def project(self, x):\n"
            f"      self.{name} = self.raw * tinygrad_rnn.functional.dropout(\n"
            "        tinygrad_rnn.ones_like(self.raw), 0.5, self.training)\n"
            "      return super().project(x)"
        )

    def _check_sizes(self) -> None:
        """Raise unless `hidden_size` is a positive integer or a tuple of some."""
        kind = type(self).__name__
        sizes = getattr(self, "hidden_size", None)
        if sizes is None or (isinstance(sizes, tuple) and not sizes):
            raise ArgumentError(
                f"{kind}: hidden_size is not set: a cell sets self.hidden_size to an integer, or "
                "to a tuple with one for each element of the state"
            )
        for size in sizes if isinstance(sizes, tuple) else (sizes,):
            checks.positive(size, f"{kind}: hidden_size (for several elements a tuple)")

    def _check_structure(self, state: State, kinds: Any, name: str) -> None:
        """Raise unless a state has as many elements as the cell says, in a container of `kinds`."""
        paired = isinstance(self.hidden_size, tuple)
        several = isinstance(state, tuple | list)
        fits = isinstance(state, kinds) and len(state) == len(self.state_sizes)
        if paired != several or (several and not fits):
            wanted = f"a tuple of {len(self.state_sizes)} Tensors" if paired else "one Tensor"
            got = f"{len(state)} in a {type(state).__name__}" if several else type(state).__name__
            raise ArgumentError(
                f"{name}: the state is {wanted}, as hidden_size = {self.hidden_size} says, got "
                f"{got}"
            )

    def _check_projection(self, z: Any, x: Tensor) -> None:
        """Raise unless what `project` returned of `x` has its steps and sequences."""
        name = f"{type(self).__name__}.project"
        if not isinstance(z, Tensor):
            raise ArgumentError(f"{name} returned a {type(z).__name__}, one Tensor is needed")
        if z.shape[: x.ndim - 1] != x.shape[:-1]:
            wanted = f"({', '.join(map(str, x.shape[:-1]))}, ·)"
            raise ShapeError(
                f"{name} returned the shape {z.shape} for an input of shape {x.shape}: {wanted} is "
                "needed"
            )

    def _check_step(self, new: State, old: State) -> None:
        """Raise unless the state that `step` returned is of the kind of the one that it took."""
        if _alike(new, old):  # the usual case, at every step
            return
        name = f"{type(self).__name__}.step"
        self._check_structure(new, tuple, f"{name} returned another state than it took")
        pairs = zip(leaves(new), leaves(old), strict=True)
        for i, (element, taken) in enumerate(pairs):
            which = f"element {i} of the state" if isinstance(new, tuple) else "the state"
            if not isinstance(element, Tensor):
                raise ArgumentError(
                    f"{name} returned a {type(element).__name__} as {which}, a Tensor is needed"
                )
            if element.shape != taken.shape:
                raise ShapeError(
                    f"{name} returned {which} of shape {element.shape}, {taken.shape} is needed, "
                    f"as hidden_size = {self.hidden_size} says"
                )
            if element.dtype != taken.dtype:
                raise DTypeError(
                    f"{name} returned {which} in {element.dtype}, it took {taken.dtype}: use "
                    f".astype({str(taken.dtype)!r}), or make the cell's own tensors {taken.dtype}"
                )

    def check_state(
        self, state: State, leading: tuple[int, ...], dtype: Any, name: str
    ) -> tuple[Tensor, ...]:
        """Return the elements of a state, or raise if its structure, shapes or dtype do not fit.

        Parameters
        ----------
        state : Tensor, or tuple or list of Tensors
            The state.
        leading : tuple of int
            The axes before the last: each element is (*leading, H).
        dtype : dtype
            That of the input.
        name : str
            The function or layer, for errors.

        Returns
        -------
        tuple of Tensors
            The elements.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError
            If the structure, a shape or a dtype does not fit.
        """
        self._check_structure(state, (tuple, list), name)
        several = isinstance(state, tuple | list)
        elements = tuple(
            checks.require_tensor(element, f"{name}: state")
            for element in (state if several else (state,))
        )
        for element, size in zip(elements, self.state_sizes, strict=True):
            if element.shape != (*leading, size):
                raise ShapeError(
                    f"{name}: state of shape {element.shape}, {(*leading, size)} is needed"
                )
            if element.dtype != dtype:
                raise DTypeError(
                    f"{name}: state is {element.dtype}, input is {dtype}: use "
                    f".astype({str(dtype)!r}) of it"
                )
        return elements

    def forward(self, x: Tensor, state: State = None) -> State:
        """Take one step.

        Parameters
        ----------
        x : Tensor
            (B, I), or (I,) without a batch.
        state : Tensor or tuple of Tensors, optional
            (B, H) each, or (H,); zeros if not given.

        Returns
        -------
        Tensor or tuple of Tensors
            The new state; its first (or only) element is the output.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError
            If the input or the state does not fit the cell.
        """
        x = checks.require_tensor(x, type(self).__name__)
        if x.ndim not in (1, 2):
            raise ShapeError(
                f"{type(self).__name__}: input (B, I) or (I,), got {x.shape}; for whole sequences "
                "use a layer"
            )
        alone, several = x.ndim == 1, isinstance(self.hidden_size, tuple)
        if state is not None:
            elements = self.check_state(state, x.shape[:-1], x.dtype, type(self).__name__)
            elements = tuple(s[None] for s in elements) if alone else elements
            state = elements if several else elements[0]
        x = x[None] if alone else x
        if state is None:
            state = self._checked_initial_state(x.shape[0], x.dtype, x.device)
        z = self.project(x)
        self._check_projection(z, x)
        new = self.step(unaliased(z), unaliased(state))
        self._check_step(new, state)
        if not alone:
            return new
        return tuple(s[0] for s in new) if several else new[0]


def _sum_of(*biases: Tensor | None) -> Tensor | None:
    """Return the sum of the biases that are not None; None if all are."""
    present = [bias for bias in biases if bias is not None]
    return sum(present[1:], start=present[0]) if present else None


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return W x + b."""
    return linear(x, weight) if bias is None else affine(x, weight, bias)


class _GatedCell(Cell):
    """Base of the built-in cells: PyTorch's parameters and initialisation, U(-1/√H, 1/√H)."""

    gates: int
    _step_reads: tuple[str, ...]  # all attributes that `step` reads: loops over time rely on it

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        proj_size: int = 0,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__()
        kind = type(self).__name__
        input_size = checks.positive(input_size, f"{kind}: input_size")
        hidden_size = checks.positive(hidden_size, f"{kind}: hidden_size")
        proj_size = checks.positive(proj_size, f"{kind}: proj_size", 0)
        if proj_size >= hidden_size:
            raise ArgumentError(
                f"{kind}: proj_size is in [0, hidden_size = {hidden_size}), got {proj_size!r}"
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        generator, bound = tg_random.generator(rng), 1 / math.sqrt(hidden_size)

        def draw(*shape: int) -> Parameter:
            parameter = Parameter(zeros(shape, dtype=dtype, device=device))
            init.uniform(parameter, -bound, bound, rng=generator)
            return parameter

        rows = self.gates * hidden_size
        self.weight_ih = draw(rows, input_size)
        self.weight_hh = draw(rows, proj_size or hidden_size)
        self.bias_ih = draw(rows) if bias else None
        self.bias_hh = draw(rows) if bias else None
        self.weight_hr = draw(proj_size, hidden_size) if proj_size else None

    def _whole_bias(self) -> Tensor | None:
        """Return b_ih + b_hh."""
        return _sum_of(self.bias_ih, self.bias_hh)

    def forward(self, x: Tensor, state: State = None) -> State:
        """Take one step.

        Parameters
        ----------
        x : Tensor
            (B, I), or (I,) without a batch, in the dtype of the parameters.
        state : Tensor or tuple of Tensors, optional
            (B, H), or (H,); of an LSTM cell the pair (h, c). Zeros if not given.

        Returns
        -------
        Tensor or tuple of Tensors
            The new state, of the same shapes; its first (or only) element is the output.

        Raises
        ------
        ShapeError, DTypeError, DeviceError
            If the input or the state does not fit the cell.
        """
        x = checks.require_tensor(x, type(self).__name__)
        if x.shape[-1:] != (self.input_size,):
            raise ShapeError(
                f"{type(self).__name__}: input of shape {x.shape}, its last axis must be "
                f"input_size = {self.input_size}"
            )
        if x.dtype != self.weight_ih.dtype:
            raise DTypeError(
                f"{type(self).__name__}: input is {x.dtype}, weights are {self.weight_ih.dtype}: "
                f"use x.astype({str(self.weight_ih.dtype)!r})"
            )
        return super().forward(x, state)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.input_size}, {self.hidden_size}"


@fuse
def _tanh(z: Tensor, a: Tensor) -> Tensor:
    return ops.tanh(z + a)


@fuse
def _relu(z: Tensor, a: Tensor) -> Tensor:
    return ops.relu(z + a)


class RNNCell(_GatedCell):
    """The simple recurrence of Elman (1990).

    .. math:: h' = φ(W_{ih} x + b_{ih} + W_{hh} h + b_{hh})

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether to add b_ih and b_hh. The second bias is redundant; it exists for the exchange of
        weights with PyTorch.
    nonlinearity : {"tanh", "relu"}
        φ.
    dtype, device
        Of the parameters.
    rng : int or numpy.random.Generator, optional
        Source of the initial parameters. Default: the library's generator.

    Attributes
    ----------
    weight_ih, weight_hh : Parameter
        (H, I) and (H, H).
    bias_ih, bias_hh : Parameter or None
        (H,).

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
    >>> tg.nn.RNNCell(3, 5)(tg.zeros(2, 3)).shape
    (2, 5)
    """

    gates = 1
    _step_reads = ("weight_hh", "nonlinearity")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dtype=dtype, device=device, rng=rng)
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError(f"RNNCell: nonlinearity is 'tanh' or 'relu', got {nonlinearity!r}")
        self.nonlinearity = nonlinearity

    def project(self, x: Tensor) -> Tensor:
        """Return W_ih x + b_ih + b_hh."""
        return _affine(x, self.weight_ih, self._whole_bias())

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        """Return φ(z + W_hh h)."""
        activation = _tanh if self.nonlinearity == "tanh" else _relu
        return activation(z, linear(h, self.weight_hh))


@fuse
def _gru(a: Tensor, b: Tensor, h: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    a_r, a_z, a_n = ops.split(a, 3, axis=-1)
    b_r, b_z, b_n = ops.split(b, 3, axis=-1)
    bias_n = ops.split(bias, 3, axis=-1)[2] if isinstance(bias, Tensor) else bias
    r = ops.sigmoid(a_r + b_r)
    z = ops.sigmoid(a_z + b_z)
    n = ops.tanh(a_n + r * (b_n + bias_n))
    return n + z * (h - n)


class GRUCell(_GatedCell):
    r"""The gated recurrent unit (Cho et al. 2014).

    The reset gate acts after the recurrent product, as in cuDNN and PyTorch.

    .. math::
        r &= σ(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}) \\
        z &= σ(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}) \\
        n &= \tanh(W_{in} x + b_{in} + r ⊙ (W_{hn} h + b_{hn})) \\
        h' &= (1 - z) ⊙ n + z ⊙ h

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether to add b_ih and b_hh.
    dtype, device
        Of the parameters.
    rng : int or numpy.random.Generator, optional
        Source of the initial parameters. Default: the library's generator.

    Attributes
    ----------
    weight_ih, weight_hh : Parameter
        (3H, I) and (3H, H), gates in the order r, z, n.
    bias_ih, bias_hh : Parameter or None
        (3H,).

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
    >>> tg.nn.GRUCell(3, 5)(tg.zeros(2, 3)).shape
    (2, 5)
    """

    gates = 3
    _step_reads = ("weight_hh", "bias_hh")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dtype=dtype, device=device, rng=rng)

    def project(self, x: Tensor) -> Tensor:
        """Return W_ih x + b_ih + b_hh, without the part of b_hh for n, which r multiplies."""
        return _affine(x, self.weight_ih, self._whole_bias())

    def _whole_bias(self) -> Tensor | None:
        """Return b_ih + [b_hr, b_hz, 0]."""
        if self.bias_hh is None:
            return self.bias_ih
        b_r, b_z, _ = ops.split(self.bias_hh, 3)
        none = wrap(backend.full(b_r.shape, 0, b_r.dtype, like=b_r._data), None, None)
        return _sum_of(self.bias_ih, ops.concatenate([b_r, b_z, none]))

    def step(self, a: Tensor, h: Tensor) -> Tensor:
        """Return h' from the projection a and h."""
        bias = () if self.bias_hh is None else (self.bias_hh,)
        return _gru(a, linear(h, self.weight_hh), h, *bias)


@fuse
def _reset_and_update(a: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    a_r, a_z = ops.split(a, 2, axis=-1)
    b_r, b_z = ops.split(b, 2, axis=-1)
    return ops.sigmoid(a_r + b_r) * h, ops.sigmoid(a_z + b_z)


@fuse
def _interpolated(a_n: Tensor, b_n: Tensor, z: Tensor, h: Tensor) -> Tensor:
    n = ops.tanh(a_n + b_n)
    return n + z * (h - n)


class ResetBeforeGRUCell(_GatedCell):
    r"""The gated recurrent unit whose reset gate acts before the recurrent product.

    This is the form of the first paper (Cho et al. 2014), of Keras with ``reset_after=False``, of
    Haiku, and of ONNX with ``linear_before_reset = 0``. PyTorch and cuDNN have the other form,
    `GRUCell`: the weights of one have the shapes of the other, and give other outputs.

    .. math::
        r &= σ(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}) \\
        z &= σ(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}) \\
        n &= \tanh(W_{in} x + b_{in} + W_{hn} (r ⊙ h) + b_{hn}) \\
        h' &= (1 - z) ⊙ n + z ⊙ h

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether to add b_ih and b_hh. The second bias is redundant; it exists for the names and for
        the exchange of weights with ONNX.
    dtype, device
        Of the parameters.
    rng : int or numpy.random.Generator, optional
        Source of the initial parameters. Default: the library's generator.

    Attributes
    ----------
    weight_ih, weight_hh : Parameter
        (3H, I) and (3H, H), gates in the order r, z, n.
    bias_ih, bias_hh : Parameter or None
        (3H,).

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or an option is out of range.
    DTypeError
        If `dtype` is not floating.
    DeviceError
        If `device` is unknown or cannot be used.

    See Also
    --------
    GRUCell : The reset gate acts after the product.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.Recurrent(tg.nn.ResetBeforeGRUCell, 3, 5, bidirectional=True)
    >>> output, state = layer(tg.zeros(7, 2, 3))
    >>> output.shape, state.shape
    ((7, 2, 10), (2, 2, 5))
    """

    gates = 3
    _step_reads = ("weight_hh",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dtype=dtype, device=device, rng=rng)

    def project(self, x: Tensor) -> Tensor:
        """Return W_ih x + b_ih + b_hh."""
        return _affine(x, self.weight_ih, self._whole_bias())

    def step(self, a: Tensor, h: Tensor) -> Tensor:
        """Return h' from the projection a and h."""
        H = h.shape[-1]
        reset, z = _reset_and_update(a[..., : 2 * H], linear(h, self.weight_hh[: 2 * H]), h)
        return _interpolated(a[..., 2 * H :], linear(reset, self.weight_hh[2 * H :]), z, h)


@fuse
def _lstm(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = ops.split(a + b, 4, axis=-1)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


class LSTMCell(_GatedCell):
    r"""Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gates (Gers et al. 2000).

    .. math::
        i &= σ(W_{ii} x + b_{ii} + W_{hi} h + b_{hi}) \\
        f &= σ(W_{if} x + b_{if} + W_{hf} h + b_{hf}) \\
        g &= \tanh(W_{ig} x + b_{ig} + W_{hg} h + b_{hg}) \\
        o &= σ(W_{io} x + b_{io} + W_{ho} h + b_{ho}) \\
        c' &= f ⊙ c + i ⊙ g \\
        h' &= W_{hr} (o ⊙ \tanh c')

    W_hr is the projection of Sak et al. (2014). Without `proj_size`, h' = o ⊙ tanh c'.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether to add b_ih and b_hh.
    proj_size : int
        P < H, the size of the projected h; 0 for no projection.
    dtype, device
        Of the parameters.
    rng : int or numpy.random.Generator, optional
        Source of the initial parameters. Default: the library's generator.

    Attributes
    ----------
    weight_ih, weight_hh : Parameter
        (4H, I) and (4H, H or P), gates in the order i, f, g, o.
    bias_ih, bias_hh : Parameter or None
        (4H,).
    weight_hr : Parameter or None
        (P, H).

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
    >>> h, c = tg.nn.LSTMCell(3, 5)(tg.zeros(2, 3))
    >>> h.shape, c.shape
    ((2, 5), (2, 5))
    """

    gates = 4
    _step_reads = ("weight_hh", "weight_hr")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        proj_size: int = 0,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, proj_size, dtype, device, rng)
        self.hidden_size = (int(proj_size or hidden_size), int(hidden_size))

    def project(self, x: Tensor) -> Tensor:
        """Return W_ih x + b_ih + b_hh."""
        return _affine(x, self.weight_ih, self._whole_bias())

    def step(self, a: Tensor, state: State) -> State:
        """Return (h', c') from a = W_ih x + b_ih + b_hh."""
        h, c = state
        h, c = _lstm(a, linear(h, self.weight_hh), c)
        return (h if self.weight_hr is None else linear(h, self.weight_hr)), c
