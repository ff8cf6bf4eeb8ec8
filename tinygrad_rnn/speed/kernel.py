"""Kernels: schedules of NumPy calls that compute expressions, with reuse of buffers.

A buffer is reused as soon as the last reader of its value has run. A slice of the last axis, such
as a gate of a cell, is a view. The gradients of slices are computed directly in the slices of one
array.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engine.ops import kernels
from ..errors import CompilerError
from . import compiled, executor
from .compiler import selected
from .cuda import module
from .cuda.fused import bind
from .expressions import VIEWS, Expression, Trace, lengths_of, needed, shape_in_call
from .loops import Loop, Unsupported, kinds_of
from .scalars import Number, value_of

# Operations whose out= must not be one of their arguments.
NOT_IN_PLACE = frozenset(("where", "concatenate", "sum", "matmul", *VIEWS))


class Kernel:
    """A function of arrays that computes expressions.

    Attributes
    ----------
    source : str
        Its Python source, a schedule of calls.
    prologue : list of str
        The first lines: comments on constants, shapes, scalars, buffers.
    lines : list of str
        The calls.
    """

    def __init__(self, trace: Trace, inputs: Sequence[Expression], results: Sequence[Any]) -> None:
        self.trace = trace
        self.inputs, self.results, self.steps = inputs, results, self._steps(inputs, results)
        self.names = self._input_names(inputs)
        self.setup: list[str] = []  # allocates the buffers
        self.lines: list[str] = []
        self.constants: dict[Any, tuple[str, Any]] = {}
        self.scalars: dict[Any, str] = {}  # the number arguments, as 0-d arrays
        self.shapes: dict[str, str] = {}  # shapes that depend on the call
        self.buffers = 0
        self.free: dict[Any, list[str]] = {}  # buffers that can be reused
        preserved = {x for x in results if isinstance(x, Expression)}
        preserved.update(x for x in self.steps if x.op == "constant")
        self.base = {x: x for x in inputs}  # the owner of a value's memory, as in NumPy
        for x in self.steps:
            self.base[x] = self.base[x.args[0]] if x.op in VIEWS else x
        self.destinations = self._destinations(preserved)
        self.preserved = {*inputs, *(self.base[x] for x in preserved)}
        self.preserved.update(self.destinations, (whole for whole, _ in self.destinations.values()))
        last = {self.base[a]: x for x in self.steps for a in x.args if isinstance(a, Expression)}
        for x in self.steps:
            read = dict.fromkeys(self.base[a] for a in x.args if isinstance(a, Expression))
            done = [a for a in read if last[a] is x and a not in self.preserved]
            # A ufunc may overwrite its arguments, but not through a view.
            over = set() if x.op in NOT_IN_PLACE else set(done)
            over.intersection_update(a for a in x.args if isinstance(a, Expression))
            self._release([a for a in done if a in over])
            self._emit(x)
            self._release([a for a in done if a not in over])
        self.returned = "".join(f"{self.names.get(x, x)}, " for x in results)
        numbers = [x.text for x in trace.numbers.arguments]
        self.parameters = ", ".join([*(self.names[x] for x in inputs), *numbers])
        notes = [f"# {k} = {a}, {dtype}" for (a, dtype), (k, _) in self.constants.items()]
        first = [f"{name} = {text}" for text, name in self.shapes.items()]
        first += [f"{name} = scalar({x}, {t.name})" for (x, t), name in self.scalars.items()]
        self.prologue = [*notes, *first, *self.setup]
        self.source = _source(self.parameters, [*self.prologue, *self.lines], self.returned)
        self._schedules: dict[Any, Callable[..., tuple[Any, ...]]] = {}
        self._compiled: dict[Any, Callable[..., tuple[Any, ...]]] = {}

    def _steps(self, inputs: Sequence[Expression], results: Sequence[Any]) -> list[Expression]:
        """Return the expressions to compute, in order."""
        return needed(results, inputs)

    def _input_names(self, inputs: Sequence[Expression]) -> dict[Expression, str]:
        """Return the names of the arguments."""
        return {x: f"a{i}" for i, x in enumerate(inputs)}

    def _destinations(self, results: set[Expression]) -> dict[Expression, tuple[Expression, int]]:
        """Return the values computed in a slice of a concatenation, with that and their start."""
        destinations: dict[Expression, tuple[Expression, int]] = {}
        for whole in self.steps:
            start = 0
            for x in whole.args if whole.op == "concatenate" else ():
                own = self.base[x] is x and x not in self.names
                own = own and x.op not in ("concatenate", "sum", "constant", "matmul", *VIEWS)
                if own and x not in results:
                    destinations.setdefault(x, (whole, start))
                start += x.shape[-1]
        return destinations

    def _release(self, done: Sequence[Expression]) -> None:
        for x in done:
            self.free.setdefault((x.dtype, x.shape), []).append(self.names[x])

    def _buffer(self, x: Expression) -> str:
        """Return the name of a buffer for a value: a free one, or a new one."""
        if self.free.get((x.dtype, x.shape)) and x.op != "concatenate":
            return self.free[x.dtype, x.shape].pop()
        name = f"t{self.buffers}"
        self.buffers += 1
        self.setup.append(f"{name} = {self._allocation(x)}")
        return name

    def _allocation(self, x: Expression) -> str:
        """Return the call that allocates memory for a value, in the order of an argument's."""
        if sum(n != 1 for n in x.sizes) < 2:  # a vector: no memory order, and a faster call
            return f"vector({self._shape(x)}, {x.dtype.name})"
        # The gradient of one step has the memory order of the argument; that of all steps (3 axes)
        # has the order of the incoming gradient.
        inputs = sorted(self.inputs, key=lambda g: (g.op == "gradient") == (len(x.shape) < 3))
        like = next((self.names[g] for g in inputs if g.shape == x.shape), None)
        if like:
            return f"empty({like}, dtype={x.dtype.name})"
        part = self.names[max(self.inputs, key=lambda g: g.ndim)]
        return f"new({self._shape(x)}, {part}, {x.dtype.name})"

    def _shape(self, x: Expression) -> str:
        """Return the source of a shape; lengths that may vary are read from arguments."""
        texts = []
        for k, n in enumerate(x.sizes, -len(x.sizes)):
            like = next((g for g in self.inputs if g.ndim >= -k and g.sizes[k] == n), None)
            fixed = (
                n == 1
                or like is None
                or self.trace.uses_lengths
                or (k == -1 and self.trace.has_slices)
            )
            texts.append(f"{n}" if fixed else f"{self.names[like]}.shape[{k}]")  # type: ignore[index]
        text = f"({''.join(f'{text}, ' for text in texts)})"
        if text == f"{x.sizes}" or not texts or all(text.isdigit() for text in texts):
            return text
        return self.shapes.setdefault(text, re.sub(r"\W+", "_", f"s{text}"))

    def _out(self, x: Expression) -> str:
        """Return the name of the array that a step writes to; allocate it if necessary."""
        if x not in self.names:
            if x in self.destinations:
                whole, start = self.destinations[x]
                into = self._out(whole)
                self.names[x] = f"{into}_{start}"
                lines = self.setup if into.startswith("t") else self.lines  # of a buffer: once
                lines.append(f"{self.names[x]} = {into}[..., {start}:{start + x.shape[-1]}]")
            else:
                self.names[x] = self._buffer(x)
        return self.names[x]

    def _emit(self, x: Expression) -> None:
        """Emit the call that computes a value."""
        args = [self.names[a] if isinstance(a, Expression) else repr(value_of(a)) for a in x.args]
        if x.op == "constant":
            self.names[x] = self._number(x.args[0], x.dtype, typed=True)
            return
        if x.op in VIEWS or x.op == "sum":
            self.names[x] = f"v{x.number}"
            call = {
                "slice": "{0}[..., {1}:{2}]",
                "transpose": "{0}.T",
                "broadcast_to": "broadcast_to({0}, {1})",
                "reshape": f"{{0}}.reshape({self._shape(x)})" if x.op == "reshape" else "",
                "sum": "sum({0}, {1}, True)",
            }[x.op].format(*args)
            self.lines.append(f"{self.names[x]} = {call}")
            return
        out = self._out(x)
        if x.op == "concatenate":
            start = 0
            for a, arg in zip(x.args, args, strict=True):
                whole, offset = self.destinations.get(a, (None, 0))
                if whole is not x or offset != start:
                    into = f"{out}[..., {start}:{start + a.shape[-1]}]"
                    self.lines.append(f"copyto({into}, {arg})")
                start += a.shape[-1]
            return
        if x.op == "matmul":
            self._product(out, *x.args)
        elif x.op == "where":
            args = [
                self._number(a, x.dtype) if type(a) is Number else arg
                for a, arg in zip(x.args, args, strict=True)
            ]
            self.lines.append(f"where({', '.join(args)}, {out})")
        elif x.op == "zeros":
            self.lines.append(f"copyto({out}, 0)")
        elif x.op == "astype":
            self.lines.append(f"copyto({out}, {args[0]}, casting='unsafe')")
        else:
            args = [self._operand(x, i) for i in range(len(args))]
            self.lines.append(f"{x.op}({', '.join(args)}, out={out})")

    def _product(self, out: str, x: Expression, y: Expression) -> None:
        """Emit a matrix product."""
        self.lines.append(f"copyto({out}, gemm({self.names[x]}, {self.names[y]}))")

    def _operand(self, x: Expression, i: int) -> str:
        """Return the name of an argument of a ufunc.

        Numbers are converted to 0-d arrays once, since a ufunc reads these in half the time.
        """
        a = x.args[i]
        if isinstance(a, Expression):
            return self.names[a]
        return self._number(a, getattr(np, x.op).resolve_dtypes((*kinds_of(x.args), None))[i])

    def _number(self, a: Any, dtype: Any, typed: bool = False) -> str:
        """Return the name of a number in a dtype; `typed`: as a 0-d array of the array library."""
        if type(a) is Number:
            name = self.scalars.setdefault((a.text, dtype), f"q{len(self.scalars)}")
        else:
            name = self.constants.setdefault((repr(a), dtype), (f"k{len(self.constants)}", a))[0]
        if not typed:
            return name
        self.lines.append(f"{name}_ = typed({name}, {dtype.name})")
        return f"{name}_"

    def __call__(self, xp: Any, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """Run on arrays of the library `xp`, followed by the number arguments."""
        compiler = selected[0] if selected else executor.compiler()
        if compiler is not None and xp is np:
            run = self._compiled.get(np) or self._compile(np, arrays)
            return run(*arrays)
        if xp is not np and module.enabled("kernels"):
            try:
                run = self._compiled.get(xp) or self._compile(xp, arrays)
                return run(*arrays)
            except CompilerError as error:
                module.fall_back(error, "operations")
        return self.schedule(xp)(*arrays)

    def _compile(self, xp: Any, arrays: Sequence[Any]) -> Callable[..., tuple[Any, ...]]:
        """Return the kernel as one loop, then calls for expressions of other shapes.

        The loop is in C, or in CUDA for a library `xp` that is not NumPy.
        """
        read, host = arrays[: len(self.inputs)], xp is np
        if any(x.size == 0 for x in read):
            return self.schedule(xp)
        try:
            loop = Loop(
                self.steps,
                self.inputs,
                self.results,
                any_size=not self.trace.uses_lengths or not host,
            )
        except Unsupported:
            self._compiled[xp] = self.schedule(xp)
            return self._compiled[xp]
        if not host:
            loop.limit = math.inf
        lengths = lengths_of(dict(zip(self.inputs, read, strict=True)))
        if math.prod(shape_in_call(loop.outputs[0], lengths)) > loop.limit:
            return self.schedule(xp)
        if not self.trace.uses_lengths and not self.trace.has_slices:
            loop.width = 0  # the width of the arrays of each call
        rest = Kernel(self.trace, [*self.inputs, *loop.outputs], self.results)
        names = [rest.names[x] for x in loop.outputs]
        memory = [(name, self._allocation(x)) for name, x in zip(names, loop.outputs, strict=True)]
        lines = [f"{name} = {text}" for text, name in self.shapes.items()]
        lines += [f"{name} = {text}" for name, text in memory]
        scalars = [f"r{i}" for i in range(len(loop.scalars))]
        if scalars:
            made = [f"array({x.text}, {dtype.name}), " for x, dtype in loop.scalars]
            lines.append(f"try: {', '.join(scalars)}, = {''.join(made)}")
            lines.append(f"except OverflowError: return schedule({self.parameters})")
        inputs = ", ".join([*(self.names[x] for x in self.inputs), *scalars, *names])
        large = f"{names[0]}.size > {loop.limit} or " if loop.limit < math.inf else ""
        lines.append(f"if {large}not run({inputs}): return schedule({self.parameters})")
        lines += [f"{name} = {text}" for text, name in rest.shapes.items()]
        lines += [f"{q} = scalar({x}, {t.name})" for (x, t), q in rest.scalars.items()]
        try:
            if host and selected[0] is not None:
                run = compiled.kernel(loop, selected[0])
            else:
                run = bind(loop, self.inputs, xp)
        except CompilerError as error:
            executor.fall_back(error)
            self._compiled[xp] = self.schedule(xp)
            return self._compiled[xp]
        scope = {
            "run": run,
            "schedule": self.schedule(xp),
            **_numbers(rest.constants, xp),
            **self.trace.numbers.scope,
        }
        dtypes = [x.dtype for x in loop.outputs] + [t for _, t in (*loop.scalars, *rest.scalars)]
        source = _source(self.parameters, [*lines, *rest.setup, *rest.lines], rest.returned)
        self._compiled[xp] = function_of(source, xp, rest.steps, dtypes, scope)
        return self._compiled[xp]

    def schedule(self, xp: Any) -> Callable[..., tuple[Any, ...]]:
        """Return the function that calls the ufuncs of the library `xp`."""
        if xp not in self._schedules:
            scope = {**_numbers(self.constants, xp), **self.trace.numbers.scope}
            dtypes = [dtype for _, dtype in self.scalars]
            self._schedules[xp] = function_of(self.source, xp, self.steps, dtypes, scope)
        return self._schedules[xp]


def _numbers(constants: dict[Any, tuple[str, Any]], xp: Any) -> dict[str, Any]:
    """Return the constants of a kernel for a library, by their names."""
    scalar = _scalar if xp is np else _item
    return {name: scalar(number, dtype) for (_, dtype), (name, number) in constants.items()}


def _item(x: Any, dtype: Any) -> Any:
    return x.item() if isinstance(x, np.generic) else x


def _array(x: Any, dtype: Any) -> Any:
    return np.asarray(_item(x, dtype), dtype)


def _scalar(x: Any, dtype: Any) -> Any:
    """Return a number as a 0-d array of the dtype to which a ufunc converts it."""
    try:
        return _array(x, dtype)
    except OverflowError:  # comparisons accept any integer; other ufuncs raise the error
        return x


def _source(parameters: str, lines: Sequence[str], returned: str) -> str:
    body = "\n    ".join([*lines, f"return ({returned})"])
    return f"def kernel({parameters}):\n    {body}\n"


def function_of(
    source: str, xp: Any, steps: Sequence[Expression], dtypes: Sequence[Any], scope: dict[str, Any]
) -> Callable[..., tuple[Any, ...]]:
    """Compile a source that computes steps with the library `xp`, and return its function."""
    scope.update({dtype.name: dtype for dtype in (*dtypes, *(x.dtype for x in steps))})
    ops = {x.op for x in steps}.difference(("astype", "zeros", "constant", *NOT_IN_PLACE))
    scope.update({op: getattr(xp, op) for op in ops}, sum=functools.partial(kernels.reduced, "sum"))
    scope.update(empty=xp.empty_like, vector=xp.empty, new=kernels.empty_in_order_of)
    scope.update(where=functools.partial(kernels.where, xp), gemm=kernels.gemm)
    scope.update(broadcast_to=getattr(xp, "broadcast_to", None))
    scope.update(copyto=xp.copyto, inf=float("inf"), nan=float("nan"), array=_array)
    scope["scalar"] = _scalar if xp is np else _item
    scope["typed"] = np.asarray if xp is np else lambda x, dtype: xp.full((), x, dtype=dtype)
    exec(compile(source, "<fused kernel>", "exec"), scope)
    return scope["kernel"]
