"""The derivatives of one order, by the graph and by finite differences.

**Comparison.** For a random step s of some inputs (columns of J) and random weights u of some
elements of an output (rows), two numbers must be equal::

    uᵀ D₆       from finite differences along s
    (Jᵀu)ᵀ s    from one backward pass

One comparison covers all rows and columns that it includes, so the number of calls of the function
depends on the number of inputs and outputs, not on their sizes.

**Tolerance.** Row i has the tolerance τᵢ = rtol |D₆ᵢ| + uncertainty of D₆ᵢ + atol Σ|s|. Its weight
is |uᵢ| = ω min(τ) / τᵢ with ω from U(1/2, 1): every row contributes the same tolerance, so that an
inaccurate row does not hide an error in an accurate one. The two numbers may differ by the smaller
of Σ|uᵢ| τᵢ and 5 √Σ(uᵢ τᵢ)². If they differ by more, the rounding of (Jᵀu)ᵀs itself, measured by
`noise`, is added.

**Rows.** Every row needs one step whose difference decides it (`FiniteDifferences.usable`). Rows
that no step decides, or that differ, are compared again along two more random directions. If they
fail in all three, the check fails.

**Columns.** A column whose terms sⱼ (Jᵀu)ⱼ are all below 0.03 of the largest is hidden by the
larger ones. Such columns are checked again without the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engine.tensor import Tensor
from ..errors import GradcheckError
from .finite_differences import EPS, POINTS, STEPS, Difference, FiniteDifferences, noise
from .flat_function import (
    Array,
    FlatFunction,
    Mask,
    computed,
    element_name,
    flatten,
    flatten_gradients,
    unflatten,
    vjp,
)

_HIDDEN = 0.03  # a column with a smaller share of the largest term is checked alone
_LEAST_TOLERANCE = 1e-150  # where f is 0 at all points


class JacobianCheck:
    """The check of one Jacobian: that of `function` at its inputs.

    Attributes
    ----------
    differences : FiniteDifferences
        Of the function.
    owner : ndarray of int
        For each row, the number of its output.
    """

    def __init__(
        self, what: str, function: FlatFunction, rtol: float, atol: float, rng: np.random.Generator
    ) -> None:
        self.what, self.function, self.rtol, self.atol, self.rng = what, function, rtol, atol, rng
        self.leaves, self.outputs = function.record(flatten(function.inputs))
        self.differences = FiniteDifferences(function, self.outputs, rng)
        self.owner = np.repeat(np.arange(len(self.outputs)), [y.size for y in self.outputs])
        self.slopes = np.zeros(self.owner.size)  # the largest slope seen in each row

    # -- against finite differences ----------------------------------------------------------------

    def first_failure(self) -> tuple[Mask, Mask] | None:
        """Compare each output with each input; return the rows and columns of a failure, if any."""
        inputs = self.function.inputs
        floating = [j for j, y in enumerate(self.outputs) if y.dtype.kind == "f" and y.size]
        owner = np.repeat(range(len(inputs)), [a.size for a in inputs])
        for i in range(len(inputs)):
            todo = {(owner == i).tobytes(): floating}  # columns -> outputs to compare them with
            while todo:
                key, outputs = todo.popitem()
                columns = np.frombuffer(key, dtype=bool)
                along = self.differences.along(columns)
                for j in outputs if columns.any() else []:
                    failed, _, hidden = self.failed_rows(self.owner == j, columns, along)
                    if failed.any():
                        return failed, columns
                    if hidden.any():
                        todo.setdefault(hidden.tobytes(), []).append(j)
        return None

    def failed_rows(
        self, rows: Mask, columns: Mask, along: Callable[[int], Difference]
    ) -> tuple[Mask, float, Mask]:
        """Return the rows that fail along three directions, the worst ratio and hidden columns.

        Rounding may look like a slope along one direction, but not along three.
        """
        failed, worst, hidden = self._failed_along(rows, columns, along)
        for _ in range(2):
            if failed.any():
                along = self.differences.along(columns)
                failed, worst, more = self._failed_along(failed, columns, along)
                hidden = hidden | more
        return failed, worst, hidden

    def _failed_along(
        self, rows: Mask, columns: Mask, along: Callable[[int], Difference]
    ) -> tuple[Mask, float, Mask]:
        """Return the same for one direction: steps are tried until every row has passed with one.

        The ratio is the largest of a difference to its tolerance.
        """
        failed, worst, share = rows.copy(), 0.0, np.zeros(columns.size)
        seen: list[Difference] = []
        for last_resort in [False] * len(STEPS) + [True]:
            if not last_resort:
                seen.append(along(len(seen)))
            precise, constant = self.differences.usable(seen, self.rtol, self.atol, last_resort)
            for k, difference in enumerate(seen):
                tried = k + 1 < len(seen) and not last_resort
                sloped, level = failed & precise[k], failed & constant[k]
                for chosen in ([] if tried else [sloped]) + [level]:
                    if not chosen.any():
                        continue
                    ratio, terms = self._compare(chosen, columns, difference)
                    worst = max(worst, ratio)
                    if ratio > 1:
                        continue
                    failed = failed & ~chosen
                    if chosen is sloped:
                        slope = np.abs(difference.slope[chosen]) / difference.relative
                        self.slopes[chosen] = np.maximum(self.slopes[chosen], slope)
                        share = np.maximum(share, np.abs(terms) / np.abs(terms).max())
            if not failed.any():
                break
        hidden = columns & (share < _HIDDEN)
        return failed, worst, hidden & bool(share.any())

    def _compare(self, rows: Mask, columns: Mask, difference: Difference) -> tuple[float, Array]:
        """Compare uᵀD₆ with (Jᵀu)ᵀs for two u; return the ratio to the tolerance, and the terms.

        With the first u all terms of uᵀD₆ have the same sign, so that an error in every row adds
        up. With the second the signs are random.
        """
        step, slope = difference.step, difference.slope[rows]
        tolerance = self.rtol * np.abs(slope) + difference.uncertainty[rows]
        tolerance = np.maximum(tolerance + self.atol * np.abs(step).sum(), _LEAST_TOLERANCE)
        worst = 0.0
        same_sign = np.where(slope < 0, -1.0, 1.0)
        random_sign = self.rng.choice([-1.0, 1.0], slope.size)
        random_sign[0] = -same_sign[0]
        for signs in (same_sign, random_sign):
            u = signs * self.rng.uniform(0.5, 1, slope.size) * (tolerance.min() / tolerance)
            cotangents = np.zeros(self.owner.size)
            cotangents[rows] = u
            terms = np.where(columns, step * self.vjp(cotangents), 0)
            error, allowed = abs(u @ slope - terms.sum()), _tolerance_of_sum(u * tolerance)
            if not error <= allowed:
                allowed += self._rounding(cotangents, columns, step)
            ratio = error / allowed
            worst = max(worst, ratio if ratio == ratio else np.inf)
        return worst, terms

    def _rounding(self, cotangents: Array, columns: Mask, step: Array) -> float:
        """Return the error of (Jᵀu)ᵀs by rounding, 0 if it varies by more than rounding."""
        sums = []
        with np.errstate(all="ignore"):
            for p in POINTS:
                leaves, outputs = self.function.record(self.differences.point + p * step)
                gradient = self._flat(vjp(outputs, leaves, unflatten(cotangents, outputs)))
                sums.append(np.where(columns, step * gradient, 0).sum())
            rounding = 10 * float(noise(np.array(sums)))
        return rounding if rounding <= 1e-2 * abs(sums[len(sums) // 2]) else 0.0

    # -- the graph against itself ------------------------------------------------------------------

    def check_additivity(self) -> None:
        """Raise unless Jᵀu for all outputs together is the sum over the outputs."""
        cotangents = self._cotangents()
        each = [np.where(self.owner == j, cotangents, 0) for j in range(len(self.outputs))]
        parts = np.array([self.vjp(u) for u in each if u.any()])
        if len(parts) > 1:
            self._check_equal(
                self.what,
                cotangents,
                parts.sum(axis=0),
                np.abs(parts).sum(axis=0),
                "with all outputs, {} as the sum over the outputs: a vjp must be linear in g",
            )

    def gradient(self, what: str) -> FlatFunction:
        """Return Jᵀu as a function of the inputs and of u, whose Jacobian is the next order.

        Raise if its values under ``create_graph=True`` differ from those on arrays.
        """
        function, count = self.function, len(self.function.inputs)
        cotangents = self._cotangents()
        parts = unflatten(cotangents, self.outputs)

        def gradients(*inputs: Tensor) -> list[Any]:
            leaves = [x if x.requires_grad else Tensor(x, requires_grad=True) for x in inputs]
            outputs = function.function(*computed(leaves[:count]))
            return vjp(outputs, leaves[:count], leaves[count:], create_graph=True)

        joint = function._replace(
            function=gradients,
            inputs=function.inputs + parts,
            devices=function.devices + [y.device for y in self.outputs],
        )
        recorded = joint.evaluate(flatten(joint.inputs))
        self._check_equal(
            what,
            cotangents,
            self._flat(recorded),
            0,
            "when the vjps run on arrays, {} under create_graph=True: a vjp must compute the same "
            "with both",
        )
        kept = [i for i, g in enumerate(recorded) if g is not None]
        largest = np.abs(cotangents * self.differences.values).max(initial=1)
        names = [f"the gradient with respect to {name}" for name in function.input_names]
        return joint._replace(
            function=lambda *inputs: [gradients(*inputs)[i] for i in kept],
            input_names=[
                *function.input_names,
                *(f"the cotangent of {name}" for name in function.output_names),
            ],
            output_names=[names[i] for i in kept],
            magnitudes=[largest / np.maximum(np.abs(function.inputs[i]), 1) for i in kept],
        )

    def _check_equal(
        self, what: str, cotangents: Array, other: Array, scale: Any, message: str
    ) -> None:
        """Raise unless Jᵀu on arrays, from a graph of its own, equals `other`."""
        function = self.function

        def gradient(x: Array, u: Array) -> Array:
            leaves, outputs = function.record(x)
            return self._flat(vjp(outputs, leaves, unflatten(u, outputs)))

        def perturbed(x: Array) -> Array:
            return x * (1 + EPS * self.rng.integers(-4, 5, x.size))

        point = self.differences.point
        found = gradient(point, cotangents)
        error = np.abs(found - other)
        allowed = self.rtol * np.maximum(np.abs(found), scale) + self.atol
        if not (error <= allowed).all():
            for _ in range(4):  # changes in the last digits of x and u show how Jᵀu is rounded
                near = gradient(perturbed(point), perturbed(cotangents))
                allowed = np.maximum(allowed, 16 * np.abs(near - found))
        wrong = ~(error <= allowed)
        if wrong.any():
            k = int(np.argmax(np.where(wrong, np.nan_to_num(error, nan=np.inf), -1)))
            name = element_name(k, function.inputs, function.input_names)
            raise GradcheckError(
                f"{what}: the gradient with respect to {name} is {found[k]:.8g} "
                + message.format(f"{other[k]:.8g}")
            )

    # -- Jᵀu ---------------------------------------------------------------------------------------

    def vjp(self, cotangents: Array) -> Array:
        """Return Jᵀu by the graph, on arrays, as one vector."""
        parts = unflatten(cotangents, self.outputs)
        used = [j for j, u in enumerate(parts) if u.any()]
        outputs, weights = [self.outputs[j] for j in used], [parts[j] for j in used]
        return self._flat(vjp(outputs, self.leaves, weights, retain_graph=True))

    def _flat(self, grads: Sequence[Tensor | None]) -> Array:
        return flatten_gradients(grads, self.function.inputs)

    def _cotangents(self) -> Array:
        """Return u for all outputs: powers of two that make the rows of J about equally large."""
        values, magnitude = np.abs(self.differences.values), self.differences.magnitude
        sizes = np.where(self.slopes > 0, self.slopes, values)
        sizes = np.where(sizes > 0, sizes, magnitude)
        sizes = np.clip(np.where(sizes > 0, sizes, 1), 1e-100, 1e100)
        return np.asarray(self.rng.uniform(0.5, 1, sizes.size) / 2.0 ** np.rint(np.log2(sizes)))


def _tolerance_of_sum(tolerances: Array) -> float:
    """Return the tolerance of a sum of terms with these tolerances, whose errors have any sign."""
    return float(min(np.abs(tolerances).sum(), 5 * np.sqrt(np.square(tolerances).sum())))
