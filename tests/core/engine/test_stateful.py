"""Random programs on the engine and on a model of it, step by step.

The model is NumPy and Python only, and differentiates forwards: beside each value stands its
Jacobian by every value it was computed from, carried along by the differential of each operation.
It has no backward pass, no order of nodes, no pending gradients. It also says which passes must be
refused (a graph that was freed, a saved array that was written to) and which nodes must be alive.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import tinygrad_rnn as tg
from tinygrad_rnn.errors import GraphError
from tinygrad_rnn.testing import arrays, indices

clock = itertools.count(1)


# -- the model -------------------------------------------------------------------------------------


class Memory:
    """What a leaf and its views share: when it was written to."""

    written = 0


class ModelNode:
    """An operation that took place: its arguments' nodes, and the memories whose values it kept."""

    def __init__(self, parents: list[Any], kept: list[Memory]) -> None:
        self.order = next(clock)
        self.parents = [p for p in parents if p is not None]
        self.kept = kept
        self.leaf = not parents
        self.freed = self.begun = False  # a refused pass may have freed a part of it


class Value:
    """An array, its Jacobians by earlier values, its place in the graph.

    `source` is the memory of the leaf that it was read from, also if NumPy copied what was read.
    """

    def __init__(
        self, value: Any, node: Any, memory: Any, jacobians: dict[int, Any], source: Any = None
    ) -> None:
        self.value, self.node, self.memory, self.source = value, node, memory, source or memory
        self.id = next(clock)
        self.jacobians = jacobians
        if node is not None:
            self.jacobians = {**jacobians, self.id: np.eye(value.size)}
        self.grad: Any = None


def matrix(differential: Callable[[Any], Any], shape: tuple[int, ...]) -> Any:
    """The matrix of a linear function of arrays of a shape."""
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    columns = [np.ravel(differential(unit)) for unit in units]
    return np.stack(columns, axis=1)


class Operation:
    """An operation of ours, NumPy's, its differentials, and which arguments each of them reads."""

    def __init__(
        self, ours: Any, forward: Any, differentials: Any, reads: Any = (), **options: bool
    ) -> None:
        self.ours, self.forward, self.differentials = ours, forward, differentials
        self.reads, self.view = reads, options.get("view")
        self.replayed = options.get("replayed")

    def apply(self, *args: Value, recorded: bool = True) -> Value:
        values = [a.value for a in args]
        out = np.asarray(self.forward(*values))
        tracked = recorded and any(a.node is not None for a in args)
        memory = source = None
        if self.view:
            source = args[0].source if tracked else None
            if np.may_share_memory(out, values[0]):
                memory = args[0].memory
            elif not tracked and args[0].memory is not None:
                memory = Memory()  # a copy, as of a number that is read: it is written to by itself
        if not tracked:
            return Value(out, None, memory, {})
        kept = [
            args[k].source if self.replayed else args[k].memory
            for i, k in self.reads
            if args[i].node is not None
        ]
        kept = [m for m in kept if m is not None]
        jacobians: dict[int, Any] = {}
        for a, differential in zip(args, self.differentials(*values), strict=True):
            local = matrix(differential, a.value.shape) if a.node is not None else None
            for key, jacobian in a.jacobians.items():
                jacobians[key] = jacobians.get(key, 0) + local @ jacobian
        return Value(out, ModelNode([a.node for a in args], kept), memory, jacobians, source)


def linear(ours: Any, forward: Any, view: bool = False) -> Operation:
    """An operation of one argument that is its own differential."""
    return Operation(ours, forward, lambda x: [forward], view=view)


BOTH = ((0, 1), (1, 0))  # the differential by each of two arguments reads the other
ALL = tuple(itertools.product(range(2), range(2)))  # it is computed again from all of them
UNARY = {
    "tanh": Operation(tg.tanh, np.tanh, lambda x: [lambda d: (1 - np.tanh(x) ** 2) * d]),
    "sin": Operation(tg.sin, np.sin, lambda x: [lambda d: np.cos(x) * d], ((0, 0),)),
    "square": Operation(lambda x: x**2, np.square, lambda x: [lambda d: 2 * x * d], ((0, 0),)),
    "triple": linear(lambda x: x * 3, lambda x: x * 3),
    "sum": linear(lambda x: x.sum(), np.sum),
    "columns": linear(lambda x: x.mean(axis=-1), lambda x: x.mean(axis=-1)),
    "flat": linear(lambda x: x.reshape(-1), lambda x: x.reshape(-1), view=True),
    "again": linear(lambda x: x[None], lambda x: x[None], view=True),
}
BINARY = {
    "+": Operation(
        lambda x, y: x + y,
        np.add,
        lambda x, y: [lambda d: d + np.zeros_like(y), lambda d: d + np.zeros_like(x)],
    ),
    "-": Operation(
        lambda x, y: x - y,
        np.subtract,
        lambda x, y: [lambda d: d - np.zeros_like(y), lambda d: np.zeros_like(x) - d],
    ),
    "*": Operation(
        lambda x, y: x * y, np.multiply, lambda x, y: [lambda d: d * y, lambda d: x * d], BOTH
    ),
    "@": Operation(
        lambda x, y: x @ y, np.matmul, lambda x, y: [lambda d: d @ y, lambda d: x @ d], BOTH
    ),
    "@T": Operation(
        lambda x, y: x @ y.T,
        lambda x, y: x @ y.T,
        lambda x, y: [lambda d: d @ y.T, lambda d: x @ d.T],
        BOTH,
    ),
    "join": Operation(
        lambda x, y: tg.concatenate([x, y]),
        lambda x, y: np.concatenate([x, y]),
        lambda x, y: [
            lambda d: np.concatenate([d, 0 * y]),
            lambda d: np.concatenate([0 * x, d]),
        ],
    ),
}


def reading(key: Any) -> Operation:
    return linear(lambda x: x[key], lambda x: x[key], view=True)


def checkpointed() -> Operation:
    """Return an operation that is computed again, unless a leaf that it read was written to.

    Of a tensor without a graph it is only known that it is read if it is an argument.
    """

    def ours(x: tg.Tensor, y: tg.Tensor) -> Any:
        if y.requires_grad:
            return tg.checkpoint(lambda z: tg.sin(z) * y, x)
        return tg.checkpoint(lambda z, y: tg.sin(z) * y, x, y)

    return Operation(
        ours,
        lambda x, y: np.sin(x) * y,
        lambda x, y: [lambda d: np.cos(x) * y * d, lambda d: np.sin(x) * d],
        ALL,
        replayed=True,
    )


def above(node: Any) -> list[Any]:
    """A node and all that it was computed from, newest first."""
    found, stack = {node}, [node]
    while stack:
        new = [p for p in stack.pop().parents if p not in found]
        found.update(new)
        stack += new
    return sorted(found, key=lambda n: -n.order)


# -- both, side by side ----------------------------------------------------------------------------

NUMBERS = st.integers(-15, 15).map(lambda n: n / 10)
LEAVES = st.sampled_from([(), (2,), (3,), (2, 2), (3, 2), (1, 3)]).flatmap(
    lambda shape: arrays(shape, NUMBERS)
)
LARGEST, MOST = 12, 4.0  # elements of a value, and their size: past these, it is not gone on with


class Programs(RuleBasedStateMachine):
    """Pairs of a Tensor and its model, what was done to them, and what must hold at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[tg.Tensor, Value]] = []
        self.watched: list[tuple[Any, Any]] = []
        self.was_collecting = gc.isenabled()
        gc.collect()
        gc.disable()  # what is only in a cycle stays, and is seen

    def teardown(self) -> None:
        self.pairs.clear()
        try:
            self.check_what_is_alive()
        finally:
            if self.was_collecting:
                gc.enable()

    def keep(self, tensor: tg.Tensor, value: Value) -> None:
        assert tensor.shape == value.value.shape
        assert tensor.requires_grad == (value.node is not None)
        self.pairs.append((tensor, value))
        if value.node is not None:
            self.watched.append((weakref.ref(tensor._node), weakref.ref(value.node)))

    def pick(self, data: Any, where: Callable[[Value], bool] = lambda v: True) -> Any:
        fitting = [pair for pair in self.pairs if where(pair[1])]
        return data.draw(st.sampled_from(fitting)) if fitting else None

    def leaf(self, data: Any) -> Any:
        return self.pick(data, lambda v: v.node is not None and v.node.leaf)

    def computed(self, data: Any) -> Any:
        return self.pick(data, lambda v: v.node is not None and not v.node.leaf)

    # -- programs

    @initialize(values=st.lists(LEAVES, min_size=2, max_size=3))
    def start(self, values: list[Any]) -> None:
        for value in values:
            self.new_leaf(value, True)

    @rule(value=LEAVES, requires_grad=st.booleans())
    def new_leaf(self, value: Any, requires_grad: bool) -> None:
        node = ModelNode([], []) if requires_grad else None
        tensor = tg.tensor(value, requires_grad=requires_grad)
        self.keep(tensor, Value(value.copy(), node, Memory(), {}))

    def do(self, operation: Operation, *pairs: Any, recorded: bool = True) -> None:
        try:
            model = operation.apply(*[value for _, value in pairs], recorded=recorded)
        except (
            ValueError,
            IndexError,
        ):  # shapes that do not fit
            return
        if not 0 < model.value.size <= LARGEST or np.abs(model.value).max() > MOST:
            return
        tensors = [tensor for tensor, _ in pairs]
        if recorded:
            self.keep(operation.ours(*tensors), model)
        else:
            with tg.no_grad():
                self.keep(operation.ours(*tensors), model)

    @rule(data=st.data(), name=st.sampled_from(sorted(UNARY)), recorded=st.integers(0, 9))
    def unary(self, data: Any, name: str, recorded: int) -> None:
        self.do(UNARY[name], self.pick(data), recorded=recorded > 0)

    @rule(data=st.data(), name=st.sampled_from(sorted(BINARY)), recorded=st.integers(0, 9))
    def binary(self, data: Any, name: str, recorded: int) -> None:
        self.do(BINARY[name], self.pick(data), self.pick(data), recorded=recorded > 0)

    @rule(data=st.data())
    def read(self, data: Any) -> None:
        pair = self.pick(data)
        self.do(reading(data.draw(indices(pair[1].value.shape))), pair)

    @rule(data=st.data())
    def iterate(self, data: Any) -> None:
        tensor, value = pair = self.pick(data)
        if value.value.ndim:
            for i, part in enumerate(tensor):
                self.keep(part, reading(i).apply(value))
            del part
        del pair

    @rule(data=st.data())
    def checkpoint(self, data: Any) -> None:
        x, y = self.pick(data), self.pick(data)
        self.do(checkpointed(), x, y)

    @rule(data=st.data())
    def detach(self, data: Any) -> None:
        tensor, value = self.pick(data)
        self.keep(tensor.detach(), Value(value.value, None, value.memory, {}))

    @precondition(lambda self: len(self.pairs) > 2)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        del self.pairs[data.draw(st.integers(0, len(self.pairs) - 1))]

    # -- passes

    def refusals(self, root: Value, wanted: list[Value] | None, retain: bool) -> list[str]:
        """Walk the model's nodes as a pass does; return why it may be refused, [] if it is not.

        An operation of the model may be several nodes of ours. The pass that finds a written array
        has then freed the newer ones of these, and says so when it is called again.
        """
        nodes = above(root.node)
        if wanted is None:
            pulled = [n for n in nodes if not n.leaf]
        else:
            live = {w.node for w in wanted}
            for n in reversed(nodes):
                if any(p in live for p in n.parents):
                    live.add(n)
            pulled = [n for n in nodes if any(p in live for p in n.parents)]
        for n in pulled:
            if n.freed:
                return ["second time"]
            if any(memory.written > n.order for memory in n.kept):
                begun, n.begun = n.begun, n.begun or not retain
                return ["changed in place", *["second time"] * begun]
            n.freed = not retain
        return []

    @rule(data=st.data(), retain=st.booleans())
    def backward(self, data: Any, retain: bool) -> None:
        pair = self.computed(data)
        if pair is None:
            return
        tensor, value = pair
        u = data.draw(arrays(value.value.shape, NUMBERS))
        try:
            tensor.backward(u, retain_graph=retain)
        except GraphError as error:
            message = str(error)
        else:
            message = ""
        refusals = self.refusals(value, None, retain)
        assert_refused(message, refusals)
        if not refusals:
            for _, v in self.pairs:
                if v.node is not None and v.node.leaf and v.id in value.jacobians:
                    add = (u.ravel() @ value.jacobians[v.id]).reshape(v.value.shape)
                    v.grad = add if v.grad is None else v.grad + add

    @rule(data=st.data(), retain=st.booleans(), create_graph=st.booleans())
    def grad(self, data: Any, retain: bool, create_graph: bool) -> None:
        pair = self.computed(data)
        if pair is None:
            return
        tensor, value = pair
        tracked = [p for p in self.pairs if p[1].node is not None]
        wanted = data.draw(st.lists(st.sampled_from(tracked), min_size=1, max_size=3))
        u = data.draw(arrays(value.value.shape, NUMBERS))
        try:
            gradients = tg.grad(
                tensor,
                [t for t, _ in wanted],
                u,
                retain_graph=retain,
                create_graph=create_graph,
                allow_unused=True,
            )
        except GraphError as error:
            message, gradients = str(error), ()
        else:
            message = ""
        assert_refused(message, self.refusals(value, [v for _, v in wanted], retain))
        for (_, v), gradient in zip(wanted, gradients, strict=False):
            if v.id not in value.jacobians:
                assert gradient is None
                continue
            expected = (u.ravel() @ value.jacobians[v.id]).reshape(v.value.shape)
            close(gradient.numpy(), expected)

    # -- writes

    @rule(data=st.data())
    def write_into_a_leaf(self, data: Any) -> None:
        pair = self.pick(data, lambda v: v.memory is not None and v.value.base is None)
        if pair is not None and pair[0].is_leaf:
            new = data.draw(arrays(pair[1].value.shape, NUMBERS))
            pair[0].data = new
            pair[1].value[...] = new
            pair[1].memory.written = next(clock)

    @rule(data=st.data())
    def scale_a_gradient_in_place(self, data: Any) -> None:
        pair = self.leaf(data)
        if pair is not None and pair[1].grad is not None:
            pair[0].grad.data[...] *= 0.5
            pair[1].grad = pair[1].grad * 0.5

    @rule(data=st.data())
    def forget_a_gradient(self, data: Any) -> None:
        pair = self.leaf(data)
        if pair is not None:
            pair[0].grad = pair[1].grad = None

    @rule(data=st.data())
    def writes_that_are_refused(self, data: Any) -> None:
        pair = self.computed(data)
        if pair is None:
            return
        tensor, value = pair
        for write in (
            lambda: setattr(tensor, "data", value.value),
            lambda: tensor.data.__setitem__(..., 7.0),
            lambda: tensor.__setitem__(..., 7.0),
            lambda: setattr(tensor, "grad", tensor.detach()),
            lambda: setattr(tensor, "requires_grad", False),
        ):
            refused = False
            try:
                write()
            except (GraphError, ValueError):
                refused = True
            assert refused

    # -- what must hold

    @invariant()
    def check_values(self) -> None:
        for tensor, value in self.pairs:
            close(tensor.numpy(), value.value)

    @invariant()
    def check_gradients(self) -> None:
        for tensor, value in self.pairs:
            if value.node is not None and value.node.leaf:
                assert (tensor.grad is None) == (value.grad is None)
                if value.grad is not None:
                    close(tensor.grad.numpy(), value.grad)
            else:
                assert tensor.grad is None

    @invariant()
    def check_what_is_alive(self) -> None:
        """A node lives as long as somebody can ask for it, and no longer, without a collector."""
        for node, model in self.watched:
            assert (node() is None) == (model() is None), (node(), model())
        self.watched = [pair for pair in self.watched if pair[1]() is not None]


def assert_refused(message: str, refusals: list[str]) -> None:
    """Assert that a pass was refused for one of these reasons, or not at all if there are none."""
    expected = any(refusal in message for refusal in refusals) if refusals else not message
    assert expected, (refusals, message)


def close(found: Any, expected: Any) -> None:
    scale = np.abs(expected).max(initial=1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10 * scale)


Programs.TestCase.settings = settings(stateful_step_count=40)
TestPrograms = Programs.TestCase
