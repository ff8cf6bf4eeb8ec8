"""Directional derivatives by central finite differences, each with an estimate of its error.

**Formulas.** Along a step s, f is evaluated at seven points, fₚ = f(x + p s) for p = -3 ... 3::

    D₆ = (-f₋₃ + 9 f₋₂ - 45 f₋₁ + 45 f₁ - 9 f₂ + f₃) / 60 = J s + O(s⁷)
    D₄ = (f₋₂ - 8 f₋₁ + 8 f₁ - f₂) / 12                   = J s + O(s⁵)

(Fornberg 1988, "Generation of finite difference formulas on arbitrarily spaced grids", Math. Comp.
51, table 1). D₆ is the result.

**Uncertainty** of D₆ = ``|D₆ - D₄| + 10 ν + rounding``:

- |D₆ - D₄| bounds the truncation error.
- ν is the noise in the values of f, by Hamming's method (Moré and Wild 2011, "Estimating
  computational noise", SIAM J. Sci. Comput. 33): the k-th differences of noise of standard
  deviation σ have the variance σ² (2k)! / k!², so each k-th difference over the root of
  (2k)! / k!² estimates σ. ν is the largest of the estimates for k = 4, 5, 6.
- rounding is one unit in the last place of the values of f, and of the terms that they are computed
  from, as far as the step changes them.

**Steps.** A long step has a large truncation error, a short one a large rounding error, and the
best length differs from element to element. `STEPS` are tried in their order until the uncertainty
is within the tolerance (`FiniteDifferences.usable`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..engine.tensor import Tensor
from .flat_function import Array, FlatFunction, Mask, flatten, flatten_outputs

POINTS = range(-3, 4)
_D6 = np.array([-1, 9, -45, 0, 45, -9, 1]) / 60
_D4 = np.array([0, 1, -8, 0, 8, -1, 0]) / 12
# One row for each k-th difference of consecutive values: its weights over the root of (2k)! / k!².
_NOISE = np.array(
    [
        np.pad(np.poly([1] * k), (n, 6 - k - n)) / np.sqrt(math.comb(2 * k, k))
        for k in (4, 5, 6)
        for n in range(7 - k)
    ]
)
# (least, relative): the step of an element x is relative · max(least, |x|). The ratios of the
# lengths are not powers of two, so that rounding differs between any two of them.
STEPS = [(1.0, 2.0**-9), (0.0, 2.0**-9), (1.0, 1.3e-6), (0.0, 1.3e-6)]
STEPS += [(1.0, 1.1e-9), (1.0, 0.9e-12), (1.0, 0.7e-15)]
EPS = float(np.finfo(np.float64).eps)
BLURRED = 1e-3  # the largest relative uncertainty that is accepted as a last resort


class Difference(NamedTuple):
    """Finite differences of every element of the outputs along one step of the inputs."""

    step: Array  # s, of every element of the inputs
    relative: float  # the length of s relative to the inputs
    slope: Array  # D₆; 0 where f is not finite
    uncertainty: Array  # of D₆; infinite where f is not finite
    constant: Mask  # where rounding explains all of D₆'s uncertainty
    change: Array  # the largest |fₚ - f₀|


class FiniteDifferences:
    """Finite differences of a function at its point, along random directions.

    Attributes
    ----------
    point, values : ndarray
        x and f(x).
    magnitude : ndarray
        For each element of f(x), the size of the terms that it is computed from, at least.
    largest : ndarray
        The same, and at least the largest absolute value in the same output.
    """

    def __init__(
        self, function: FlatFunction, outputs: Sequence[Tensor], rng: np.random.Generator
    ) -> None:
        self.function, self.rng = function, rng
        self.point = flatten(function.inputs)
        self.values = flatten_outputs(function.evaluate(self.point))
        self.magnitude = np.maximum(flatten(function.magnitudes), np.abs(self.values))
        sizes = [y.size for y in outputs]
        maxima = [np.abs(y.numpy()).max(initial=0) for y in outputs]
        self.largest = np.maximum(
            self.magnitude, np.repeat(np.array(maxima, dtype=np.float64), sizes)
        )
        self._terms = np.where(self.values == 0, self.largest, self.magnitude)
        eps = [np.finfo(y.dtype).eps if y.dtype.kind == "f" else 0 for y in outputs]
        self._eps = np.repeat(np.array(eps, dtype=np.float64), sizes)

    def along(self, columns: Mask) -> Callable[[int], Difference]:
        """Draw a direction in some elements of the inputs; return the difference of each step."""
        count, size = self.point.size, np.abs(self.point)
        direction = self.rng.uniform(0.5, 1, count) * self.rng.choice([-1.0, 1.0], count)
        direction = np.where(columns, direction, 0)
        typical = np.concatenate(
            [np.full(a.size, np.abs(a).max(initial=0)) for a in self.function.inputs]
        )
        scale = np.where(size > 0, size, np.where(typical > 0, typical, 1))

        def difference(k: int) -> Difference:
            least, relative = STEPS[k]
            step = direction * (relative * np.maximum(scale, least))
            unit = 8 * np.spacing(np.maximum(size, np.abs(step)))
            step = np.copysign(np.ceil(np.abs(step) / unit) * unit, step)  # x ± 3 s are exact
            return self._difference(step, relative, columns)

        return functools.cache(difference)

    def _difference(self, step: Array, relative: float, columns: Mask) -> Difference:
        with np.errstate(all="ignore"):
            values = np.stack([self._values_at(p * step) for p in POINTS if p]) - self.values
            values = np.insert(values, len(POINTS) // 2, 0, axis=0)  # fₚ - f₀
            slope = _D6 @ values
            change = np.abs(values).max(axis=0)
            rounding = self._eps * (np.abs(self.values) + change + 4 * relative * self._terms)
            uncertainty = np.abs(slope - _D4 @ values) + 10 * noise(values) + rounding
            # The rounding of x, as a part of the step, is a part of the change of f.
            ratio = (np.abs(self.point[columns]) / np.abs(step[columns])).max(initial=0)
            rounding = self._eps * (self.largest + change * max(ratio, 1))
            constant = (change == 0) | ((uncertainty <= 64 * rounding) & (ratio * EPS <= 1e-8))
        return Difference(
            step,
            relative,
            np.where(np.isfinite(slope), slope, 0),
            np.where(np.isfinite(uncertainty), uncertainty, np.inf),
            constant,
            np.where(np.isfinite(change), change, 0),
        )

    def _values_at(self, offset: Array) -> Array:
        return flatten_outputs(self.function.evaluate(self.point + offset))

    def usable(
        self, seen: Sequence[Difference], rtol: float, atol: float, last_resort: bool
    ) -> tuple[Mask, Mask]:
        """Return which differences decide, for each step in `seen` and each row.

        Returns
        -------
        precise : ndarray of bool, shape (steps, rows)
            Where the uncertainty is within the tolerance; as a last resort also where it is below
            `BLURRED` times the slope, in rows that no step confirms (`confirmed`).
        constant : ndarray of bool, shape (steps, rows)
            Where rounding explains all of the difference: the derivative is 0 within the
            uncertainty. Only the step with the smallest bound, and only in rows in which no step
            shows a slope. If one step has been seen, f must not have changed at all.
        """
        slope = np.abs([d.slope for d in seen])
        uncertainty = np.stack([d.uncertainty for d in seen])
        length = np.array([[np.abs(d.step).sum()] for d in seen])
        change = np.stack([d.change for d in seen]) / length
        precise = (slope > 0) & (uncertainty <= np.maximum(rtol * slope, atol * length))
        visible = (slope > 0) & (uncertainty <= BLURRED * slope)
        agreed = confirmed(seen, precise)
        if last_resort:
            precise |= visible & ~agreed.any(axis=0)
        constant = np.stack([d.constant for d in seen])
        constant |= (uncertainty + slope) / length <= 64 * EPS * change.max(axis=0)
        real = visible & (slope > 64 * EPS * self.largest) | agreed
        constant &= ~real.any(axis=0)
        bound = np.where(constant, uncertainty / length, np.inf)
        constant &= bound == bound.min(axis=0)
        if len(seen) == 1:
            constant &= seen[0].change == 0
        return precise, constant


def noise(values: Array) -> Array:
    """Return ν, the rounding noise of values at the seven points (the first axis)."""
    return np.asarray(np.abs(_NOISE @ values).max(axis=0))


def confirmed(seen: Sequence[Difference], precise: Mask) -> Mask:
    """Return where a precise slope agrees with that of a step of another length.

    Rounded values can be on a straight line by chance, but not on the same line for two lengths.
    """
    found = np.zeros_like(precise)
    for k, one in enumerate(seen):
        for m, other in enumerate(seen):
            if k != m and STEPS[k][0] == STEPS[m][0]:  # steps of the same direction
                first, second = one.slope / one.relative, other.slope / other.relative
                tolerance = one.uncertainty / one.relative + other.uncertainty / other.relative
                tolerance += 1e-6 * np.abs(first)  # the steps are rounded
                clear = other.uncertainty <= 1e-5 * np.abs(other.slope)
                found[k] |= clear & (np.abs(first - second) <= tolerance)
    return found & precise
