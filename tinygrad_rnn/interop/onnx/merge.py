"""Runs on inputs of several sizes become one trace, in which sizes are symbols.

The network is ordinary Python code, which computes with the lengths of axes as numbers. A number in
a trace that differs between the runs has to be a polynomial of the sizes, such as T · B or T - 1,
linear in each of them. Runs with two values of each size determine its coefficients, and a further
run tests it. Other differences (a loop over time in Python, values that were read) have no place in
a graph.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .trace import Body, Call, Ref, Refused, Tracer, Value

# For the n-th size: two values that determine the coefficients, and one that tests them. None of
# them is 1, which broadcasts, and the sums and products are distinct.
LENGTHS = [(11, 13, 17), (3, 5, 7), (19, 23, 29), (2, 4, 9)]
LOOP_CURE = (
    "a loop over time in Python has no graph: put the step into a tinygrad_rnn.nn.Cell and use "
    "nn.Recurrent, or call tinygrad_rnn.scan; or give the size None in axes="
)
CONSTANT_CURE = (
    "compute it from the inputs by operations of tinygrad_rnn, or give the size None in axes="
)


class Size(NamedTuple):
    """A number that depends on sizes: the sum of products of symbols with coefficients."""

    terms: tuple[tuple[tuple[str, ...], int], ...]

    def at(self, sizes: Mapping[str, int]) -> int:
        """Return the number for some sizes."""
        return sum(k * math.prod(sizes[name] for name in names) for names, k in self.terms)


class Unknown(NamedTuple):
    """A number that differs from run to run, and not as a polynomial of the sizes.

    It is refused where a node needs it. The result of ``x[::2]`` has such a length, which no node
    needs.
    """

    numbers: tuple[Any, ...]
    title: str
    line: str
    runs: tuple[str, ...]

    def refuse(self) -> Any:
        """Raise."""
        pairs = [f"{n!r:.60} with {r}" for n, r in zip(self.numbers, self.runs, strict=True)]
        raise Refused(
            f"{self.title} takes {pairs[0]}, {pairs[-1]}",
            "only sums of products of the sizes can be exported; give the size None in axes=",
            self.line,
        )


class Varying(NamedTuple):
    """A constant array whose lengths depend on sizes.

    Attributes
    ----------
    base : array
        The array with length 1 on the axes that vary, where its elements are equal; or, for a
        range, None.
    shape : tuple of int and Size
        Its shape.
    axis, start, step : int, Size, int
        Of a range: the axis along which it counts.
    dtype : dtype
    """

    base: Any
    shape: tuple[Any, ...]
    axis: int
    start: Any
    step: int
    dtype: np.dtype[Any]


class Real(NamedTuple):
    """A floating number that depends on sizes: as `Size`, with any coefficients, or its inverse."""

    terms: tuple[tuple[tuple[str, ...], float], ...]
    inverse: bool


class Merged(NamedTuple):
    """One trace for all sizes. Shapes and options have a `Size` where the runs differ."""

    values: list[Value]
    calls: list[Call]
    results: Any
    constants: dict[int, Any]  # the arrays of values that are the same in all runs


def assignments(symbols: Sequence[str]) -> list[dict[str, int]]:
    """Return the sizes of each run."""
    if len(symbols) > len(LENGTHS):
        raise Refused(
            f"has {len(symbols)} sizes that vary, {', '.join(symbols)}",
            f"at most {len(LENGTHS)} are possible: give the others None in axes=",
            "",
        )
    pairs = [LENGTHS[i][:2] for i in range(len(symbols))]
    runs = [dict(zip(symbols, lengths, strict=True)) for lengths in itertools.product(*pairs)]
    return [*runs, {name: LENGTHS[i][2] for i, name in enumerate(symbols)}]


class Merger:
    """Compares what several runs recorded.

    Parameters
    ----------
    runs : list of dict
        The sizes of each run.
    """

    def __init__(self, runs: Sequence[Mapping[str, int]]) -> None:
        self.runs = runs
        symbols = list(runs[0])
        self.monomials = [
            names for n in range(len(symbols) + 1) for names in itertools.combinations(symbols, n)
        ]
        table = [[math.prod(run[s] for s in names) for names in self.monomials] for run in runs]
        self.inverse = np.linalg.inv(np.array(table[: len(self.monomials)], float))

    def traces(self, tracers: Sequence[Tracer], results: Sequence[Any]) -> Merged:
        """Return one trace for those of all runs, with the results of the network."""
        first, calls = tracers[0], []
        for position, call in enumerate(first.calls):
            found = [t.calls[position] for t in tracers if position < len(t.calls)]
            alike = all((c.name, c.block) == (call.name, call.block) for c in found)
            if len(found) < len(tracers) or not alike:
                self._refuse(tracers)
            line = call.line
            calls.append(
                call._replace(
                    inputs=tuple(self.merge([c.inputs for c in found], call.title, line)),
                    options=self.merge([c.options for c in found], call.title, line),
                )
            )
        if any(len(t.calls) != len(calls) for t in tracers):
            self._refuse(tracers)
        values = [
            one[0]._replace(shape=self.merge([v.shape for v in one], "an operation", ""))
            for one in zip(*[t.values for t in tracers], strict=True)
        ]
        constants = {}
        for number, value in enumerate(values):
            if value.constant and all(isinstance(n, int) for n in value.shape):
                arrays = [t.arrays[number] for t in tracers]
                if all(_equal(a, arrays[0]) for a in arrays):
                    constants[number] = arrays[0]
        return Merged(values, calls, self.merge(list(results), "the result", ""), constants)

    def _refuse(self, tracers: Sequence[Tracer]) -> None:
        counts = [len(t.calls) for t in tracers]
        low, high = int(np.argmin(counts)), int(np.argmax(counts))
        if counts[low] == counts[high]:
            raise Refused(
                "takes other operations in another run on inputs of other sizes", LOOP_CURE
            )
        longer = tracers[high].calls
        pairs = zip(tracers[low].calls, longer, strict=False)
        place = next((i for i, (a, b) in enumerate(pairs) if a.name != b.name), counts[low])
        raise Refused(
            f"takes {counts[low]} operations with {_shown(self.runs[low])} and {counts[high]} with "
            f"{_shown(self.runs[high])}",
            LOOP_CURE,
            longer[place].line,
        )

    def merge(self, values: Sequence[Any], title: str, line: str) -> Any:
        """Return one value for those of all runs, with sizes as symbols."""
        first = values[0]
        kinds = {v.__class__ for v in values}
        if len(kinds) > 1 and not kinds <= {int, float}:
            self._differs(title, line, values)
        if isinstance(first, np.ndarray):
            return self._array(values, title, line)
        if isinstance(first, dict):
            return {k: self.merge([v[k] for v in values], title, line) for k in first}
        if isinstance(first, slice):
            parts = [(v.start, v.stop, v.step) for v in values]
            return slice(*self.merge(parts, title, line))
        if isinstance(first, Body):
            results = self.merge([v.results for v in values], title, line)
            return first._replace(results=results)
        if isinstance(first, Ref):
            if any(v != first for v in values):
                self._differs(title, line, values)
            return first
        if isinstance(first, tuple | list):
            if len({len(v) for v in values}) > 1:
                self._differs(title, line, values)
            return tuple([self.merge(list(v), title, line) for v in zip(*values, strict=True)])
        same = all(v == first or (v != v and first != first) for v in values)
        if same:
            return first
        if not kinds <= {int, float}:
            self._differs(title, line, values)
        if math.isfinite(sum(values)):
            if all(float(v).is_integer() for v in values) and (size := self.size(values)):
                return size
            for inverse in [False, True] if float in kinds and 0 not in values else [False]:
                numbers = [1 / v if inverse else v for v in values]
                if float in kinds and (terms := self._terms(numbers)):
                    return Real(terms, inverse)
        return Unknown(tuple(values), title, line, tuple(map(_shown, self.runs)))

    def size(self, values: Sequence[Any]) -> Size | None:
        """Return numbers as a polynomial of the sizes, None if that is not possible."""
        numbers = [int(v) for v in values]
        solved = self.inverse @ np.array(numbers[: len(self.monomials)], float)
        terms = tuple(
            [(m, round(k)) for m, k in zip(self.monomials, solved, strict=True) if round(k)]
        )
        size = Size(terms)
        holds = all(size.at(run) == v for run, v in zip(self.runs, numbers, strict=True))
        return size if holds else None

    def _terms(self, numbers: Sequence[float]) -> Any:
        """Return floating numbers as the terms of a polynomial; empty if that is not possible."""
        solved = self.inverse @ np.array(numbers[: len(self.monomials)], float)
        least = 1e-12 * max(map(abs, numbers))
        terms = tuple(
            [(m, float(k)) for m, k in zip(self.monomials, solved, strict=True) if abs(k) > least]
        )
        sums = [
            sum(k * math.prod(run[s] for s in names) for names, k in terms) for run in self.runs
        ]
        close = all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(sums, numbers, strict=True))
        return terms if close else ()

    def _array(self, arrays: Sequence[Any], title: str, line: str) -> Any:
        first = arrays[0]
        if len({(a.ndim, a.dtype) for a in arrays}) > 1:
            self._differs(title, line, [a.shape for a in arrays])
        if all(a.shape == first.shape for a in arrays):
            if all(_equal(a, first) for a in arrays):
                return first
            raise Refused(
                f"{title} reads an array of shape {first.shape} whose values differ from run to "
                "run: it holds random numbers, or values computed outside of the operations of the "
                "library",
                CONSTANT_CURE,
                line,
            )
        shape = self.merge([a.shape for a in arrays], title, line)
        axes = [i for i, n in enumerate(shape) if not isinstance(n, int)]
        key = tuple([slice(0, 1) if i in axes else slice(None) for i in range(first.ndim)])
        bases = [a[key] for a in arrays]
        constant = all(
            np.array_equal(np.broadcast_to(b, a.shape), a) for a, b in _both(arrays, bases)
        )
        if constant and all(np.array_equal(b, bases[0]) for b in bases):
            return Varying(bases[0], shape, -1, 0, 0, first.dtype)
        if len(axes) == 1 and first.dtype.kind in "iuf" and all(a.size for a in arrays):
            (axis,) = axes
            rows = [np.moveaxis(a, axis, -1).reshape(-1, a.shape[axis])[0] for a in arrays]
            step = rows[0][1] - rows[0][0] if len(rows[0]) > 1 else 1
            for a, row in zip(arrays, rows, strict=True):
                wanted = row[0] + step * np.arange(len(row), dtype=row.dtype)
                along = wanted.reshape([-1 if i == axis else 1 for i in range(a.ndim)])
                if not np.array_equal(np.broadcast_to(along, a.shape), a):
                    break
            else:
                if float(step).is_integer() and all(float(row[0]).is_integer() for row in rows):
                    start = self.merge([int(row[0]) for row in rows], title, line)
                    return Varying(None, shape, axis, start, int(step), first.dtype)
        raise Refused(
            f"{title} reads an array whose shape depends on the sizes, {first.shape} and "
            f"{arrays[-1].shape}, and which is neither constant along them nor a range",
            CONSTANT_CURE,
            line,
        )

    def _differs(self, title: str, line: str, values: Sequence[Any]) -> Any:
        Unknown(tuple(values), title, line, tuple(map(_shown, self.runs))).refuse()


def _equal(a: Any, b: Any) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _both(arrays: Sequence[Any], bases: Sequence[Any]) -> Any:
    return zip(arrays, bases, strict=True)


def _shown(run: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {length}" for name, length in run.items()) or "the example"
