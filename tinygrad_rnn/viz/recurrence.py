"""Numbers from inside a recurrence: states, gradients through time, the Jacobian of a step.

Letters: T time steps, B batch, I input size, H hidden size, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import random as tg_random
from .. import tensors as ops
from ..engine.backward import grad
from ..engine.grad_mode import enable_grad, no_grad
from ..engine.tensor import Tensor
from ..errors import ArgumentError, ShapeError
from ..functional import dropout as drop
from ..nn import Cell, ModuleList, Recurrent
from ..tensors import checks
from ..tensors.creation import tensor, zeros
from ..transforms.derivatives import vjp

if TYPE_CHECKING:
    from ..bptt import Strategy

State = Any
Numbers = npt.NDArray[np.float64]
KRYLOV = 60  # iterates that `spectral_radius` keeps at once


class _Tower(Cell):
    """The layers of a network as one cell, whose states can be seen and their gradients read.

    The elements of the top layer stand first in the state, since the first is the output. If
    `probed`, zeros come in beside the input and are added to each new state: their gradient is that
    of the state, in whichever order and how often a strategy computes the steps.
    """

    def __init__(self, layer: Recurrent, probed: bool) -> None:
        super().__init__()
        self.cells = ModuleList(layer.cells)
        self.drop = layer.dropout if layer.training else 0.0
        sizes = [cell.state_sizes for cell in layer.cells]
        self.hidden_size: tuple[int, ...] = tuple(size for own in reversed(sizes) for size in own)
        ends = list(accumulate(len(own) for own in reversed(sizes)))
        self.places = [slice(a, b) for a, b in pairwise([0, *ends])][::-1]  # of each layer
        self.bounds = list(pairwise([0, *accumulate(self.hidden_size)]))  # of each element
        self.probed = self.bounds[-1][1] if probed else 0
        self.seen: list[tuple[Tensor, ...]] = []

    def project(self, x: Tensor) -> Tensor:
        """Return what the bottom cell makes of the input, with the probe beside it."""
        if not self.probed:
            return self.cells[0].project(x)
        z = self.cells[0].project(x[..., : -self.probed])
        return ops.concatenate([z, x[..., -self.probed :]], axis=-1)

    def step(self, z: Tensor, state: State) -> State:
        """Take one step in every layer, from the bottom to the top."""
        if self.probed:
            z, probe = z[..., : -self.probed], z[..., -self.probed :]
        new = list(state)
        for number, (cell, place) in enumerate(zip(self.cells, self.places, strict=True)):
            if number:
                below = new[self.places[number - 1].start]
                z = cell.project(drop(below, self.drop) if self.drop else below)
            own: Any = tuple(state[place])
            own = own if isinstance(cell.hidden_size, tuple) else own[0]
            result: Any = cell.step(z, own)
            cell._check_step(result, own)
            new[place] = result if isinstance(result, tuple) else (result,)
            if self.probed:
                for i in range(place.start, place.stop):
                    a, b = self.bounds[i]
                    new[i] = new[i] + probe[..., a:b]
        self.seen.append(tuple(new))
        return tuple(new)

    def start(self, state: State, x: Tensor, name: str) -> State:
        """Return the state (L, B, H) that a layer takes as the tower's, (1, B, H) for each."""
        rows: list[Any]
        if state is None:
            states = [cell._first_state(x.shape[1], x.dtype, x.device) for cell in self.cells]
            rows = [s if isinstance(s, tuple) else (s,) for s in states]
        else:
            leading = (len(self.cells), x.shape[1])
            elements = self.cells[0].check_state(state, leading, x.dtype, name)
            rows = list(zip(*(ops.unbind(element) for element in elements), strict=True))
        return tuple(ops.expand_dims(s, 0) for row in reversed(rows) for s in row)


def _input(layer: Any, x: Any, name: str) -> Tensor:
    """Return an input as (T, B, I), if the layer is one that time goes one way in."""
    if not isinstance(layer, Recurrent):
        raise ArgumentError(
            f"viz.{name}: a recurrent layer is expected (nn.RNN, nn.Recurrent of a cell of your "
            f"own), got {type(layer).__name__}"
        )
    if layer.bidirectional:
        raise ArgumentError(
            f"viz.{name}: in a bidirectional layer time goes two ways, and distance in time means "
            "two things; its outputs are layer(x)"
        )
    x = checks.require_tensor(x, f"viz.{name}")
    if x.ndim not in (2, 3) or x.shape[-1] != layer.input_size or not x.shape[0]:
        order = "(B, T, I)" if layer.batch_first else "(T, B, I)"
        raise ShapeError(
            f"viz.{name}: input of shape {x.shape}: {order} or (T, I) with I = input_size = "
            f"{layer.input_size} is needed"
        )
    if x.ndim == 2:
        return ops.expand_dims(x, 1)
    return ops.swapaxes(x, 0, 1) if layer.batch_first else x


def _run(tower: _Tower, layer: Recurrent, x: Tensor, state: State, bptt: Strategy | None) -> Tensor:
    """Return the outputs (T, B, H) of a tower over time, under the strategy of its layer."""
    whole = Recurrent([tower], x.shape[-1], tower.hidden_size[0], bptt=layer.bptt)
    whole.training = layer.training  # and not of the cells, which are the layer's own
    output: Tensor = whole(x, state, bptt=bptt)[0]
    return output


def unroll(
    layer: Recurrent, x: Tensor, state: State = None, bptt: Strategy | None = None
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """Run a recurrent layer and return the state after every time step too, with its graph.

    Parameters
    ----------
    layer : Recurrent
        Of one direction: `nn.RNN`, `nn.GRU`, `nn.LSTM`, or `nn.Recurrent` of any cell.
    x : Tensor
        (T, B, I), (B, T, I) if the layer is ``batch_first``, or (T, I) without a batch.
    state : Tensor or tuple of Tensors, optional
        The initial state, (L, B, H) for each element; the cells' own if not given.
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
    x = _input(layer, x, "unroll")
    tower = _Tower(layer, probed=False)
    output = _run(tower, layer, x, tower.start(state, x, "viz.unroll"), bptt)
    if len(tower.seen) != len(x):
        raise ArgumentError(
            f"viz.unroll: {bptt or layer.bptt!r} computes some steps more than once, so that they "
            "have several states; leave stride out"
        )
    return output, list(tower.seen)


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
        From the last output of the top layer, (B, H), to one number; the sum if not given. The
        distance counts from the last step, so earlier outputs have no loss.
    state : Tensor or tuple of Tensors, optional
        The initial state, (L, B, H) for each element.
    bptt : Strategy, optional
        In place of the layer's own. `tg.bptt.Randomized` draws anew at each call, if the layer is
        in training: average over calls.

    Returns
    -------
    ndarray of float64, shape (L, T)
        Row l is for layer l; column d for the distance d. The gradient is by the whole state s of
        the layer (h and c of an LSTM), of all sequences of the batch. Zero beyond a cut.

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
    x = _input(layer, x, "gradient_norms")
    tower = _Tower(layer, probed=True)
    with enable_grad():
        probe = zeros((*x.shape[:2], tower.probed), dtype=x.dtype, device=x.device)
        probe.requires_grad = True
        beside = ops.concatenate([x.detach(), probe], axis=-1)
        output = _run(tower, layer, beside, tower.start(state, x, "viz.gradient_norms"), bptt)
        value = (loss or ops.sum)(output[-1])
        if not isinstance(value, Tensor) or value.size != 1:
            got = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise ArgumentError(f"viz.gradient_norms: the loss must be one number, got {got}")
        gradient = grad(value, probe).numpy().astype(np.float64)[::-1]
    result = []
    for place in tower.places:
        own = gradient[..., tower.bounds[place.start][0] : tower.bounds[place.stop - 1][1]]
        result.append(np.sqrt((own * own).sum(axis=(1, 2))))
    return np.stack(result)


def activations(
    layer: Recurrent, x: Tensor, state: State = None, depth: int = -1, element: int = 0
) -> Numbers:
    """Return what the hidden units of a layer hold after each step: over a text, at each character.

    Parameters
    ----------
    layer : Recurrent
        Of one direction. Dropout is as in ``eval()``.
    x : Tensor
        (T, B, I), (B, T, I) if the layer is ``batch_first``, or (T, I) without a batch: an embedded
        text.
    state : Tensor or tuple of Tensors, optional
        The initial state, (L, B, H) for each element.
    depth : int
        Which layer, from 0 at the bottom; the top one if not given.
    element : int
        Which element of the state: of an LSTM 0 is h and 1 is c.

    Returns
    -------
    ndarray of float64, shape (T, B, H)
        (T, H) if `x` has no batch.

    Raises
    ------
    ArgumentError
        If there is no such layer or element, or the layer is bidirectional.
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
    single = getattr(x, "ndim", 3) == 2
    x = _input(layer, x, "activations")
    tower = _Tower(layer, probed=False)
    if not -len(tower.places) <= depth < len(tower.places):
        raise ArgumentError(
            f"viz.activations: depth is one of {len(tower.places)} layers, got {depth!r}"
        )
    place = range(len(tower.bounds))[tower.places[depth]]
    if not 0 <= element < len(place):
        raise ArgumentError(
            f"viz.activations: element is one of {len(place)} of the state, from 0, got {element!r}"
        )
    tower.drop = 0.0
    with no_grad():
        _run(tower, layer, x, tower.start(state, x, "viz.activations"), None)
        steps = [seen[place[element]].numpy() for seen in tower.seen]
    held = np.stack(steps).astype(np.float64)
    return held[:, 0] if single else held


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
        Where: the elements of the state, floating.
    tol : float
        The largest residual ‖Jᵀv - λv‖ / |λ| that is accepted.
    products : int
        How many products with the Jacobian may be tried.
    rng : int or numpy.random.Generator, optional
        Where the first vector comes from; None is the library's generator.

    Returns
    -------
    float
        max |λ| over the eigenvalues of J.

    Raises
    ------
    ArgumentError
        If it has not settled after so many products, or holds nan or infinity.
    ShapeError
        If the step returns a state of another shape.

    Notes
    -----
    Power iteration that keeps its iterates (Arnoldi 1951; restarted as by Saad 1980): v, Jᵀv, Jᵀ²v
    … span a space in which the largest eigenvalues are found long before the power itself settles,
    complex pairs included, on which the plain power never settles. Each product is one `tg.vjp`; J
    and its transpose have the same eigenvalues.

    While a network stays near one state, its gradient shrinks or grows by about ρ a step: the norm
    of Jᵈ tends to ρ^d, though at first it can grow even where ρ < 1, if J is not normal.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> W = tg.tensor([[0.0, -0.5], [0.5, 0.0]])  # a turn by 90°, halved: eigenvalues ±0.5 i
    >>> round(tg.viz.spectral_radius(lambda h: h @ W, tg.tensor([1.0, 2.0])), 4)
    0.5
    """
    tol = checks.above_zero(tol, "viz.spectral_radius: tol")
    products = checks.positive(products, "viz.spectral_radius: products")
    given: Any = state if isinstance(state, tuple | list) else [state]
    places = [checks.require_tensor(s, "viz.spectral_radius: state") for s in given]
    ends = list(accumulate(s.size for s in places))
    n = ends[-1]

    def product(v: Numbers) -> Numbers:
        parts = [
            tensor(part.reshape(s.shape), dtype=s.dtype, device=s.device)
            for part, s in zip(np.split(v, ends[:-1]), places, strict=True)
        ]
        _, pulled = vjp(step, places, parts)
        moved = np.concatenate([part.numpy().ravel() for part in pulled]).astype(np.float64)
        if not np.isfinite(moved).all():
            raise ArgumentError("viz.spectral_radius: the Jacobian holds nan or infinity")
        return moved

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
        # Of a complex pair any vector of the plane will do; the real part is never zero.
        vector = (basis[:, :size] @ vectors[:, largest]).real
    raise ArgumentError(
        f"viz.spectral_radius: after {done} products the largest eigenvalue is {radius:.6g} with a "
        f"residual of {residual:.1g}, above tol={tol:g} of it: raise products, or tol"
    )


def _arnoldi(
    product: Callable[[Numbers], Numbers], start: Numbers, count: int
) -> tuple[Numbers, Numbers]:
    """Return Q, orthonormal, and H with A Q[:, :m] = Q H, for m = `count` products or fewer.

    Fewer, with a last row of zeros in H, if the space is closed under A before.
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
