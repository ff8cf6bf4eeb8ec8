"""Gradients of any order against differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import random as _random
from ..engine.graph import enable_grad
from ..engine.variable import grad
from ..errors import ArgumentError, DTypeError, GradcheckError
from ..spelling import class_name
from ..tensors.tensor import Tensor

Array = NDArray[np.float64]
Function = Callable[..., list[Tensor]]

_FIRST_STEP, _LEVELS = 8e-3, 8


def gradcheck(
    fn: Callable[..., Any],
    inputs: Any,
    order: int = 2,
    rtol: float = 1e-7,
    atol: float = 1e-10,
    rng: Any = 0,
) -> Literal[True]:
    """Prove the derivatives of `fn` against differences, or raise an error that shows where.

    Parameters
    ----------
    fn : callable
        Takes Tensors, returns a Tensor or a sequence of Tensors: the same for the same arguments.
    inputs : Tensor, array or sequence of these
        Where: the arguments of `fn`, in float64. `fn` must be smooth within 0.01 of them.
    order : int
        Up to which order: 2 proves the gradient and the gradient of the gradient.
    rtol, atol : float
        How far the two may differ: `rtol` times the sum of the absolute terms, plus `atol`.
    rng : int or numpy.random.Generator
        Where the directions come from.

    Returns
    -------
    True
        It raises otherwise.

    Raises
    ------
    GradcheckError
        If a derivative is wrong (the message names the order, the input, the index, both values and
        their difference), differs between arrays and ``create_graph=True``, or `fn` is not a
        function of its arguments alone.
    DTypeError
        If an input is not float64: differences of narrower numbers prove little.

    Notes
    -----
    For random u and v, uᵀ(Jv) from differences must equal (Jᵀu)ᵀv from the graph; a wrong element
    of J shows with probability 1, at the cost of a few calls of `fn` whatever the sizes. Only when
    they differ is the element looked for, by halving. The differences are central and extrapolated
    twice (Richardson), an error of h⁶. Order k + 1 is the same check of Jᵀu as a function of the
    inputs and of u.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.gradcheck(lambda x, y: x * tg.tanh(y), [[1.0, 2.0], 0.5])
    True
    >>> @tg.primitive(x=lambda F, g, x: 2 * g * x * x)
    ... def wrong_cube(xp, x):
    ...     return x * x * x
    >>> tg.gradcheck(wrong_cube, [[0.5, 2.0]])  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
        ...
    tinygrad_rnn.errors.GradcheckError: gradcheck, order 1: the derivative of output 0 at [1]
    by input 0 at [1] (= 2) is 8 by the graph, 12 by differences: 4 apart, 1e-06 allowed
    """
    if order < 1:
        raise ArgumentError(f"gradcheck: order counts from 1, got {order}")
    generator = _random.generator(rng)
    with enable_grad():
        case = _first(fn, inputs)
        for k in range(1, order + 1):
            case.check(f"gradcheck, order {k}", rtol, atol, generator)
            if k < order:
                case = case.gradient(f"gradcheck, order {k + 1}", rtol, atol, generator)
    return True


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _first(fn: Callable[..., Any], inputs: Any) -> _Case:
    """Return the case of `fn` itself, after checking that differences can be taken of it."""
    places = []
    for i, x in enumerate(_listed(inputs)):
        x = x if isinstance(x, Tensor) else Tensor(np.asarray(x))
        if x.dtype != np.float64:
            raise DTypeError(
                f"gradcheck: input {i} is {x.dtype}: differences need .astype(tinygrad_rnn.float64)"
            )
        places.append(x)
    if not places:
        raise ArgumentError("gradcheck: there are no inputs")
    outputs = _listed(fn(*[x.detach() for x in places]))
    for j, y in enumerate(outputs):
        if not isinstance(y, Tensor):
            raise ArgumentError(f"gradcheck: output {j} of fn is no Tensor but {class_name(y)}")
    case = _Case(
        lambda *x: _listed(fn(*x)),
        [x.numpy() for x in places],
        [x.device for x in places],
        [f"input {i}" for i in range(len(places))],
        [f"output {j}" for j in range(len(outputs))],
    )
    first, second = _flat(outputs), _flat(case.at(_joined(case.arrays)))
    if not np.isfinite(first).all():
        raise GradcheckError(
            f"gradcheck: fn gives {first[~np.isfinite(first)][0]} at these inputs: it has no "
            "derivative there"
        )
    if not np.array_equal(first, second):
        raise GradcheckError(
            "gradcheck: fn gives other values when it is called again with the same inputs: "
            "switch dropout off (.eval()) or give it a seed (rng=)"
        )
    return case


class _Case(NamedTuple):
    """A function of Tensors that returns a list, and where its derivatives are asked for."""

    function: Function
    arrays: list[Array]
    devices: list[str]
    names: list[str]
    outputs: list[str]

    def at(self, flat: Array) -> list[Tensor]:
        """Return the outputs, all arguments' elements being taken from one vector."""
        parts = zip(_parted(flat, self.arrays), self.devices, strict=True)
        return self.function(*[Tensor(part, device=device) for part, device in parts])

    def pull(self, cotangents: Sequence[Any]) -> list[Any]:
        """Return Jᵀu by the graph, on arrays; None where no output depends on an argument."""
        parts = zip(self.arrays, self.devices, strict=True)
        places = [Tensor(a, device=device, requires_grad=True) for a, device in parts]
        return _pull(self.function, places, cotangents, create_graph=False)

    def check(self, what: str, rtol: float, atol: float, rng: np.random.Generator) -> None:
        """Raise unless uᵀ(Jv) from differences equals (Jᵀu)ᵀv from the graph."""
        base = _joined(self.arrays)
        outputs = self.at(base)

        def compared(weights: Array, direction: Array) -> tuple[float, float, float, bool]:
            """Return both derivatives, the tolerance, and whether the differences agree."""
            grads = self.pull(_parted(weights, outputs))
            zeros = (np.zeros(a.shape) for a in self.arrays)
            grads = [z if g is None else g.numpy() for g, z in zip(grads, zeros, strict=True)]
            exact = _joined(grads) * direction
            before, settled = np.nan, False
            for terms in _differences(lambda h: weights * _flat(self.at(base + h * direction))):
                number = terms.sum()
                tolerance = rtol * max(np.abs(terms).sum(), np.abs(exact).sum()) + atol
                settled = settled or abs(number - before) <= tolerance
                before = number
                if abs(number - exact.sum()) <= tolerance:
                    break
            return float(exact.sum()), float(before), float(tolerance), bool(settled)

        def error(weights: Array, direction: Array) -> float:
            exact, number, _, _ = compared(weights, direction)
            return float(np.nan_to_num(abs(number - exact), nan=np.inf))

        weights = rng.uniform(-1, 1, sum(y.size for y in outputs))
        direction = rng.uniform(-1, 1, base.size)
        exact, number, tolerance, _ = compared(weights, direction)
        if abs(number - exact) <= tolerance:
            return
        place, one_in = _worst(base.size, lambda part: error(weights, direction * part))
        place_out, one_out = _worst(weights.size, lambda part: error(weights * part, one_in))
        exact, number, tolerance, settled = compared(one_out, one_in)
        cause = "" if settled else "; the differences do not settle: is fn smooth near there?"
        raise GradcheckError(
            f"{what}: the derivative of {_place(place_out, outputs, self.outputs)} by "
            f"{_place(place, self.arrays, self.names)} (= {base[place]:.6g}) is {exact:.8g} by the "
            f"graph, {number:.8g} by differences: {abs(exact - number):.2g} apart, "
            f"{tolerance:.1g} allowed{cause}"
        )

    def gradient(self, what: str, rtol: float, atol: float, rng: np.random.Generator) -> _Case:
        """Return Jᵀu as a function of the arguments and of u; the same as on arrays, or raise."""
        outputs = self.at(_joined(self.arrays))
        cotangents = [rng.uniform(0.5, 1, y.shape) for y in outputs]
        on_arrays = self.pull(cotangents)
        wanted = [i for i, g in enumerate(on_arrays) if g is not None]
        count = len(self.arrays)

        def function(*places: Tensor) -> list[Tensor]:
            leaves = [x if x.requires_grad else Tensor(x, requires_grad=True) for x in places]
            grads = _pull(self.function, leaves[:count], leaves[count:], create_graph=True)
            return [grads[i] for i in wanted]

        case = _Case(
            function,
            self.arrays + cotangents,
            self.devices + [y.device for y in outputs],
            self.names + [f"the cotangent of {name}" for name in self.outputs],
            [f"the gradient by {self.names[i]}" for i in wanted],
        )
        recorded = case.at(_joined(case.arrays))
        for i, again in zip(wanted, recorded, strict=True):
            a, b = on_arrays[i].numpy(), again.numpy()
            apart = np.abs(a - b)
            if not (apart <= rtol * np.abs(a).max(initial=0) + atol).all():
                k = int(np.argmax(apart))
                raise GradcheckError(
                    f"{what}: the gradient by {_place(k, [a], [self.names[i]])} is "
                    f"{a.flat[k]:.8g} when the vjps run on arrays, {b.flat[k]:.8g} under "
                    "create_graph=True: a vjp must do the same with both"
                )
        return case


def _joined(arrays: Sequence[Array]) -> Array:
    """Return the elements of all as one vector."""
    return np.concatenate([np.zeros(0), *[a.ravel() for a in arrays]])


def _parted(flat: Array, like: Sequence[Any]) -> list[Array]:
    """Return a vector's elements in the shapes of `like`."""
    parts = np.split(flat, np.cumsum([x.size for x in like])[:-1]) if like else []
    return [part.reshape(x.shape) for part, x in zip(parts, like, strict=True)]


def _flat(outputs: Sequence[Tensor]) -> Array:
    return _joined([y.numpy().astype(np.float64) for y in outputs])


def _pull(
    function: Function, places: Sequence[Tensor], cotangents: Sequence[Any], create_graph: bool
) -> list[Any]:
    """Return Jᵀu; an output without a graph has no part in it: differences tell if it should."""
    pairs = [(y, u) for y, u in zip(function(*places), cotangents, strict=True) if y.requires_grad]
    if not pairs:
        return [None] * len(places)
    outputs, starts = zip(*pairs, strict=True)
    return list(grad(outputs, places, starts, create_graph=create_graph, allow_unused=True))


def _differences(values: Callable[[float], Array]) -> Iterator[Array]:
    """Yield the derivative of values(h) at h = 0 from ever smaller differences.

    Each is central and extrapolated twice from three steps, h, h / 2 and h / 4: an error of h⁶.
    """
    row: list[Array] = []
    step = _FIRST_STEP
    for _ in range(_LEVELS):
        estimate = (values(step) - values(-step)) / (2 * step)
        finer = [estimate]
        for factor, coarse in zip((4, 16), row, strict=False):
            estimate = (factor * estimate - coarse) / (factor - 1)
            finer.append(estimate)
        row, step = finer, step / 2
        if len(row) == 3:
            yield estimate


def _worst(size: int, error: Callable[[Array], float]) -> tuple[int, Array]:
    """Return an element that is wrong, and its unit vector: the worse half, again and again."""

    def only(places: Any) -> Array:
        mask = np.zeros(size)
        mask[places] = 1
        return mask

    places = np.arange(size)
    while len(places) > 1:
        places = max(np.array_split(places, 2), key=lambda half: error(only(half)))
    return int(places[0]), only(places)


def _place(place: int, arrays: Sequence[Any], names: Sequence[str]) -> str:
    """Say which element of which array is the one of that number in the joint vector."""
    for array, name in zip(arrays, names, strict=True):
        if place < array.size:
            index = [int(n) for n in np.unravel_index(place, array.shape)]
            return f"{name} at {index}" if index else name
        place -= array.size
    raise IndexError(place)
