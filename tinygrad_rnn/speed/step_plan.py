"""The plan of a loop over time: its forward loop, and its backward loops, derived by the engine.

The engine's own backward pass runs on the graph of the traced step. It returns, as expressions, the
gradients of the old state, of the input and of the invariants. The gradient of an invariant is a
sum over all time steps, so its last operation leaves the loop:

=========  ===================  =====================================  =============================
`Term`     gradient of a step   in the loop                            after the loop
=========  ===================  =====================================  =============================
product    leftᵀ @ right        the factors are kept for all steps     one product of all steps
sum        a sum over axes      the operand is kept for all steps      one sum over all steps
value      anything else        is added up in double precision        nothing
=========  ===================  =====================================  =============================
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..engine.backward_pass import run
from ..engine.grad_mode import enable_grad
from ..engine.namespaces import namespaces
from .expressions import Expression
from .fuse import EXPENSIVE, read_by
from .kernel import Kernel
from .reach import origins
from .step_kernel import StepKernel
from .step_trace import StepTrace, expressions_in

MOST_PARTS = 3  # of a product that is computed in parts
LARGE = 4096  # elements, from which memory counts more than a call
lock = threading.RLock()  # of all plans: they are made by one thread at a time
KEPT = EXPENSIVE | {"matmul", "sum", "draw"}  # operations whose results are not computed twice


class Term(NamedTuple):
    """A part of the gradient of an invariant: a sum over time steps, of which `values` are kept."""

    kind: str  # "product", "sum" or "value"
    values: tuple[Expression, ...]
    axes: tuple[int, ...] = ()  # of a sum
    transposed: bool = False
    part: tuple[int, int] | None = None  # of the columns of the left factor


def terms_of(x: Expression, transposed: bool = False) -> list[Term]:
    """Return the terms whose sum is the gradient `x` of an invariant."""
    first: Any = x.args[0] if x.args else None
    if x.op == "add" and all(a.__class__ is Expression and a.sizes == x.sizes for a in x.args):
        return [term for a in x.args for term in terms_of(a, transposed)]
    if x.op == "transpose":
        return terms_of(x.args[0], not transposed)
    if x.op == "matmul" and x.args[0].varies and x.args[1].varies:
        return [Term("product", (x.args[0].T, x.args[1]), transposed=transposed)]
    if x.op == "reshape":
        axes = first.args[1] if first.op == "sum" else ()
        return [Term("sum", (first.args[0] if axes else first,), axes, transposed)]
    if x.op == "sum":
        return [Term("sum", (x.args[0],), x.args[1], transposed)]
    return [Term("value", (x,), transposed=transposed)]


def shared_factors(terms: list[Term], kept: Sequence[Expression]) -> list[list[Term]]:
    """Return for each term the terms that it consists of, with factors that are kept anyway.

    The gradients of the gates of a GRU differ in one of three parts only, for the input and for the
    state: of a left factor that is a join, parts that are parts of a kept join too are taken from
    there. The products of the parts are the rows of the product.
    """
    places: dict[Expression, tuple[Expression, int]] = {}
    whole_ones = set(kept)
    for whole in kept:
        start = 0
        for x in whole.args if whole.op == "concatenate" else ():
            places.setdefault(x, (whole, start))
            start += x.sizes[-1]
    found = []
    for term in terms:
        left = term.values[0]
        pieces: list[Term] = []
        if term.kind == "product" and left.op == "concatenate" and left not in whole_ones:
            for x in left.args:
                whole, start = places.get(x, (x, 0))
                stop, last = start + x.sizes[-1], pieces[-1] if pieces else None
                if last and last.values[0] is whole and last.part and last.part[1] == start:
                    pieces[-1] = last._replace(part=(last.part[0], stop))
                else:
                    values = whole, term.values[1]
                    pieces.append(Term("product", values, part=(start, stop)))
        shared = any(piece.values[0].op == "concatenate" for piece in pieces)
        found.append(pieces if shared and len(pieces) <= MOST_PARTS else [term])
    return found


class Derivative(NamedTuple):
    """The backward pass of one step: the values that its loop takes and computes."""

    given: dict[Expression, str]  # the values that there are, with the names of their arrays
    targets: list[tuple[Expression, str]]  # the values to compute, with the names of their arrays
    live: list[int]  # the elements of the state that have a gradient: g0 … in, h0 … out
    zero: list[int]  # those whose old value has none
    inputs: list[Expression | None]  # which gradient of the input there is, for each element
    collected: list[Expression]  # values kept for all steps, for the terms
    terms: list[list[tuple[Term, list[Term]]]]  # for each invariant: terms, and their parts
    added: dict[Expression, int]  # the values that are added up, with their numbers


class LoopFunction(NamedTuple):
    """A loop in Python over NumPy calls, and the names of the arrays that it takes."""

    source: str
    heads: list[str]  # arrays that are the same in all steps
    lists: list[str]  # one array for each step
    function: Callable[..., Any] | None = None
    derivative: Derivative | None = None  # of a backward loop

    def __call__(self, heads: dict[str, Any], lists: Mapping[str, Sequence[Any]]) -> Any:
        """Run the loop, on arrays by their names."""
        assert self.function is not None
        return self.function(*[heads[n] for n in self.heads], *[lists[n] for n in self.lists])


class StepPlan:
    """The loops of one step.

    Attributes
    ----------
    saved : list of Expression
        The values between arguments and results that the backward loop reads.
    same_as_state : list
        For each y the number of the element of the state that it is, or None.
    distinct_new : list of int
        The elements of the new state that are neither arguments nor equal to an earlier one.
    factors : set of Expression
        Operands of matrix products, which a product over all steps reads.
    differentiable : list of bool
        For each element of the state whether it has a gradient.
    origins : list of int
        For each result what its graph leads to: bit i means parent i of the node.
    """

    def __init__(self, trace: StepTrace, columns: bool) -> None:
        self.trace, self.columns = trace, columns
        self.arguments: list[Expression] = [t._data for t in trace.arguments]
        self.states, self.xs = self.arguments[: trace.states], self.arguments[trace.states :]
        self.invariants = trace.symbolic_arrays
        self.results: list[Expression] = [t._data for t in trace.results]
        self.draws = [x for x in trace.expressions if x.op == "draw"]
        self.new = self.results[: trace.states]
        self.ys = self.results[trace.states :]
        # Expressions are compared by identity: in sets and dicts, as == makes another expression.
        first = {x: i for i, x in reversed([*enumerate(self.new)])}
        self.same_as_state = [first.get(y) for y in self.ys]
        self.new_set = set(self.new)
        self.differentiable = [t._node is not None for t in trace.arguments[: trace.states]]
        self.differentiates = any(r._node is not None for r in trace.results)
        self.origins = origins(trace)
        self.factors = {
            a.args[0] if a.op == "transpose" else a
            for x in trace.expressions
            if x.op == "matmul"
            for a in x.args
            if a.varies
        }
        given = {*self.arguments, *self.invariants, *self.draws}
        self.distinct_new = [i for i, x in enumerate(self.new) if x not in given and first[x] == i]
        self.saved: list[Expression] = []
        self.reads: set[Expression] = set()
        self._kernels: dict[Any, Any] = {}
        if self.differentiates:
            kept = self._kept(given)
            grads = self._gradients(tuple(range(len(self.ys))))
            ends = [v for g in grads[: len(self.arguments)] for v in ([g] if g is not None else [])]
            ends += [
                value
                for g in grads[len(self.arguments) :]
                if g is not None
                for term in terms_of(g)
                for value in term.values
            ]
            reads = read_by(ends, given | kept)
            self.reads = set(reads)
            self.saved = [x for x in reads if x not in given and x not in first]

    def _kept(self, given: set[Expression]) -> set[Expression]:
        """Return the values that are saved if they are read: others are computed again."""
        nodes = self.trace.nodes
        found = {x for node in nodes for x in expressions_in(getattr(node, "saved", ()))}
        found = {x for x in found if x.varies}
        known = found | given
        kept = {
            x
            for x in found
            if any(a.__class__ is Expression and a.varies and a not in known for a in x.args)
        }
        kept |= {x for x in self.trace.expressions if x.op in KEPT and x.varies}
        # A large array that one call computes from the new state is recomputed.
        return {
            x
            for x in kept
            if not (len(x.args) == 1 and x.args[0] in self.new_set and math.prod(x.sizes) >= LARGE)
        }

    def _gradient(self, i: int) -> Expression:
        """Return the gradient of a result, as an expression."""
        y = self.results[i]
        gradient: Expression = self.trace.intern("gradient", (i, y.sizes), y.dtype, y.sizes)
        return gradient

    def _gradients(self, which: tuple[int, ...]) -> list[Any]:
        """Return the gradients of the arguments and invariants, from those of the state and of ys.

        `which` are the numbers of the ys that have a gradient.
        """
        first = self.trace.states
        numbers = [*range(first), *(first + i for i in which)]
        roots = [
            (node, self._gradient(i))
            for i in numbers
            if (node := self.trace.results[i]._node) is not None
        ]
        self.trace.differentiating = True
        with enable_grad():
            found = run(roots, namespaces, retain=True)
        leaves = [*self.trace.arguments, *self.trace.symbolic_invariants]
        return [found[x._node][0] if x._node in found else None for x in leaves]

    # -- loops -------------------------------------------------------------------------------------

    @property
    def given(self) -> dict[Expression, str]:
        """The values that both loops take, with the names of their arrays."""
        names = {x: f"a{x.number}" for x in self.invariants}
        names.update({x: f"s{i}" for i, x in enumerate(self.states)})
        names.update({x: f"x{i}" for i, x in enumerate(self.xs)})
        names.update({x: f"d{i}" for i, x in enumerate(self.draws)})
        return names

    def forward(self, recording: bool, ragged: bool) -> LoopFunction:
        """Return the forward loop; if `recording`, it keeps the values for the backward loop."""
        return self._cached(("forward", recording, ragged), self._forward, recording, ragged)

    def _forward(self, recording: bool, ragged: bool) -> LoopFunction:
        names = self.given
        targets = [(x, f"n{i}") for i, x in enumerate(self.new)]
        # In a ragged batch the state of ended sequences stays, and y does not.
        own = [ragged or same is None for same in self.same_as_state]
        targets += [(y, f"y{i}") for i, y in enumerate(self.ys) if own[i]]
        if recording:
            targets += [(x, f"z{i}") for i, x in enumerate(self.saved)]
        kernel = StepKernel(self.trace, names, targets, self.columns)
        lists = [*list(names.values())[len(self.invariants) :], *(name for _, name in targets)]
        before: list[str] = []
        after: list[str] = []
        if ragged:
            lists.append("m")
            for i in range(len(self.states)):
                before.append(f"p{i} = s{i}")
                before.append(f"if m is not None: s{i} = fill(s{i}, m); seen[{i}].append(s{i})")
                before.append(f"else: seen[{i}].append(s{i})")
                after.append(f"if m is not None: keep(n{i}, p{i}, m)")
        heads = [f"a{x.number}" for x in self.invariants] + ["seen"] * ragged
        loop = loop_source(heads, lists, kernel, [*before, *kernel.lines, *after], [])
        function = kernel.function(loop.source, {"fill": fill, "keep": keep})
        return loop._replace(function=function)

    def backward(
        self, which: tuple[int, ...], needed: tuple[bool, ...], ragged: bool, scaled: bool
    ) -> LoopFunction:
        """Return the backward loop.

        Parameters
        ----------
        which : tuple of int
            The numbers of the ys that have a gradient.
        needed : tuple of bool
            Which elements of the state, of the input, and which invariants need one.
        ragged : bool
            Whether the loop takes masks.
        scaled : bool
            Whether the loop takes the weights of edges.
        """
        key = which, needed, ragged, scaled
        return self._cached(key, self._backward, *key)

    def derivative(self, which: tuple[int, ...], needed: tuple[bool, ...]) -> Derivative:
        """Return the backward pass of a step; arguments as of `backward`."""
        grads = self._gradients(which)
        count, first = len(self.arguments), len(self.states)
        of_states = grads[:first]
        of_inputs = [g if need else None for g, need in zip(grads, needed, strict=True)]
        wanted_terms = [terms_of(g) if g is not None else [] for g in of_inputs[count:]]
        of_inputs = of_inputs[first:count]
        joins = [g for g in of_inputs if g is not None]
        terms = [[*zip(t, shared_factors(t, joins), strict=True)] for t in wanted_terms]
        names = self.given
        names.update({self.new[i]: f"n{i}" for i in self.distinct_new})
        names.update({x: f"z{i}" for i, x in enumerate(self.saved)})
        live = [i for i in range(first) if self.differentiable[i]]
        names.update({self._gradient(i): f"g{i}" for i in live})
        names.update({self._gradient(first + i): f"gy{i}" for i in which})
        targets = [(of_states[i], f"h{i}") for i in live if of_states[i] is not None]
        targets += [(g, f"r{i}") for i, g in enumerate(of_inputs) if g is not None]
        kept: dict[Expression, None] = {}
        added: dict[Expression, int] = {}
        have = {*self.arguments, *self.draws, *self.saved, *self.new}
        have.update(g for g in of_inputs if g is not None)
        for term in (part for pairs in terms for _, parts in pairs for part in parts):
            for x in term.values:
                if term.kind == "value":
                    added.setdefault(x, len(added))
                elif x not in have:
                    kept[x] = None
        collected = list(kept)
        targets += [(x, f"c{i}") for i, x in enumerate(collected)]
        zero = [i for i in live if of_states[i] is None]
        return Derivative(names, targets, live, zero, of_inputs, collected, terms, added)

    def _backward(
        self, which: tuple[int, ...], needed: tuple[bool, ...], ragged: bool, scaled: bool
    ) -> LoopFunction:
        step = self.derivative(which, needed)
        names, live = step.given, step.live
        wanted: list[tuple[Expression, str | None]] = [
            *step.targets, *((x, None) for x in step.added)
        ]  # fmt: skip
        kernel = StepKernel(self.trace, names, wanted, self.columns)
        constant = {*(names[x] for x in self.invariants), *(f"g{i}" for i in live)}
        lists = [name for name in names.values() if name not in constant]
        lists += [name for _, name in step.targets if not name.startswith("h")]
        before = []
        after = [f"add(e{i}, {kernel.names[x]}, out=e{i})" for x, i in step.added.items()]
        after += [f"copyto(h{i}, 0)" for i in step.zero]
        if ragged:
            lists.append("m")
            before += [f"if m is not None: o{i} = hold(g{i}, m)" for i in live]
            after += [f"if m is not None: release(h{i}, o{i}, m)" for i in live]
        if scaled:
            lists += ["w", "u"]
            after += [f"if w != 1: scale(h{i}, w, u)" for i in live]
        after += [f"g{i}, h{i} = h{i}, g{i}" for i in live]
        heads = [f"a{x.number}" for x in self.invariants]
        heads += [name for i in live for name in (f"g{i}", f"h{i}")]
        heads += [f"e{i}" for i in step.added.values()]
        returned = [f"g{i}" for i in live]
        loop = loop_source(heads, lists, kernel, [*before, *kernel.lines, *after], returned)
        scope = {"hold": hold, "release": release, "scale": scale}
        return loop._replace(function=kernel.function(loop.source, scope), derivative=step)

    @property
    def everything(self) -> tuple[list[Expression], Kernel]:
        """All values that the graph of a step holds, and the kernel that computes them."""
        return self._cached("everything", self._everything)

    def _everything(self) -> tuple[list[Expression], Kernel]:
        values = {x: None for x in self.results}
        for node in self.trace.nodes:
            values.update(dict.fromkeys(expressions_in(getattr(node, "saved", ()))))
        wanted = list(values)
        return wanted, Kernel(self.trace, [*self.arguments, *self.invariants, *self.draws], wanted)

    def _cached(self, key: Any, make: Callable[..., Any], *args: Any) -> Any:
        """Return a loop that was made before, or make it: one thread at a time."""
        if key not in self._kernels:
            with lock:  # new expressions get numbers
                if key not in self._kernels:
                    self._kernels[key] = make(*args)
        return self._kernels[key]


def loop_source(
    heads: list[str],
    lists: list[str],
    kernel: StepKernel,
    body: Sequence[str],
    returned: Sequence[str],
) -> LoopFunction:
    """Return the source of a loop: `lists` are iterated together, `heads` are constant."""
    lists = list(dict.fromkeys(lists))
    setup = "".join(f"    {line}\n" for line in kernel.prologue)
    inside = "".join(f"        {line}\n" for line in body) or "        pass\n"
    names = "".join(f"{name}, " for name in lists)
    source = (
        f"def kernel({', '.join([*heads, *lists])}):\n{setup}"
        f"    for {names}in zip({names}):\n{inside}"
        f"    return ({''.join(f'{name}, ' for name in returned)})\n"
    )
    return LoopFunction(source, heads, lists)


# -- ragged batches and weights of edges -----------------------------------------------------------


class StepMask(NamedTuple):
    """Which sequences have ended before a step, (B,), and the row of the longest sequence."""

    ended: Any
    longest: int | None


def fill(x: Any, mask: StepMask) -> Any:
    """Return a state with the longest sequence's row in place of those of ended sequences."""
    if mask.longest is None:
        return x
    filled = x.copy("K")
    filled[mask.ended] = x[mask.longest]
    return filled


def keep(new: Any, old: Any, mask: StepMask) -> None:
    """Write the old state of ended sequences to the new state."""
    new[mask.ended] = old[mask.ended]


def hold(grad: Any, mask: StepMask) -> Any:
    """Return the rows of a gradient that pass by the step, and set them to 0 in the gradient."""
    rows = grad[mask.ended]
    grad[mask.ended] = 0
    return rows


def release(grad: Any, rows: Any, mask: StepMask) -> None:
    """Write the rows that passed by the step to the gradient of the old state."""
    grad[mask.ended] = rows


def scale(grad: Any, weight: float, alive: Any) -> None:
    """Multiply a gradient by the weight of an edge; a weight of 0 sets zero, also for nan."""
    if alive is None:
        grad *= weight
        if weight == 0:
            grad[...] = 0
    else:
        grad[alive] *= weight
        if weight == 0:
            grad[alive] = 0
