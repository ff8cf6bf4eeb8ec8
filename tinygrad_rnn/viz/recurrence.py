"""Numbers from inside a recurrence: states, gradients through time, the Jacobian of a step.

The layer's own loop runs; it calls a function of this module with each new state.

Letters: T time steps, B batch, I input size, H hidden size, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from .. import tensors as ops
from .._util.nested import leaves
from ..bptt import Full, Strategy
from ..bptt.strategies import Segment, strategy_of
from ..engine.autograd import grad
from ..engine.grad_mode import enable_grad, no_grad
from ..engine.tensor import Tensor
from ..errors import ArgumentError
from ..nn import Recurrent
from ..nn.recurrent import Observer
from ..tensors import checks
from ..tensors.creation import tensor, zeros
from ..transforms.derivatives import vjp

State = Any
Numbers = npt.NDArray[np.float64]
KRYLOV = 60  # iterates that `spectral_radius` keeps at once


def _time_first(layer: Any, x: Any, name: str) -> tuple[Tensor, bool]:
    """Return an input as (T, B, I), and whether it has a batch axis; check the layer."""
    if not isinstance(layer, Recurrent):
        raise ArgumentError(
            f"viz.{name}: a recurrent layer is expected (nn.RNN, nn.Recurrent of a cell of your "
            f"own), got {type(layer).__name__}"
        )
    if layer.bidirectional:
        raise ArgumentError(
            f"viz.{name}: a bidirectional layer is not supported: it goes through time two ways, "
            "so that distance in time has two meanings; its outputs are layer(x)"
        )
    return layer._time_first(x, f"viz.{name}")


def _run(
    layer: Recurrent, x: Tensor, state: State, bptt: Strategy | None, observe: Observer
) -> Tensor:
    """Run a layer on x (T, B, I); return its output (T, B, H)."""
    output, _ = layer._run(x, layer._initial_states(x, state), None, bptt, observe=observe)
    return output


class _StepByStep(Strategy):
    """A strategy in segments of one step, so that the graph of a step contains all layers.

    Otherwise a layer projects the outputs of many steps of the layer below at once, which connects
    every step of the one to every step of the other.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy

    def layer_weights(self, steps: int, training: bool) -> list[float]:
        """Return the weights of the strategy."""
        return self.strategy.layer_weights(steps, training)

    def unroll(
        self, segment: Segment, steps: int, state: State, cuts: Sequence[int] = ()
    ) -> tuple[State, list[Any]]:
        """Run each step as a segment."""
        return self.strategy.unroll(segment, steps, state, range(1, steps))


class _Recorder:
    """An observer of a layer's loop that keeps the elements of each state."""

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[int, int], list[Tensor]]] = []  # by (time step, cell)

    def __call__(self, cell: int, t: int, state: State) -> State:
        """Keep a new state."""
        self.seen.append(((t, cell), leaves(state)))
        return state


def unroll(
    layer: Recurrent, x: Tensor, state: State = None, bptt: Strategy | None = None
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """Run a recurrent layer; return its output and the state after every time step, with its graph.

    Parameters
    ----------
    layer : Recurrent
        Of one direction: `nn.RNN`, `nn.GRU`, `nn.LSTM`, or `nn.Recurrent` of any cell.
    x : Tensor
        (T, B, I), (B, T, I) if the layer is ``batch_first``, or (T, I) without a batch.
    state : Tensor or tuple of Tensors, optional
        The initial state, (L, B, H) for each element; default: that of the cells.
    bptt : Strategy, optional
        In place of the layer's own.

    Returns
    -------
    output : Tensor
        (T, B, H), the output of the top layer.
    states : list of T tuples of Tensors
        All elements of the state after each step, (B, H) each, those of the top layer first.

    Raises
    ------
    ArgumentError
        If the layer is bidirectional, or the strategy computes steps more than once
        (``Truncated(stride=)``).
    ShapeError, DTypeError
        If sizes or dtypes do not fit.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> output, states = tg.viz.unroll(tg.nn.LSTM(2, 3), tg.randn(5, 1, 2))
    >>> len(states), [element.shape for element in states[0]]
    (5, [(1, 3), (1, 3)])
    """
    x, _ = _time_first(layer, x, "unroll")
    recorder = _Recorder()
    strategy = strategy_of(layer.bptt if bptt is None else bptt, "viz.unroll")
    several = len(layer.cells) > 1
    output = _run(layer, x, state, _StepByStep(strategy) if several else strategy, recorder)
    states = dict(recorder.seen)
    if len(states) != len(recorder.seen):
        raise ArgumentError(
            f"viz.unroll: {strategy!r} computes some steps more than once, so that they have "
            "several states; leave stride out"
        )
    top_first = range(len(layer.cells))[::-1]
    return output, [
        tuple(element for cell in top_first for element in states[t, cell]) for t in range(len(x))
    ]


def gradient_norms(
    layer: Recurrent,
    x: Tensor,
    loss: Callable[[Tensor], Tensor] | None = None,
    state: State = None,
    bptt: Strategy | None = None,
) -> Numbers:
    r"""Return the norm of the gradient of a loss at the last step against the distance in time.

    .. math:: \Big\| \frac{∂ \ell_T}{∂ s_{T-d}} \Big\|, \quad d = 0 … T - 1

    Parameters
    ----------
    layer : Recurrent
        Of one direction, with any cell, fresh or trained.
    x : Tensor
        (T, B, I), (B, T, I) if the layer is ``batch_first``, or (T, I) without a batch.
    loss : callable, optional
        From the last output of the top layer, (B, H), to one number. Default: the sum. The
        distance counts from the last step, so earlier outputs have no loss.
    state : Tensor or tuple of Tensors, optional
        The initial state, (L, B, H) for each element.
    bptt : Strategy, optional
        In place of the layer's own. `tg.bptt.Randomized` draws at each call if the layer is in
        training: average over calls.

    Returns
    -------
    ndarray of float64, shape (L, T)
        Row l is for layer l; column d for the distance d. The gradient is by the whole state s of
        the layer (h and c of an LSTM), of all sequences of the batch. Zero before a cut.

    Raises
    ------
    ArgumentError
        If the layer is bidirectional, or the loss is not one number.
    ShapeError, DTypeError
        If sizes or dtypes do not fit.

    Notes
    -----
    The gradient is a product of d step Jacobians, so it tends to shrink or grow like ρ^d (Bengio,
    Simard and Frasconi 1994, "Learning long-term dependencies with gradient descent is difficult";
    Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063); see `spectral_radius`. No ``.grad`` is
    written.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer, x = tg.nn.RNN(2, 8, rng=0), tg.randn(20, 1, 2)
    >>> norms = tg.viz.gradient_norms(layer, x)
    >>> norms.shape, bool(norms[0, 19] < norms[0, 0])
    ((1, 20), True)
    >>> tg.viz.gradient_norms(layer, x, bptt=tg.bptt.Truncated(5))[0, 5:].max()
    np.float64(0.0)
    """
    x, _ = _time_first(layer, x, "gradient_norms")
    with enable_grad():
        # Zeros that are added to each new state: their gradient is that of the state, in any order
        # and however often a strategy computes the steps.
        probes = [
            [_probe((*x.shape[:2], size), x) for size in cell.state_sizes] for cell in layer.cells
        ]

        def add_probes(cell: int, t: int, state: State) -> State:
            moved = tuple(
                element + probe[t]
                for element, probe in zip(leaves(state), probes[cell], strict=True)
            )
            return moved if isinstance(state, tuple) else moved[0]

        output = _run(layer, x.detach(), state, bptt, add_probes)
        value = (loss or ops.sum)(output[-1])
        if not isinstance(value, Tensor) or value.size != 1:
            got = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise ArgumentError(f"viz.gradient_norms: the loss must be one number, got {got}")
        gradients = iter(grad(value, leaves(probes), allow_unused=True))
    squares = np.zeros((len(layer.cells), len(x)))
    for cell, own in enumerate(probes):
        for _ in own:
            gradient = next(gradients)
            if gradient is not None:
                squares[cell] += (gradient.numpy().astype(np.float64) ** 2).sum(axis=(1, 2))
    return np.sqrt(squares[:, ::-1])


def _probe(shape: tuple[int, ...], x: Tensor) -> Tensor:
    """Return zeros that require a gradient."""
    probe = zeros(shape, dtype=x.dtype, device=x.device)
    probe.requires_grad = True
    return probe


def activations(
    layer: Recurrent, x: Tensor, state: State = None, depth: int = -1, element: int = 0
) -> Numbers:
    """Return the values of the hidden units of a layer after each step.

    Parameters
    ----------
    layer : Recurrent
        Of one direction. It runs as in ``eval()``, without dropout.
    x : Tensor
        (T, B, I), (B, T, I) if the layer is ``batch_first``, or (T, I) without a batch: a text, for
        example, as one-hot vectors.
    state : Tensor or tuple of Tensors, optional
        The initial state, (L, B, H) for each element.
    depth : int
        The layer, from 0 at the bottom. Default: the top one.
    element : int
        The element of the state: of an LSTM 0 is h and 1 is c.

    Returns
    -------
    ndarray of float64, shape (T, B, H)
        (T, H) if `x` has no batch.

    Raises
    ------
    ArgumentError
        If `depth` or `element` is out of range, or the layer is bidirectional.
    ShapeError, DTypeError
        If sizes or dtypes do not fit.

    Notes
    -----
    Karpathy, Johnson and Fei-Fei 2015, "Visualizing and understanding recurrent networks",
    arXiv:1506.02078, found cells that count, or tell whether a quotation is open.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> vocab = tg.data.text.Vocabulary("hello world")
    >>> layer = tg.nn.LSTM(len(vocab), 16)
    >>> x = tg.functional.one_hot(tg.tensor(vocab.encode("hello")), len(vocab))
    >>> tg.viz.activations(layer, x).shape
    (5, 16)
    """
    x, batched = _time_first(layer, x, "activations")
    layers, count = len(layer.cells), len(layer.state_sizes)
    if not -layers <= depth < layers:
        raise ArgumentError(f"viz.activations: depth is one of {layers} layers, got {depth!r}")
    if not 0 <= element < count:
        raise ArgumentError(
            f"viz.activations: element is one of {count} of the state, from 0, got {element!r}"
        )
    recorder = _Recorder()
    with no_grad(), layer.evaluating():
        _run(layer, x, state, Full(), recorder)
    cell = depth % layers
    steps = [state[element].numpy() for (_, seen), state in recorder.seen if seen == cell]
    values = np.stack(steps).astype(np.float64)
    return values if batched else values[:, 0]


def spectral_radius(
    step: Callable[..., State],
    state: Tensor | Sequence[Tensor],
    tol: float = 1e-5,
    products: int = 3000,
    rng: tg_random.Rng = 0,
) -> float:
    """Return the spectral radius of the Jacobian of a step, without computing the Jacobian.

    Parameters
    ----------
    step : callable
        From the elements of a state to those of the next: ``lambda h: cell(x_t, h)``, for an LSTM
        ``lambda h, c: cell(x_t, (h, c))``. Several steps in a row are a step too.
    state : Tensor or sequence of Tensors
        The elements of the state at which the Jacobian is taken, floating.
    tol : float
        The largest residual ‖Jᵀv - λv‖ / |λ| that is accepted.
    products : int
        The largest number of products with the Jacobian.
    rng : int or numpy.random.Generator, optional
        Source of the first vector; None is the library's generator.

    Returns
    -------
    float
        max |λ| over the eigenvalues of J.

    Raises
    ------
    ArgumentError
        If it does not converge after so many products, or the Jacobian has nan or infinity.
    ShapeError
        If the step returns a state of another shape.

    Notes
    -----
    Power iteration that keeps its iterates (Arnoldi 1951; restarted as by Saad 1980): v, Jᵀv, Jᵀ²v
    … span a space in which the largest eigenvalues are found long before plain power iteration
    converges, complex pairs included, on which it never converges. Each product is one `tg.vjp`;
    J and its transpose have the same eigenvalues.

    While a network stays near one state, its gradient shrinks or grows by about ρ a step: the norm
    of Jᵈ tends to ρ^d, though at first it can grow even where ρ < 1, if J is not normal.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> W = tg.tensor([[0.0, -0.5], [0.5, 0.0]])  # a rotation by 90°, halved: eigenvalues ±0.5 i
    >>> round(tg.viz.spectral_radius(lambda h: h @ W, tg.tensor([1.0, 2.0])), 4)
    0.5
    """
    tol = checks.above_zero(tol, "viz.spectral_radius: tol")
    products = checks.positive(products, "viz.spectral_radius: products")
    given: Any = state if isinstance(state, tuple | list) else [state]
    primals = [checks.require_tensor(s, "viz.spectral_radius: state") for s in given]
    ends = list(accumulate(s.size for s in primals))
    n = ends[-1]

    def product(v: Numbers) -> Numbers:
        parts = [
            tensor(part.reshape(s.shape), dtype=s.dtype, device=s.device)
            for part, s in zip(np.split(v, ends[:-1]), primals, strict=True)
        ]
        _, products = vjp(step, primals, parts)
        result = np.concatenate([part.numpy().ravel() for part in products]).astype(np.float64)
        if not np.isfinite(result).all():
            raise ArgumentError("viz.spectral_radius: the Jacobian has nan or infinity")
        return result

    vector = tg_random.generator(rng).standard_normal(n)
    done = 0
    while done < products:
        count = min(n, KRYLOV, products - done)
        basis, projected = _arnoldi(product, vector, count)
        done += count
        size = projected.shape[1]
        values, vectors = np.linalg.eig(projected[:size])
        largest = int(np.abs(values).argmax())
        radius = float(np.abs(values[largest]))
        residual = abs(projected[size, size - 1] * vectors[-1, largest])
        if size == n or size < count or residual <= tol * radius:
            return radius
        # For a complex pair any vector of the plane serves; the real part is never zero.
        vector = (basis[:, :size] @ vectors[:, largest]).real
    raise ArgumentError(
        f"viz.spectral_radius: after {done} products the largest eigenvalue is {radius:.6g} with a "
        f"residual of {residual:.1g}, above tol={tol:g} of it: raise products, or tol"
    )


def _arnoldi(
    product: Callable[[Numbers], Numbers], start: Numbers, count: int
) -> tuple[Numbers, Numbers]:
    """Return Q, orthonormal, and H with A Q[:, :m] = Q H, for m = `count` products or fewer.

    Fewer, with a last row of zeros in H, if the Krylov space is invariant under A before.
    """
    basis = [start / np.linalg.norm(start)]
    projected = np.zeros((count + 1, count))
    for k in range(count):
        moved = product(basis[k])
        before = np.linalg.norm(moved)
        known = np.stack(basis, axis=1)
        for _ in range(2):  # once is not orthogonal to rounding (Giraud and others 2005)
            parts = known.T @ moved
            moved = moved - known @ parts
            projected[: k + 1, k] += parts
        left = np.linalg.norm(moved)
        if left <= 1e-14 * before or k + 1 == len(start):
            return known, projected[: k + 2, : k + 1]
        projected[k + 1, k] = left
        basis.append(moved / left)
    return np.stack(basis, axis=1), projected
