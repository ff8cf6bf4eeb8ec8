"""What a graph saved stays as it was: the user may fill an array anew before the backward pass.

An array that is an argument is copied where its memory would live on, in what is saved or in the
result. A view of a Tensor shares the Tensor's version, so that a write to it is noticed.
"""

from __future__ import annotations

import array
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ops import every_row, listed

import tinygrad_rnn as tg
from op_table import ROWS
from tinygrad_rnn._util.nested import leaves, map_nested
from tinygrad_rnn.errors import GraphError

MEMORY = settings(max_examples=max(5, settings.default.max_examples // 2))
KEYED = ("F.getitem", "F.scatter")  # the functions above these copy the keys


def refilled(value: Any) -> None:
    """Write other numbers to every array in nested containers, so that any use of them shows."""
    for x in leaves(value):
        if isinstance(x, np.ndarray) and x.dtype.kind == "b":
            np.logical_not(x, out=x)
        elif isinstance(x, np.ndarray):
            x[...] = 0 if x.dtype.kind in "iu" else 77


def weighed(outputs: list[Any]) -> Any:
    """One number that depends on every element in its own way."""
    terms = [
        (y.astype(np.float64) * np.cos(np.arange(y.size)).reshape(y.shape)).sum() for y in outputs
    ]
    return sum(terms[1:], terms[0]) if terms else None


# -- operations ------------------------------------------------------------------------------------


def with_buffers(row: Any, case: Any, which: int, between: Callable[[Any], None]) -> Any:
    """The gradient of one argument, the others being arrays that `between` is called with."""
    buffers = [np.array(x) for x in case.arrays]
    keywords = copy.deepcopy(case.keywords)
    args: list[Any] = list(buffers)
    args[which] = tg.tensor(buffers[which], requires_grad=True)
    loss = weighed(
        [y for y in listed(row.function(*args, **keywords)) if y.requires_grad and y.size]
    )
    between([buffers, keywords])
    return None if loss is None else tg.grad(loss, args[which]).numpy()


@pytest.mark.parametrize("row", [row for row in ROWS if row.smooth], ids=lambda row: row.name)
@MEMORY
@given(data=st.data())
def test_arguments_that_are_filled_anew_change_no_gradient(row, data):
    case = data.draw(row.cases)
    which = data.draw(st.integers(0, len(case.arrays) - 1))
    expected = with_buffers(row, case, which, lambda buffers: None)
    between = (lambda given: refilled(given[:1])) if row.name in KEYED else refilled
    found = with_buffers(row, case, which, between)
    np.testing.assert_array_equal(found, expected)


@every_row
@MEMORY
@given(data=st.data())
def test_a_result_is_not_the_memory_of_an_array(row, data):
    case = data.draw(row.cases)
    buffers, keywords = [np.array(x) for x in case.arrays], copy.deepcopy(case.keywords)
    outputs = listed(row.function(*buffers, **keywords))
    if not all(isinstance(y, tg.Tensor) for y in outputs):
        return  # of arrays alone some of them, such as cast, are not asked for a Tensor
    values = [y.numpy() for y in outputs]
    refilled([buffers, keywords])
    for y, value in zip(outputs, values, strict=True):
        np.testing.assert_array_equal(y.numpy(), value)


@every_row
@MEMORY
@given(data=st.data())
def test_a_view_of_a_tensor_shares_its_version(row, data):
    case = data.draw(row.cases)
    tensors = [tg.tensor(x) for x in case.arrays]
    for y in listed(row.function(*tensors, **case.keywords)):
        for x in tensors:
            if np.shares_memory(y._data, x._data):
                assert y._version is x._version


@pytest.mark.parametrize(
    "show",
    [lambda x: x, lambda x: x.T, lambda x: x[::-1], lambda x: x.reshape(-1), lambda x: x[:1]],
)
def test_an_operation_of_ones_own_that_returns_its_argument(show):
    """It says by ``view=True`` that its result may do so; without that, the result is a copy."""

    @tg.primitive(x=None)
    def shown(xp, x):
        return show(x)

    buffer, x = np.ones((2, 3)), tg.ones(2, 3, dtype=np.float64)
    for argument in (buffer, x):
        w = leaf(*show(np.ones((2, 3))).shape)
        loss = (shown(argument) * w).sum()
        buffer[...] = 0
        x.data = buffer
        assert np.array_equal(tg.grad(loss, w).numpy(), np.ones(w.shape))
        x.data = np.ones((2, 3))


# -- layers, losses and other functions ------------------------------------------------------------

F64 = {"dtype": np.float64}
TARGET = np.array([[0.25, 1.0, 0.0], [0.5, 0.0, 1.0]])
IDS = np.array([[0, 2, 1], [1, 1, 0]])
SEQUENCE = np.linspace(-1, 1, 24).reshape(4, 2, 3)
ROW = np.linspace(-1, 1, 3)


def layer(kind: Any, *sizes: Any, **options: Any) -> Any:
    """A layer with seeded parameters, and a function of arrays that calls it."""
    made = kind(*sizes, **F64, **options)
    for i, p in enumerate(made.parameters()):
        p.data = np.random.default_rng(i).normal(size=p.shape)
    return made


def leaf(*shape: int) -> Any:
    return tg.tensor(np.random.default_rng(9).normal(size=shape), requires_grad=True)


def of_layer(made: Any, *more: Any) -> Any:
    return lambda *args: (made(*args), list(made.parameters()))


def of_loss(loss: Callable[..., Any], *shape: int, **options: Any) -> Any:
    def call(target: Any) -> Any:
        x = leaf(*shape)
        return loss(x, target, **options), [x]

    return call


def of_function(function: Callable[..., Any], *shape: int) -> Any:
    def call(*args: Any) -> Any:
        x = leaf(*shape)
        return function(x, *args), [x]

    return call


@tg.primitive(x=lambda F, g, tables, scale: g * (tables["b"][0] * scale))
def looked_up(xp, x, tables, scale=1.0):
    return x * (tables["b"][0] * scale)


@tg.fuse
def product(x, y, z):
    return x * y * z


@tg.primitive(joint=lambda F, g, inputs, w: [g * w for _ in inputs])
def sum_of(xp, *inputs, w):
    return sum(inputs) * w


CALLS: dict[str, tuple[Callable[..., Any], Any]] = {
    "Linear": (of_layer(layer(tg.nn.Linear, 3, 2)), [TARGET]),
    "Linear of a vector": (of_layer(layer(tg.nn.Linear, 3, 2)), [ROW]),
    "Linear without bias": (of_layer(layer(tg.nn.Linear, 3, 2, bias=False)), [TARGET]),
    "Embedding": (of_layer(layer(tg.nn.Embedding, 3, 2)), [IDS]),
    "LayerNorm": (of_layer(layer(tg.nn.LayerNorm, 3)), [TARGET]),
    "Dropout in evaluation": (
        lambda x: (tg.nn.Dropout(0.5).eval()(x) * (w := leaf(2, 3)), [w]),
        [TARGET],
    ),
    "dropout of nothing": (
        lambda x: (tg.functional.dropout(x, 0.0) * (w := leaf(2, 3)), [w]),
        [TARGET],
    ),
    "masked": (
        of_function(lambda x, mask: tg.functional.masked(x, mask, 0.5) ** 2, 2, 3),
        [TARGET > 0.4],
    ),
    "RNNCell": (of_layer(layer(tg.nn.RNNCell, 3, 3)), [TARGET, TARGET.copy()]),
    "GRUCell": (of_layer(layer(tg.nn.GRUCell, 3, 3)), [TARGET, TARGET.copy()]),
    "LSTMCell": (
        of_layer(layer(tg.nn.LSTMCell, 3, 3)),
        [TARGET, (TARGET.copy(), TARGET.copy())],
    ),
    "RNN": (of_layer(layer(tg.nn.RNN, 3, 3)), [SEQUENCE, SEQUENCE[:1].copy()]),
    "GRU with lengths": (
        of_layer(layer(tg.nn.GRU, 3, 3, batch_first=False)),
        [SEQUENCE, SEQUENCE[:1].copy(), np.array([4, 2])],
    ),
    "LSTM": (
        of_layer(layer(tg.nn.LSTM, 3, 3)),
        [SEQUENCE, (SEQUENCE[:1].copy(), SEQUENCE[:1].copy())],
    ),
    "GRU, checkpointed": (
        of_layer(layer(tg.nn.GRU, 3, 3, bptt=tg.bptt.Full(checkpoint=True))),
        [SEQUENCE, SEQUENCE[:1].copy()],
    ),
    "cross_entropy": (of_loss(tg.functional.cross_entropy, 2, 3, 4), [IDS]),
    "cross_entropy, ignoring": (
        of_loss(tg.functional.cross_entropy, 2, 3, 4, ignore_index=1, reduction="sum"),
        [IDS],
    ),
    "cross_entropy, smoothed": (
        of_loss(tg.functional.cross_entropy, 2, 3, 4, label_smoothing=0.1),
        [IDS],
    ),
    "mse_loss": (of_loss(tg.functional.mse_loss, 2, 3), [TARGET]),
    "binary_cross_entropy": (
        of_loss(tg.functional.binary_cross_entropy_with_logits, 2, 3),
        [TARGET],
    ),
    "binary_cross_entropy of integers": (
        of_loss(tg.functional.binary_cross_entropy_with_logits, 2, 3),
        [IDS % 2],
    ),
    "linear": (of_function(tg.functional.linear, 2, 3), [tg.tensor(TARGET), ROW[:2]]),
    "layer_norm": (
        of_function(lambda x, w, b: tg.functional.layer_norm(x, 3, w, b), 2, 3),
        [ROW, ROW.copy()],
    ),
    "one_hot": (
        of_function(lambda x, ids: tg.functional.one_hot(ids, 3, np.float64) * x, 2, 3, 3),
        [IDS],
    ),
    "embedding": (of_function(lambda x, ids: tg.functional.embedding(ids, x), 3, 2), [IDS]),
    "checkpoint": (
        of_function(lambda x, y: tg.checkpoint(lambda x, y: x * y, x, y), 2, 3),
        [TARGET],
    ),
    "checkpoint, nested": (
        of_function(lambda x, y: tg.checkpoint(lambda x, y: x * y["a"][0] + y["b"][0], x, y), 2, 3),
        [{"a": [TARGET], "b": (TARGET.copy(),)}],
    ),
    "a primitive of one's own": (
        of_function(looked_up, 2, 3),
        [{"b": [TARGET]}, np.array(2.0)],
    ),
    "a joint one": (of_function(lambda x, y, w: sum_of(x, y, w=w), 2, 3), [TARGET, ROW]),
    "fuse": (of_function(product, 2, 3), [TARGET, ROW]),
    "scale_gradient": (
        of_function(lambda x, y: tg.bptt.scale_gradient(x, 0.5) * y, 2, 3),
        [TARGET],
    ),
    "restore": (
        of_function(lambda x, y: x * tg.bptt.restore([y])[0], 2, 3),
        [TARGET],
    ),
    "tensor": (of_function(lambda x, y: x * tg.tensor(y), 2, 3), [TARGET]),
    "Parameter": (of_function(lambda x, y: x * tg.nn.Parameter(tg.tensor(y)), 2, 3), [TARGET]),
    "data": (of_function(lambda x, y: x * written(y), 2, 3), [TARGET]),
    "index": (of_function(lambda x, i, m: x[i, 1] * x[m].sum(), 2, 3), [IDS % 2, TARGET > 0.4]),
    "take_along_axis": (of_function(tg.take_along_axis, 2, 3), [IDS]),
    "jvp": (
        of_function(lambda x, y, v: tg.jvp(lambda a: a * a * x, y, v, True)[1], 2, 3),
        [TARGET, TARGET.copy()],
    ),
    "spectral radius and others": (
        of_function(lambda x, y: tg.where(y, x, tg.maximum(x, 0.0)) * x, 2, 3),
        [TARGET > 0.4],
    ),
}


def written(array: np.ndarray) -> tg.Tensor:
    x = tg.zeros(array.shape, dtype=array.dtype)
    x.data = array
    return x


def gradients(name: str, convert: Callable[[Any], Any], between: Callable[[Any], None]) -> Any:
    function, given = CALLS[name]
    args = map_nested(lambda x: convert(x.copy()) if isinstance(x, np.ndarray) else x, given)
    results, inputs = function(*args)
    floating = [y for y in leaves(results) if y.requires_grad]
    loss = weighed(floating)
    between(args)
    return [None if g is None else g.numpy() for g in tg.grad(loss, inputs, allow_unused=True)]


@pytest.mark.parametrize("name", CALLS)
def test_what_a_layer_was_given_may_be_filled_anew(name):
    expected = gradients(name, lambda x: x, lambda args: None)
    assert any(g is not None and np.abs(g).sum() for g in expected)
    found = gradients(name, lambda x: x, refilled)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# -- what is no array, and shows memory all the same -----------------------------------------------


class Storage:
    """An array of another library, that hands out its own memory."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.memory

    def __setitem__(self, key: Any, value: Any) -> None:
        self.memory[key] = value


MEMORIES: dict[str, Callable[[np.ndarray], Any]] = {
    "array.array": lambda values: array.array("f", values.tolist()),
    "memoryview": lambda values: memoryview(bytearray(values.tobytes())).cast("f"),
    "__array__": Storage,
}
kinds = pytest.mark.parametrize(
    "kind", [*MEMORIES, pytest.param("torch", marks=pytest.mark.oracle)]
)


def memory(kind: str) -> Any:
    """The numbers 1, 2, 3 in the memory of another library, or of Python."""
    values = np.array([1, 2, 3], np.float32)
    return MEMORIES[kind](values) if kind in MEMORIES else pytest.importorskip(kind).tensor(values)


@kinds
def test_a_tensor_of_a_buffer_is_a_copy(kind):
    theirs = memory(kind)
    for made in (tg.tensor(theirs), tg.tensor(theirs, requires_grad=True)):
        theirs[0] = 9
        assert made.numpy().tolist() == [1, 2, 3]
        made.detach().data = np.zeros(3)
        assert np.asarray(theirs)[0] == 9
        theirs[0] = 1


@kinds
def test_a_buffer_may_be_filled_anew(kind):
    theirs = memory(kind)
    x = tg.ones(3, requires_grad=True)
    losses = [
        (x * theirs).sum(),
        tg.functional.binary_cross_entropy_with_logits(x, [1, 0, 1]) * 0 + (theirs * x).sum(),
        tg.checkpoint(lambda x, y: x * y, x, tg.tensor(theirs)).sum(),
    ]
    for i in range(3):
        theirs[i] = 0
    for loss in losses:
        assert tg.grad(loss, x).numpy().tolist() == [1, 2, 3]


# -- a version goes on wherever the memory goes ----------------------------------------------------


def test_a_detached_value_that_becomes_a_leaf_has_memory_of_its_own():
    """A leaf is written to, by its user or an optimiser; the graph has saved the value."""
    w = tg.tensor([1.0, 2.0], requires_grad=True)
    h = w * w
    loss, start = (h * h).sum(), h.detach()
    start.requires_grad = True
    (start * 3).sum().backward()
    tg.optim.SGD([start], lr=1.0).step()
    start.data = np.zeros(2)
    loss.backward()
    np.testing.assert_array_equal(w.grad.numpy(), [4, 32])


SECOND = {
    "a primitive": lambda x, c: (x**3 * c).sum(),
    "a joint one": lambda x, c: tg.einsum("i,i,i,i->", x, x, x, c),
    "a fused function": lambda x, c: product(x * x, x, c).sum(),
    "rows": lambda x, c: (tg.functional.linear(x.reshape(1, 1, 2), c.reshape(1, 2)) ** 3).sum(),
}


@pytest.mark.parametrize("kind", SECOND)
@pytest.mark.parametrize("changed", ["leaf", "constant"])
def test_a_write_between_two_derivatives_is_noticed(kind, changed):
    """What the first derivative's graph saved is what the first pass read."""
    x, c = tg.tensor([1.0, 2.0], requires_grad=True), tg.tensor([2.0, 3.0])
    first = tg.grad(SECOND[kind](x, c), x, create_graph=True)
    loss = (first * first).sum()
    expected = tg.grad(loss, x, retain_graph=True).numpy()
    (x if changed == "leaf" else c).data = np.zeros(2)
    try:
        found = tg.grad(loss, x).numpy()
    except GraphError as error:
        assert "changed in place" in str(error)
    else:  # of values that were computed before
        np.testing.assert_array_equal(found, expected)


COPIES = {
    "rows": lambda x: x[[0, 1]],
    "a mask": lambda x: x[np.array([True, False])],
    "a number": lambda x: x[0, 0],
    "take": lambda x: x.take([1], axis=0),
    "embedding": lambda x: tg.functional.embedding([1, 1], x),
    "reshape": lambda x: x.T.reshape(-1),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_write_to_a_copy_is_none_to_the_tensor(kind, requires_grad):
    """Some operations return a view or a copy, by the key and the memory layout."""
    x = tg.tensor(TARGET, requires_grad=requires_grad)
    w = leaf(2, 3)
    loss = (x * x * w).sum()
    with tg.no_grad():
        part = COPIES[kind](x)
        part -= 7
        part[...] = 8
    assert not np.shares_memory(part._data, x._data)
    np.testing.assert_array_equal(part.numpy(), np.full(part.shape, 8.0))
    np.testing.assert_array_equal(tg.grad(loss, w).numpy(), TARGET**2)


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_that_a_graph_saved_is_not_written_to(kind):
    x = leaf(2, 3)
    part = COPIES[kind](x)
    loss = (part * part).sum()
    expected = tg.grad(loss, x, retain_graph=True).numpy()
    for held in (part, part.detach(), part.detach()[...]):
        with tg.no_grad():
            bound = held
            bound -= 7
            with pytest.raises(GraphError, match="by parts"):
                held[...] = 8
        assert bound is not held
    np.testing.assert_array_equal(tg.grad(loss, x).numpy(), expected)


def test_a_result_of_a_checkpoint_that_is_a_view_shares_the_version():
    c, w = tg.tensor([1.0, 2.0]), tg.ones(2, requires_grad=True)
    seen, _ = tg.checkpoint(lambda c, w: (c.detach(), c * w), c, w)
    loss = (seen * w).sum()
    c.data = np.zeros(2)
    with pytest.raises(GraphError, match="changed in place"):
        loss.backward()
