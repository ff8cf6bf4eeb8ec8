"""The message for a failed gradient check: one wrong element of the Jacobian, with both values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .finite_differences import BLURRED, STEPS, confirmed
from .flat_function import Mask, element_name
from .jacobian_check import JacobianCheck


def failure_report(check: JacobianCheck, rows: Mask, columns: Mask) -> str:
    """Return the message about one wrong element among some rows and columns.

    Parameters
    ----------
    check : JacobianCheck
        The check that failed.
    rows, columns : ndarray of bool
        Where it failed (`JacobianCheck.first_failure`).

    Returns
    -------
    str
        Names the element, its derivative by the graph and by finite differences, and the tolerance.
    """

    def badness(rows: Mask, columns: Mask) -> tuple[bool, float]:
        along = check.differences.along(columns)
        failed, ratio, _ = check.failed_rows(rows, columns, along)
        return bool(failed.any()), min(ratio, 1000)  # among very wrong halves, prefer the last

    column, columns = _bisect(columns, lambda part: badness(rows, part))
    row, rows = _bisect(rows, lambda part: badness(part, columns))
    along = check.differences.along(columns)
    seen = [along(k) for k in range(len(STEPS))]
    precise = np.array([check.rtol * np.abs(d.slope) >= d.uncertainty for d in seen])
    precise &= np.array([d.change > 0 for d in seen])
    agreed = confirmed(seen, precise)[:, row]
    changed = (d for d in seen if d.change[row] > 0 and d.uncertainty[row] < np.inf)
    best = seen[int(np.argmax(agreed))] if agreed.any() else next(changed, seen[0])
    weight = float(check.rng.uniform(0.5, 1))
    exact = check.vjp(np.where(rows, np.float64(weight), 0))[column] / weight
    slope, step = best.slope[row], best.step[column]
    estimate = slope / step
    error = abs(exact - estimate)
    tolerance = check.rtol * abs(estimate) + best.uncertainty[row] / abs(step) + check.atol
    cause = ""
    unclear = best.uncertainty[row] > BLURRED * abs(slope) or error < 0.1 * abs(exact)
    if unclear and not best.constant[row] and not agreed.any():
        cause = (
            "; the finite differences do not settle: is fn smooth near there? If only its values "
            "are rounded, the differences cannot decide: scale the inputs, take large terms out of "
            "fn, or allow for the error (atol=)"
        )
    elif error <= tolerance:
        cause = (
            "; but sums of several elements differ: is the vjp linear in g, are the values of fn "
            "more than rounding?"
        )
    function = check.function
    output = element_name(row, check.outputs, function.output_names)
    name = element_name(column, function.inputs, function.input_names)
    return (
        f"{check.what}: the derivative of {output} with respect to {name} "
        f"(= {check.differences.point[column]:.6g}) is {exact:.8g} by the graph, {estimate:.8g} by "
        f"finite differences: difference {error:.2g}, tolerance {tolerance:.1g}{cause}"
    )


def _bisect(mask: Mask, badness: Callable[[Mask], Any]) -> tuple[int, Mask]:
    """Return one wrong element and its mask: keep the worse half until one element is left."""

    def only(numbers: Any) -> Mask:
        part = np.zeros(mask.size, dtype=bool)
        part[numbers] = True
        return part

    numbers = np.flatnonzero(mask)
    while len(numbers) > 1:
        numbers = max(np.array_split(numbers, 2)[::-1], key=lambda half: badness(only(half)))
    return int(numbers[0]), only(numbers)
