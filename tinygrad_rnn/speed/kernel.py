"""Kernels: a list of ufunc calls that compute expressions and write into few buffers.

A buffer is free as soon as the last reader of its value has run. An argument may be split along its
last axis, as the gates of a cell are. A part is a view; in the gradient the parts are written next
to each other into one array, by the calls that compute them.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engine.ops import kernels
from . import compiled
from .compiled import chosen
from .expressions import VIEWS, Expression, Trace, lengths_of, needed, shape_now
from .loops import Loop, Uncovered, kinds_of
from .scalars import Number, plain

OWN_MEMORY = frozenset(("where", "join", "sum", "matmul", *VIEWS))  # write over no argument


class Kernel:
    """A function of arrays that computes expressions: Python source, compiled for each library."""

    def __init__(self, trace: Trace, given: Sequence[Expression], results: Sequence[Any]) -> None:
        self.trace = trace
        self.given, self.results, self.steps = given, results, self._steps(given, results)
        self.names = self._given_names(given)
        self.setup: list[str] = []  # makes the memory
        self.lines: list[str] = []
        self.constants: dict[Any, tuple[str, Any]] = {}
        self.scalars: dict[Any, str] = {}  # numbers of the call, as arrays of a dtype
        self.shapes: dict[str, str] = {}  # those of the call that are made anew
        self.buffers = 0
        self.free: dict[Any, list[str]] = {}  # buffers whose value nobody reads any more
        kept = {x for x in results if isinstance(x, Expression)}
        kept.update(x for x in self.steps if x.op == "constant")
        self.memory = {x: x for x in given}  # whose memory a value is in: its own, unless a view
        for x in self.steps:
            self.memory[x] = self.memory[x.args[0]] if x.op in VIEWS else x
        self.homes = self._homes(kept)
        self.kept = {*given, *(self.memory[x] for x in kept)}
        self.kept.update(self.homes, (whole for whole, _ in self.homes.values()))
        last = {self.memory[a]: x for x in self.steps for a in x.args if isinstance(a, Expression)}
        for x in self.steps:
            read = dict.fromkeys(self.memory[a] for a in x.args if isinstance(a, Expression))
            done = [a for a in read if last[a] is x and a not in self.kept]
            # A ufunc may write over what it reads, element by element, but for views.
            over = set() if x.op in OWN_MEMORY else set(done)
            over.intersection_update(a for a in x.args if isinstance(a, Expression))
            self._release([a for a in done if a in over])
            self._step(x)
            self._release([a for a in done if a not in over])
        self.returned = "".join(f"{self.names.get(x, x)}, " for x in results)
        numbers = [x.text for x in trace.sheet.given]
        self.head = ", ".join([*(self.names[x] for x in given), *numbers])
        notes = [f"# {k} = {a}, {dtype}" for (a, dtype), (k, _) in self.constants.items()]
        first = [f"{name} = {text}" for text, name in self.shapes.items()]
        first += [f"{name} = scalar({x}, {t.name})" for (x, t), name in self.scalars.items()]
        self.first = [*notes, *first, *self.setup]
        self.source = _source(self.head, [*self.first, *self.lines], self.returned)
        self._schedules: dict[Any, Callable[..., tuple[Any, ...]]] = {}
        self._in_c: dict[Any, Callable[..., tuple[Any, ...]]] = {}

    def _steps(self, given: Sequence[Expression], results: Sequence[Any]) -> list[Expression]:
        """Return what is computed, in order."""
        return needed(results, given)

    def _given_names(self, given: Sequence[Expression]) -> dict[Expression, str]:
        """Return the names of the arguments."""
        return {x: f"a{i}" for i, x in enumerate(given)}

    def _homes(self, results: set[Expression]) -> dict[Expression, tuple[Expression, int]]:
        """Return which values are computed in their place in a join, and where that starts."""
        homes: dict[Expression, tuple[Expression, int]] = {}
        for whole in self.steps:
            start = 0
            for x in whole.args if whole.op == "join" else ():
                own = self.memory[x] is x and x not in self.names
                own = own and x.op not in ("join", "sum", "constant", "matmul", *VIEWS)
                if own and x not in results:
                    homes.setdefault(x, (whole, start))
                start += x.shape[-1]
        return homes

    def _release(self, done: Sequence[Expression]) -> None:
        for x in done:
            self.free.setdefault((x.dtype, x.shape), []).append(self.names[x])

    def _buffer(self, x: Expression) -> str:
        """Return the name of memory for a value, laid out like an argument."""
        if self.free.get((x.dtype, x.shape)) and x.op != "join":
            return self.free[x.dtype, x.shape].pop()
        name = f"t{self.buffers}"
        self.buffers += 1
        self.setup.append(f"{name} = {self._memory(x)}")
        return name

    def _memory(self, x: Expression) -> str:
        """Return the call that makes memory for a value."""
        if sum(n != 1 for n in x.sizes) < 2:  # one row: any order, and faster
            return f"vector({self._shape(x)}, {x.dtype.name})"
        # Of one step, a gradient lies as the argument does; of all steps, as it is gathered.
        given = sorted(self.given, key=lambda g: (g.op == "gradient") == (len(x.shape) < 3))
        like = next((self.names[g] for g in given if g.shape == x.shape), None)
        if like:
            return f"empty({like}, dtype={x.dtype.name})"
        part = self.names[max(self.given, key=lambda g: g.ndim)]
        return f"new({self._shape(x)}, {part}, {x.dtype.name})"

    def _shape(self, x: Expression) -> str:
        """Return the expression of a shape: of the arrays' own lengths, where these may vary."""
        texts = []
        for k, n in enumerate(x.sizes, -len(x.sizes)):
            like = next((g for g in self.given if g.ndim >= -k and g.sizes[k] == n), None)
            fixed = n == 1 or like is None or self.trace.sized or (k == -1 and self.trace.cut)
            texts.append(f"{n}" if fixed else f"{self.names[like]}.shape[{k}]")  # type: ignore[index]
        text = f"({''.join(f'{text}, ' for text in texts)})"
        if text == f"{x.sizes}" or not texts or all(text.isdigit() for text in texts):
            return text
        return self.shapes.setdefault(text, re.sub(r"\W+", "_", f"s{text}"))

    def _name(self, x: Expression) -> str:
        """Return the name of the memory that a step writes to, which is there from now on."""
        if x not in self.names:
            if x in self.homes:
                whole, start = self.homes[x]
                into = self._name(whole)
                self.names[x] = f"{into}_{start}"
                lines = self.setup if into.startswith("t") else self.lines  # of a buffer: once
                lines.append(f"{self.names[x]} = {into}[..., {start}:{start + x.shape[-1]}]")
            else:
                self.names[x] = self._buffer(x)
        return self.names[x]

    def _step(self, x: Expression) -> None:
        """Write down the call that computes a value."""
        args = [self.names[a] if isinstance(a, Expression) else repr(plain(a)) for a in x.args]
        if x.op == "constant":
            self.names[x] = self._number(x.args[0], x.dtype, typed=True)
            return
        if x.op in VIEWS or x.op == "sum":
            self.names[x] = f"v{x.number}"
            call = {
                "part": "{0}[..., {1}:{2}]",
                "transpose": "{0}.T",
                "broadcast_to": "broadcast_to({0}, {1})",
                "reshape": f"{{0}}.reshape({self._shape(x)})" if x.op == "reshape" else "",
                "sum": "sum({0}, {1}, True)",
            }[x.op].format(*args)
            self.lines.append(f"{self.names[x]} = {call}")
            return
        out = self._name(x)
        if x.op == "join":
            start = 0
            for a, arg in zip(x.args, args, strict=True):
                whole, place = self.homes.get(a, (None, 0))
                if whole is not x or place != start:
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
        """Write down a matrix product."""
        self.lines.append(f"copyto({out}, gemm({self.names[x]}, {self.names[y]}))")

    def _operand(self, x: Expression, i: int) -> str:
        """Return the name of an argument of a ufunc.

        A number has one too: as an array it costs a ufunc half the time that a number takes.
        """
        a = x.args[i]
        if isinstance(a, Expression):
            return self.names[a]
        return self._number(a, getattr(np, x.op).resolve_dtypes((*kinds_of(x.args), None))[i])

    def _number(self, a: Any, dtype: Any, typed: bool = False) -> str:
        """Return the name of a number in a dtype; `typed`: in memory, on a device too."""
        if type(a) is Number:
            name = self.scalars.setdefault((a.text, dtype), f"q{len(self.scalars)}")
        else:
            name = self.constants.setdefault((repr(a), dtype), (f"k{len(self.constants)}", a))[0]
        if not typed:
            return name
        self.lines.append(f"{name}_ = typed({name}, {dtype.name})")
        return f"{name}_"

    def __call__(self, xp: Any, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """Run on arrays of the library `xp`, then the numbers of the call."""
        compiler = chosen[0] if chosen else compiled.compiler()
        if compiler is not None and (xp is np or hasattr(xp, "one_call")):
            run = self._in_c.get(xp) or self._compile(compiler, xp, arrays)
            return run(*arrays)
        return self.schedule(xp)(*arrays)

    def _compile(
        self, compiler: Any, xp: Any, arrays: Sequence[Any]
    ) -> Callable[..., tuple[Any, ...]]:
        """Return the kernel in C: one loop, then ufuncs for what is not of its shape.

        `xp` is NumPy, or a library that does NumPy's calls and writes them down.
        """
        given = arrays[: len(self.given)]
        if any(x.size == 0 for x in given):
            return self.schedule(xp)  # these arrays need none
        try:
            loop = Loop(self.steps, self.given, self.results, any_size=not self.trace.sized)
        except Uncovered:
            return self._in_c.setdefault(xp, self.schedule(xp))
        lengths = lengths_of(dict(zip(self.given, given, strict=True)))
        if math.prod(shape_now(loop.made[0], lengths)) > loop.limit:
            return self.schedule(xp)
        if not self.trace.sized and not self.trace.cut:
            loop.width = 0  # that of the arrays
        rest = Kernel(self.trace, [*self.given, *loop.made], self.results)
        names = [rest.names[x] for x in loop.made]
        memory = [(name, self._memory(x)) for name, x in zip(names, loop.made, strict=True)]
        lines = [f"{name} = {text}" for text, name in self.shapes.items()]
        lines += [f"{name} = {text}" for name, text in memory]
        scalars = [f"r{i}" for i in range(len(loop.scalars))]
        if scalars:
            made = [f"array({x.text}, {dtype.name}), " for x, dtype in loop.scalars]
            lines.append(f"try: {', '.join(scalars)}, = {''.join(made)}")
            lines.append(f"except OverflowError: return schedule({self.head})")
        inputs = ", ".join([*(self.names[x] for x in self.given), *scalars, *names])
        large = f"{names[0]}.size > {loop.limit} or " if loop.limit < math.inf else ""
        lines.append(f"if {large}not run({inputs}): return schedule({self.head})")
        lines += [f"{name} = {text}" for text, name in rest.shapes.items()]
        lines += [f"{q} = scalar({x}, {t.name})" for (x, t), q in rest.scalars.items()]
        run = compiled.kernel(loop, compiler)
        scope = {
            "run": run if xp is np else xp.one_call(run, len(self.given) + len(scalars)),
            "schedule": self.schedule(xp),
            **_numbers(rest.constants, xp),
        }
        dtypes = [x.dtype for x in loop.made] + [t for _, t in (*loop.scalars, *rest.scalars)]
        source = _source(self.head, [*lines, *rest.setup, *rest.lines], rest.returned)
        function = function_of(source, xp, rest.steps, dtypes, {**scope, **self.trace.sheet.scope})
        return self._in_c.setdefault(xp, function)

    def schedule(self, xp: Any) -> Callable[..., tuple[Any, ...]]:
        """Return the function that calls the ufuncs of the library `xp`."""
        if xp not in self._schedules:
            scope = {**_numbers(self.constants, xp), **self.trace.sheet.scope}
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
    """Return a number as an array of the dtype that a ufunc would give it, which costs less."""
    try:
        return _array(x, dtype)
    except OverflowError:  # comparisons take any integer; the others say what is wrong with it
        return x


def _source(head: str, lines: Sequence[str], returned: str) -> str:
    body = "\n    ".join([*lines, f"return ({returned})"])
    return f"def kernel({head}):\n    {body}\n"


def function_of(
    source: str, xp: Any, steps: Sequence[Expression], dtypes: Sequence[Any], scope: dict[str, Any]
) -> Callable[..., tuple[Any, ...]]:
    """Return the function of a source that computes steps with the library `xp`."""
    scope.update({dtype.name: dtype for dtype in (*dtypes, *(x.dtype for x in steps))})
    ops = {x.op for x in steps}.difference(("astype", "zeros", "constant", *OWN_MEMORY))
    scope.update({op: getattr(xp, op) for op in ops}, sum=functools.partial(kernels.reduced, "sum"))
    scope.update(empty=xp.empty_like, vector=xp.empty, new=kernels.empty_in_order_of)
    scope.update(where=functools.partial(kernels.where, xp), gemm=kernels.gemm)
    scope.update(broadcast_to=getattr(xp, "broadcast_to", None))
    scope.update(copyto=xp.copyto, inf=float("inf"), nan=float("nan"), array=_array)
    scope["scalar"] = _scalar if xp is np else _item
    scope["typed"] = np.asarray if xp is np else lambda x, dtype: xp.full((), x, dtype=dtype)
    exec(compile(source, "<fused kernel>", "exec"), scope)
    return scope["kernel"]
