"""Gradients of any order against differences."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import random as _random
from .._util.api_hints import class_name
from .._util.functions import check_function
from ..engine.backward import grad
from ..engine.grad_mode import enable_grad
from ..engine.tensor import Tensor
from ..errors import ArgumentError, DTypeError, GradcheckError
from ..tensors import reshape

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Function = Callable[..., list[Tensor]]

# Differences of fn at x - 3 s ... x + 3 s: the derivative with an error of s⁶, the same with s⁴,
# and the rounding of fn's values by Hamming's method (Moré and Wild 2011, SIAM J. Sci. Comput. 33):
# k-th differences of noise σ have the variance σ² (2k)! / k!².
_POINTS = range(-3, 4)
_SLOPE = np.array([-1, 9, -45, 0, 45, -9, 1]) / 60
_COARSER = np.array([0, 1, -8, 0, 8, -1, 0]) / 12
_NOISE = np.array(
    [
        np.pad(np.poly([1] * k), (n, 6 - k - n)) / np.sqrt(math.comb(2 * k, k))
        for k in (4, 5, 6)
        for n in range(7 - k)
    ]
)
# The steps, as parts of max(1, |x|) or of |x|, in the order in which they are tried.
# Their ratios are no powers of two, so that rounding is not the same for two of them.
_REACHES = [(1.0, 2.0**-9), (0.0, 2.0**-9), (1.0, 1.3e-6), (0.0, 1.3e-6)]
_REACHES += [(1.0, 1.1e-9), (1.0, 0.9e-12), (1.0, 0.7e-15)]
_EPS = float(np.finfo(np.float64).eps)
_LEAST = 1e-150  # tolerance where fn is 0 at all points
_HIDDEN = 0.03  # a smaller part of the largest term is looked at alone
_BLURRED = 1e-3  # the largest relative doubt of a difference that still proves something


def gradcheck(
    fn: Callable[..., Any],
    inputs: Any,
    order: int = 2,
    rtol: float = 1e-7,
    atol: float = 0.0,
    rng: Any = 0,
) -> Literal[True]:
    """Prove the derivatives of `fn` against differences, or raise an error that shows where.

    Parameters
    ----------
    fn : callable
        Takes Tensors, returns a Tensor or a sequence of Tensors: the same for the same arguments.
    inputs : Tensor, array or sequence of these
        Where: the arguments of `fn`, in float64. `fn` must be smooth within 0.01 · max(1, |x|), or
        at least within 0.01 · |x|, of each.
    order : int
        Up to which order: 2 proves the gradient and the gradient of the gradient.
    rtol : float
        By which part of itself a derivative may differ, beside the uncertainty of the differences.
    atol : float
        How far any derivative may differ beside that. It is 0: the uncertainty is measured.
    rng : int or numpy.random.Generator
        Where the directions come from.

    Returns
    -------
    True
        It raises otherwise.

    Raises
    ------
    GradcheckError
        If a derivative is wrong (the message names the order, the output, the input, the indices,
        both values, their difference and the tolerance); if the gradient of several outputs is not
        the sum of theirs, or differs between arrays and ``create_graph=True``; if the differences
        cannot decide; if `fn` is not a function of its arguments alone.
    DTypeError
        If an input is not float64: differences of narrower numbers prove little.

    Notes
    -----
    Each output is compared with each input on its own. For random u and v, uᵀ(Jv) from differences
    must equal (Jᵀu)ᵀv from the graph. The elements of v have the size of their inputs, those of u
    undo the size of (Jv), so elements of very different sizes count alike; inputs whose part in
    (Jᵀu)ᵀv is below 0.03 of the largest are checked again without the larger ones. The
    number of calls of `fn` depends on the number of outputs and inputs and on how many sizes there
    are among their elements, not on how many elements there are. Only when the two differ is the
    element looked for, by halving. Order k + 1 is the same check of Jᵀu as a function of the inputs
    and of u.

    Whatever the sizes of the other inputs and outputs, an error in the derivative of an element a
    of an output by an element b of an input is found with probability 1 at the default `rtol`, if
    it is more than √n times the largest of these three, n being the number of elements of the
    output:

    - 4e-6 of the derivative of a along b's array, of which those elements count that have as much
      part as b (0.03 of the largest) in the derivatives of the whole output;
    - 0.01 of it, if rounding in `fn` blurs the differences; if it blurs them by more than 0.001 of
      the derivative, there is an error that says so;
    - 1e-10 · abs(a) / max(1, abs(b)); in higher orders the a of the largest output counts for all,
      and where a is 0, 1e-14 times the largest element of its output. Below that the last digits
      hide it: a derivative as small as that is not proven.

    The differences are central, of seven points, with an error of h⁶. Their uncertainty is the
    distance to a formula with h⁴, and ten times the rounding that their fourth to sixth differences
    show. If it is too large, other steps are tried, from 2e-3 to 7e-16 of max(1, |x|) and of |x|.

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
            check = _Check(f"gradcheck, order {k}", case, rtol, atol, generator)
            check.every_pair()
            check.additive()
            if k < order:
                case = check.gradient(f"gradcheck, order {k + 1}")
    return True


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _first(fn: Callable[..., Any], inputs: Any) -> _Case:
    """Return the case of `fn` itself, after checking that differences can be taken of it."""
    check_function(fn, "gradcheck")
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
        [np.zeros(y.shape) for y in outputs],
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
    sizes: list[Array]  # of what the elements of each output are computed from, at least

    def at(self, flat: Array) -> list[Tensor]:
        """Return the outputs, all arguments' elements being taken from one vector."""
        parts = zip(_parted(flat, self.arrays), self.devices, strict=True)
        return self.function(*[Tensor(part, device=device) for part, device in parts])

    def recorded(self, flat: Array) -> tuple[list[Tensor], list[Tensor]]:
        """Return the arguments as leaves, and the outputs with their graph."""
        parts = zip(_parted(flat, self.arrays), self.devices, strict=True)
        places = [Tensor(part, device=device, requires_grad=True) for part, device in parts]
        return places, self.function(*_views(places))


class _Slopes(NamedTuple):
    """Differences of every element of the outputs along one step of the inputs."""

    step: Array  # of every element of the inputs
    reach: float  # the step as a part of the size of an element
    slope: Array  # the derivative along `step`
    doubt: Array  # how wrong `slope` may be; infinite where fn is not finite
    flat: Mask  # whether the last digit of what fn computes with explains all of `doubt`
    moved: Array  # by how much fn's values differ from the one in the middle


class _Check:
    """Derivatives of one order, by the graph and by differences."""

    def __init__(
        self, what: str, case: _Case, rtol: float, atol: float, rng: np.random.Generator
    ) -> None:
        self.what, self.case, self.rtol, self.atol, self.rng = what, case, rtol, atol, rng
        self.base = _joined(case.arrays)
        self.places, self.outputs = case.recorded(self.base)
        self.values = _flat(case.at(self.base))
        self.owner = np.repeat(np.arange(len(self.outputs)), [y.size for y in self.outputs])
        self.size = np.maximum(_joined(case.sizes), np.abs(self.values))
        tops = [np.abs(y.numpy()).max(initial=0) for y in self.outputs]
        self.around = np.maximum(self.size, np.array(tops, dtype=np.float64)[self.owner])
        nothing = self.values == 0
        self.rounded = np.where(nothing, self.around, self.size)  # what derivatives come from
        eps = [np.finfo(y.dtype).eps if y.dtype.kind == "f" else 0 for y in self.outputs]
        self.eps = np.array(eps, dtype=np.float64)[self.owner]
        self.scale = np.zeros(self.values.size)  # of the derivatives of each element

    def every_pair(self) -> None:
        """Raise unless every output's derivative by every input equals the differences."""
        floating = [j for j, y in enumerate(self.outputs) if y.dtype.kind == "f" and y.size]
        owner = np.repeat(range(len(self.case.arrays)), [a.size for a in self.case.arrays])
        for i in range(len(self.case.arrays)):
            todo = {(owner == i).tobytes(): floating}
            while todo:
                key, outputs = todo.popitem()
                columns = np.frombuffer(key, dtype=bool)
                slopes = self.differences(columns)
                for j in outputs if columns.any() else []:
                    left, _, hidden = self.unproven(self.owner == j, columns, slopes)
                    if left.any():
                        raise GradcheckError(self.explained(left, columns))
                    if hidden.any():
                        todo.setdefault(hidden.tobytes(), []).append(j)

    def unproven(
        self, rows: Mask, columns: Mask, slopes: Callable[[int], _Slopes]
    ) -> tuple[Mask, float, Mask]:
        """Return `left` of up to three steps: rounding looks like a slope once, not always."""
        left, worst, hidden = self.left(rows, columns, slopes)
        for _ in range(2):
            if left.any():
                left, worst, more = self.left(left, columns, self.differences(columns))
                hidden = hidden | more
        return left, worst, hidden

    def left(
        self, rows: Mask, columns: Mask, slopes: Callable[[int], _Slopes]
    ) -> tuple[Mask, float, Mask]:
        """Return the rows of the Jacobian whose elements in `columns` are not proven.

        With them the largest ratio of a distance to what was allowed, and the columns that much
        larger ones hid in the rows that are proven.
        """
        left, worst, shown = rows.copy(), 0.0, np.zeros(columns.size)
        seen: list[_Slopes] = []
        for last_resort in [False] * len(_REACHES) + [True]:
            if not last_resort:
                seen.append(slopes(len(seen)))
            small = np.abs([s.slope for s in seen])
            doubt = np.stack([s.doubt for s in seen])
            total = np.array([[np.abs(s.step).sum()] for s in seen])
            sharp = (small > 0) & (doubt <= np.maximum(self.rtol * small, self.atol * total))
            slope = (small > 0) & (doubt <= _BLURRED * small)
            supported = _supported(seen, sharp)
            if last_resort:
                sharp |= slope & ~supported.any(axis=0)
            nearby = np.stack([s.moved for s in seen]) / total
            flat = np.stack([s.flat for s in seen])
            flat |= (doubt + small) / total <= 64 * _EPS * nearby.max(axis=0)
            real = slope & (small > 64 * _EPS * self.around) | supported
            flat &= ~real.any(axis=0)
            bound = np.where(flat, doubt / total, np.inf)
            flat &= bound == bound.min(axis=0)
            if len(seen) == 1:
                flat &= seen[0].moved == 0
            for k, near in enumerate(seen):
                for steep, chosen in ((True, left & sharp[k]), (False, left & flat[k])):
                    if not chosen.any() or (steep and k + 1 < len(seen) and not last_resort):
                        continue
                    ratio, terms = self.compared(chosen, columns, near)
                    worst = max(worst, ratio)
                    if ratio > 1:
                        continue
                    left = left & ~chosen
                    if steep:
                        size = small[k, chosen] / near.reach
                        self.scale[chosen] = np.maximum(self.scale[chosen], size)
                        shown = np.maximum(shown, np.abs(terms) / np.abs(terms).max())
            if not left.any():
                break
        less = columns & (shown < _HIDDEN)
        return left, worst, less & bool(shown.any())

    def compared(self, rows: Mask, columns: Mask, near: _Slopes) -> tuple[float, Array]:
        """Compare uᵀ(Jv) from differences with (Jᵀu)ᵀv by the graph, for two u in some rows.

        Each row weighs as much as its own tolerance asks for, so that no other hides it. With one u
        the rows' terms have the same sign: what is wrong in all adds up. Return the distance as a
        part of what is allowed, and the graph's terms.
        """
        slack = self.atol * np.abs(near.step).sum()
        slope = near.slope[rows]
        tolerance = np.maximum(self.rtol * np.abs(slope) + near.doubt[rows] + slack, _LEAST)
        worst = 0.0
        alike = np.where(slope < 0, -1.0, 1.0)
        other = self.rng.choice([-1.0, 1.0], slope.size)
        other[0] = -alike[0]
        for signs in (alike, other):
            part = signs * self.rng.uniform(0.5, 1, slope.size) * (tolerance.min() / tolerance)
            weights = np.zeros(self.values.size)
            weights[rows] = part
            terms = np.where(columns, near.step * self.pull(weights), 0)
            apart, allowed = abs(part @ slope - terms.sum()), _total(part * tolerance)
            if not apart <= allowed:
                allowed += self.rounding(weights, columns, near)
            ratio = apart / allowed
            worst = max(worst, ratio if ratio == ratio else np.inf)
        return worst, terms

    def rounding(self, weights: Array, columns: Mask, near: _Slopes) -> float:
        """Return how far the graph's own (Jᵀu)ᵀv may be off, 0 if it is more than rounding."""
        sums = []
        with np.errstate(all="ignore"):
            for p in _POINTS:
                places, outputs = self.case.recorded(self.base + p * near.step)
                pulled = self.dense(_pull(outputs, places, _parted(weights, outputs)))
                sums.append(np.where(columns, near.step * pulled, 0).sum())
            noise = 10 * np.abs(_NOISE @ sums).max()
        return float(noise) if noise <= 1e-2 * abs(sums[len(sums) // 2]) else 0.0

    def differences(self, columns: Mask) -> Callable[[int], _Slopes]:
        """Return the differences along a random direction in some columns, for each reach."""
        signs = np.where(columns, _signed(self.rng, self.base.size), 0)
        size = np.abs(self.base)
        typical = np.concatenate(
            [np.full(a.size, np.abs(a).max(initial=0)) for a in self.case.arrays]
        )
        relative = np.where(size > 0, size, np.where(typical > 0, typical, 1))

        def slopes(k: int) -> _Slopes:
            least, reach = _REACHES[k]
            step = signs * (reach * np.maximum(relative, least))
            unit = 8 * np.spacing(np.maximum(size, np.abs(step)))
            step = np.copysign(np.ceil(np.abs(step) / unit) * unit, step)  # x ± 3 steps are exact
            with np.errstate(all="ignore"):
                values = np.stack([_flat(self.case.at(self.base + p * step)) for p in _POINTS if p])
                values = np.insert(values - self.values, len(_POINTS) // 2, 0, axis=0)
                slope = _SLOPE @ values
                noise = np.abs(_NOISE @ values).max(axis=0)
                moved = np.abs(values).max(axis=0)
                still = moved == 0
                ratio = (size[columns] / np.abs(step[columns])).max(initial=0)
                digit = self.eps * (np.abs(self.values) + moved + 4 * reach * self.rounded)
                doubt = np.abs(slope - _COARSER @ values) + 10 * noise + digit
                digit = self.eps * (self.around + moved * max(ratio, 1))
                flat = still | ((doubt <= 64 * digit) & (ratio * _EPS <= 1e-8))
            doubt = np.where(np.isfinite(doubt), doubt, np.inf)
            slope = np.where(np.isfinite(slope), slope, 0)
            moved = np.where(np.isfinite(moved), moved, 0)
            return _Slopes(step, reach, slope, doubt, flat, moved)

        return functools.cache(slopes)

    def pull(self, weights: Array) -> Array:
        """Return Jᵀu by the graph, on arrays, as one vector."""
        parts = _parted(weights, self.outputs)
        used = [j for j, u in enumerate(parts) if u.any()]
        return self.dense(
            _pull(
                [self.outputs[j] for j in used],
                self.places,
                [parts[j] for j in used],
                retain_graph=True,
            )
        )

    def dense(self, grads: Sequence[Any]) -> Array:
        """Return gradients as one vector, 0 where there is none."""
        pairs = zip(grads, self.case.arrays, strict=True)
        return _joined([np.zeros(a.shape) if g is None else g.numpy() for g, a in pairs])

    def cotangents(self) -> Array:
        """Return u for all outputs, each in the size that hides no other's part of Jᵀu."""
        sizes = np.where(self.scale > 0, self.scale, np.abs(self.values))
        sizes = np.where(sizes > 0, sizes, self.size)
        sizes = np.clip(np.where(sizes > 0, sizes, 1), 1e-100, 1e100)
        return np.asarray(self.rng.uniform(0.5, 1, sizes.size) / 2.0 ** np.rint(np.log2(sizes)))

    def additive(self) -> None:
        """Raise unless Jᵀu for all outputs together is the sum over the outputs."""
        cotangents = self.cotangents()
        each = [np.where(self.owner == j, cotangents, 0) for j in range(len(self.outputs))]
        parts = np.array([self.pull(u) for u in each if u.any()])
        if len(parts) > 1:
            self.equal(
                self.what,
                cotangents,
                parts.sum(axis=0),
                np.abs(parts).sum(axis=0),
                "with all outputs, {} as the sum over the outputs: a vjp must be linear in g",
            )

    def gradient(self, what: str) -> _Case:
        """Return Jᵀu as a function of the arguments and of u; the same as on arrays, or raise."""
        case, count = self.case, len(self.case.arrays)
        cotangents = self.cotangents()
        parts = _parted(cotangents, self.outputs)

        def function(*places: Tensor) -> list[Any]:
            leaves = [x if x.requires_grad else Tensor(x, requires_grad=True) for x in places]
            outputs = case.function(*_views(leaves[:count]))
            return _pull(outputs, leaves[:count], leaves[count:], create_graph=True)

        joint = case._replace(
            function=function,
            arrays=case.arrays + parts,
            devices=case.devices + [y.device for y in self.outputs],
        )
        recorded = joint.at(_joined(joint.arrays))
        self.equal(
            what,
            cotangents,
            self.dense(recorded),
            0,
            "when the vjps run on arrays, {} under create_graph=True: a vjp must do the same with "
            "both",
        )
        wanted = [i for i, g in enumerate(recorded) if g is not None]
        largest = np.abs(cotangents * self.values).max(initial=1)
        return joint._replace(
            function=lambda *places: [function(*places)[i] for i in wanted],
            names=case.names + [f"the cotangent of {name}" for name in case.outputs],
            outputs=[f"the gradient by {case.names[i]}" for i in wanted],
            sizes=[largest / np.maximum(np.abs(case.arrays[i]), 1) for i in wanted],
        )

    def equal(self, what: str, cotangents: Array, other: Array, size: Any, text: str) -> None:
        """Raise unless Jᵀu on arrays, a graph of its own, equals `other`."""
        case = self.case

        def pulled(x: Array, u: Array) -> Array:
            places, outputs = case.recorded(x)
            return self.dense(_pull(outputs, places, _parted(u, outputs)))

        def digits(x: Array) -> Array:
            return x * (1 + _EPS * self.rng.integers(-4, 5, x.size))

        found = pulled(self.base, cotangents)
        apart = np.abs(found - other)
        allowed = self.rtol * np.maximum(np.abs(found), size) + self.atol
        if not (apart <= allowed).all():
            for _ in range(4):  # the last digits of x and u show how the gradient is rounded
                near = pulled(digits(self.base), digits(cotangents))
                allowed = np.maximum(allowed, 16 * np.abs(near - found))
        wrong = ~(apart <= allowed)
        if wrong.any():
            k = int(np.argmax(np.where(wrong, np.nan_to_num(apart, nan=np.inf), -1)))
            place = _place(k, case.arrays, case.names)
            said = text.format(f"{other[k]:.8g}")
            raise GradcheckError(f"{what}: the gradient by {place} is {found[k]:.8g} {said}")

    # -- what is wrong -----------------------------------------------------------------------------

    def explained(self, rows: Mask, columns: Mask) -> str:
        """Return the error for one element that is not proven, found by halving."""

        def badness(rows: Mask, columns: Mask) -> tuple[bool, float]:
            left, worst, _ = self.unproven(rows, columns, self.differences(columns))
            return bool(left.any()), min(worst, 1000)  # of several that are far off, the last

        column, columns = _worst(columns, lambda part: badness(rows, part))
        row, rows = _worst(rows, lambda part: badness(part, columns))
        slopes = self.differences(columns)
        every = [slopes(k) for k in range(len(_REACHES))]
        sharp = np.array([self.rtol * np.abs(s.slope) >= s.doubt for s in every])
        sharp &= np.array([s.moved > 0 for s in every])
        supported = _supported(every, sharp)[:, row]
        if supported.any():
            best = every[int(np.argmax(supported))]
        else:
            best = next((s for s in every if s.moved[row] > 0 and s.doubt[row] < np.inf), every[0])
        step = best.step[column]
        weight = float(self.rng.uniform(0.5, 1))
        exact = self.pull(np.where(rows, np.float64(weight), 0))[column] / weight
        number = best.slope[row] / step
        doubt = best.doubt[row] / abs(step)
        apart = abs(exact - number)
        allowed = self.rtol * abs(number) + doubt + self.atol
        where = (
            f"the derivative of {_place(row, self.outputs, self.case.outputs)} by "
            f"{_place(column, self.case.arrays, self.case.names)} (= {self.base[column]:.6g}) is "
            f"{exact:.8g} by the graph, {number:.8g} by differences"
        )
        cause = ""
        unclear = best.doubt[row] > _BLURRED * abs(best.slope[row]) or apart < 0.1 * abs(exact)
        if unclear and not best.flat[row] and not supported.any():
            cause = (
                "; the differences do not settle: is fn smooth near there? If only its values are "
                "rounded, the differences cannot decide: scale the inputs, take large terms out "
                "of fn, or allow for the error (atol=)"
            )
        elif apart <= allowed:
            cause = (
                "; but not in sums of several: is the vjp linear in g, is fn more than rounding?"
            )
        return f"{self.what}: {where}: {apart:.2g} apart, {allowed:.1g} allowed{cause}"


def _signed(rng: np.random.Generator, count: int) -> Array:
    """Return numbers of sizes between a half and 1 and of any sign."""
    return rng.uniform(0.5, 1, count) * rng.choice([-1.0, 1.0], count)


def _total(parts: Array) -> float:
    """Return how far a sum may be off whose terms are off by `parts`, in either direction."""
    return float(min(np.abs(parts).sum(), 5 * np.sqrt(np.square(parts).sum())))


def _supported(seen: Sequence[_Slopes], sharp: Mask) -> Mask:
    """Return where a slope of little doubt is also that of a step of another length.

    Rounded values can be on a straight line by chance, but not on the same one for two steps.
    """
    found = np.zeros_like(sharp)
    for k, near in enumerate(seen):
        for m, other in enumerate(seen):
            if k != m and _REACHES[k][0] == _REACHES[m][0]:
                first, second = near.slope / near.reach, other.slope / other.reach
                allowed = near.doubt / near.reach + other.doubt / other.reach
                allowed += 1e-6 * np.abs(first)  # the steps are rounded
                clear = other.doubt <= 1e-5 * np.abs(other.slope)
                found[k] |= clear & (np.abs(first - second) <= allowed)
    return found & sharp


def _joined(arrays: Sequence[Array]) -> Array:
    """Return the elements of all as one vector."""
    return np.concatenate([np.zeros(0), *[a.ravel() for a in arrays]])


def _parted(flat: Array, like: Sequence[Any]) -> list[Array]:
    """Return a vector's elements in the shapes of `like`."""
    parts = np.split(flat, np.cumsum([x.size for x in like])[:-1]) if like else []
    return [part.reshape(x.shape) for part, x in zip(parts, like, strict=True)]


def _flat(outputs: Sequence[Tensor]) -> Array:
    return _joined([y.numpy().astype(np.float64) for y in outputs])


def _views(places: Sequence[Tensor]) -> list[Tensor]:
    """Return Tensors that are computed, no leaves, so that a function may say ``x *= 2``."""
    return [reshape(x, shape=None) for x in places]


def _pull(
    outputs: Sequence[Tensor], places: Sequence[Tensor], cotangents: Sequence[Any], **keywords: Any
) -> list[Any]:
    """Return Jᵀu; an output without a graph has no part in it: differences tell if it should."""
    pairs = [(y, u) for y, u in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not pairs:
        return [None] * len(places)
    ends, starts = zip(*pairs, strict=True)
    return list(grad(ends, places, starts, allow_unused=True, **keywords))


def _worst(mask: Mask, badness: Callable[[Mask], Any]) -> tuple[int, Mask]:
    """Return an element that is wrong, and its mask: the worse half, again and again."""

    def only(places: Any) -> Mask:
        part = np.zeros(mask.size, dtype=bool)
        part[places] = True
        return part

    places = np.flatnonzero(mask)
    while len(places) > 1:
        places = max(np.array_split(places, 2)[::-1], key=lambda half: badness(only(half)))
    return int(places[0]), only(places)


def _place(place: int, arrays: Sequence[Any], names: Sequence[str]) -> str:
    """Say which element of which array is the one of that number in the joint vector."""
    for array, name in zip(arrays, names, strict=True):
        if place < array.size:
            index = [int(n) for n in np.unravel_index(place, array.shape)]
            return f"{name} at {index}" if index else name
        place -= array.size
    raise IndexError(place)
