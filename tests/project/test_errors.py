"""What a user meets who gets it wrong: errors name the operation, what it saw, and the cure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn._util import api_hints as spelling
from tinygrad_rnn.errors import ArgumentError, DeviceError, DTypeError, GraphError, ShapeError

X = tg.ones(2, 3, requires_grad=True)
N = tg.tensor([[0, 1, 2], [2, 1, 0]])
E = tg.ones(0, 3)
ONE = tg.tensor(1.0)
SEQUENCE = tg.ones(5, 2, 3)
TWO_BY_FIVE = tg.ones(2, 5, 3)
DOUBLE = tg.ones(2, 3, dtype=tg.float64)
LINEAR, LSTM, GRU, CELL = (
    kind(3, 4) for kind in (tg.nn.Linear, tg.nn.LSTM, tg.nn.GRU, tg.nn.LSTMCell)
)
P = tg.nn.Parameter(tg.ones(2, 3))
IDS = np.arange(40) % 5
F, INIT, OPTIM, TEXT = tg.functional, tg.nn.init, tg.optim, tg.data.text
SCHEDULE = tg.optim.schedule
TASKS = tg.data.tasks

Misuse = tuple[Callable[[], Any], type[Exception], str]  # what is done, what is raised, and said


# -- families: one line for every function that a mistake can be made with -------------------------

REDUCTIONS = "sum mean max min prod var std logsumexp".split()
ALONG_ONE_AXIS = "argmax argmin cumsum softmax log_softmax".split()
UNARY = "abs sign exp expm1 log log1p sqrt sin cos tanh sigmoid relu softplus negative".split()
BINARY = """add subtract multiply divide power remainder floor_divide maximum minimum logaddexp
    equal not_equal less less_equal greater greater_equal""".split()
WITH_AN_AXIS = {
    "concatenate": lambda **k: tg.concatenate([X, X], **k),
    "stack": lambda **k: tg.stack([X, X], **k),
    "split": lambda **k: tg.split(X, 1, **k),
    "unbind": lambda **k: tg.unbind(X, **k),
    "squeeze": lambda **k: tg.squeeze(X, **k),
    "expand_dims": lambda **k: tg.expand_dims(X, **k),
    "take": lambda **k: tg.take(X, [0], **k),
    "take_along_axis": lambda **k: tg.take_along_axis(X, N, **k),
    "cross_entropy": lambda **k: F.cross_entropy(X, [0, 1], **k),
}
LAYERS = {
    "Linear": lambda: tg.nn.Linear(3, 4),
    "LayerNorm": lambda: tg.nn.LayerNorm(3),
    "Dropout": lambda: tg.nn.Dropout(0.5),
    "RNN": lambda: tg.nn.RNN(3, 4),
    "LSTM": lambda: tg.nn.LSTM(3, 4),
    "GRUCell": lambda: tg.nn.GRUCell(3, 4),
}
SIZED = {
    "Linear": tg.nn.Linear, "Embedding": tg.nn.Embedding, "RNN": tg.nn.RNN, "GRU": tg.nn.GRU,
    "LSTM": tg.nn.LSTM, "RNNCell": tg.nn.RNNCell, "LSTMCell": tg.nn.LSTMCell,
}  # fmt: skip
RULES = {name: getattr(OPTIM, name) for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")}
MAKERS = {
    "zeros": tg.zeros, "ones": tg.ones, "randn": tg.randn, "rand": tg.rand,
    "full": lambda *shape, **k: tg.full(shape, 1.0, **k),
}  # fmt: skip
FILLERS = "uniform normal xavier_uniform xavier_normal kaiming_uniform kaiming_normal orthogonal"


def families() -> Iterator[tuple[str, Misuse]]:
    for name in (*REDUCTIONS, *ALONG_ONE_AXIS):
        function, method = getattr(tg, name), getattr(X, name)
        yield (
            f"{name}(dim=)",
            (lambda f=function: f(X, dim=0), TypeError, f"{name} has.*axis= here"),
        )
        yield f".{name}(dim=)", (lambda f=method: f(dim=0), TypeError, f"{name} has.*axis= here")
        yield f"{name}(axis=5)", (
            lambda f=function: f(X, axis=5), ShapeError, rf"{name}.*axis 5 is out of",
        )  # fmt: skip
        yield f"{name}(axis='a')", (
            lambda f=function: f(X, axis="a"), (DTypeError, ArgumentError), f"{name}.*integer.*",
        )  # fmt: skip
        yield f"{name} of a word", (lambda f=function: f("word"), DTypeError, "real numbers only")
        yield f"{name}(aixs=)", (lambda f=function: f(X, aixs=0), TypeError, f"{name}.*axis")
    for name in REDUCTIONS:
        function = getattr(tg, name)
        yield f"{name}(keepdim=)", (
            lambda f=function: f(X, keepdim=True), TypeError, f"{name} has.*keepdims= here",
        )  # fmt: skip
    for name in UNARY:
        function = getattr(tg, name)
        yield f"{name} of a word", (lambda f=function: f("word"), DTypeError, "<U4.*real numbers")
        yield f"{name} of a complex number", (lambda f=function: f([1j]), DTypeError, "complex128")
        yield f"{name}(out=)", (lambda f=function: f(X, out=X), TypeError, f"{name}.*'out'")
    for name in BINARY:
        function = getattr(tg, name)
        yield f"{name} of shapes that differ", (
            lambda f=function: f(X, tg.ones(4)), ShapeError, rf"{name} of \(2, 3\) and \(4,\)",
        )  # fmt: skip
        yield f"{name} with None", (lambda f=function: f(X, None), DTypeError, "object")
    for name, call in WITH_AN_AXIS.items():
        yield f"{name}(dim=)", (lambda f=call: f(dim=0), TypeError, f"{name} has.*axis= here")
        yield f"{name}(axis=7)", (
            lambda f=call: f(axis=7), ShapeError, f"{name}.*axis 7 is out of",
        )  # fmt: skip
        yield f"{name}(axis=0.5)", (
            lambda f=call: f(axis=0.5), (DTypeError, ArgumentError), f"{name}.*integer",
        )  # fmt: skip
    for name, ours in spelling.TENSOR_HINTS.items():
        yield f"Tensor.{name}", (
            lambda n=name: getattr(X, n), AttributeError,
            f"Tensor has no attribute '{name}'; here it is {re.escape(ours)}",
        )  # fmt: skip
    for name, ours in spelling.PACKAGE_HINTS.items():
        if not hasattr(tg, name):
            yield f"tg.{name}", (
                lambda n=name: getattr(tg, n), AttributeError,
                f"'tinygrad_rnn' has no attribute '{name}'; here it is {re.escape(ours)}",
            )  # fmt: skip
    for name, make in LAYERS.items():
        yield f"{name} of a list", (
            lambda m=make: m()([1.0, 2.0, 3.0]), DTypeError, f"{name}: a Tensor is expected.*list",
        )  # fmt: skip
        yield f"{name} of None", (lambda m=make: m()(None), DTypeError, f"{name}.*NoneType None")
        if name != "Dropout":
            yield f"{name} of another dtype", (
                lambda m=make: m()(DOUBLE), DTypeError, f"{name}: input is float64.*astype",
            )  # fmt: skip
            yield f"{name} of another size", (
                lambda m=make: m()(tg.ones(2, 7)), ShapeError, rf"{name}: input.*\(2, 7\)",
            )  # fmt: skip
    for name, kind in SIZED.items():
        for size in (0, -1, 2.5, "3", None, True):
            yield f"{name}({size!r}, 4)", (
                lambda k=kind, s=size: k(s, 4), ArgumentError,
                f"{name}: .* must be a positive integer, got {size!r}",
            )  # fmt: skip
        yield f"{name}(hiden=)", (
            lambda k=kind: k(3, 4, hiden=1), TypeError, f"{name} has no argument 'hiden'.*it takes",
        )  # fmt: skip
        yield f"{name}(3)", (lambda k=kind: k(3), TypeError, f"{name}.*missing.*it takes")
        yield f"{name}(rng='a')", (lambda k=kind: k(3, 4, rng="a"), ArgumentError, "rng must be")
        yield f"{name}(dtype='int64')", (
            lambda k=kind: k(3, 4, dtype="int64"), DTypeError, "floating",
        )  # fmt: skip
        yield f"{name}(device='gpu')", (
            lambda k=kind: k(3, 4, device="gpu"), DeviceError, "unknown device 'gpu': use 'cpu'",
        )  # fmt: skip
    for name, rule in RULES.items():
        for label, wrong, message in (
            ("a tensor", P, "a list of tensors or module.parameters.. is expected, got a Param"),
            ("a module", LINEAR, "got a Linear"),
            ("nothing", [], "no parameters"),
            ("groups without a key", [{"weights": [P]}], "group 0 has no 'params': a group is a"),
            ("pairs", LINEAR.named_parameters(), r"parameters\(\) the parameters alone"),
            ("one twice", [P, P], "0 and 1 are the same"),
            ("no leaf", [P * 2], "result of an operation"),
            ("what has no gradient", [tg.ones(2)], "does not require a gradient"),
        ):
            wrong = list(wrong) if label == "pairs" else wrong
            yield f"{name} of {label}", (
                lambda r=rule, w=wrong: r(w, lr=0.1), ArgumentError, f"{name}.*{message}",
            )  # fmt: skip
        for lr in (-1, "fast", float("nan"), None, [0.1]):
            yield f"{name}(lr={lr})", (
                lambda r=rule, lr=lr: r([P], lr=lr), ArgumentError, f"{name}: lr must .*, got ",
            )  # fmt: skip
        yield f"{name}(learning_rate=)", (
            lambda r=rule: r([P], 0.1, learning_rate=0.1), TypeError,
            f"{name} has no argument 'learning_rate'.*it takes params, lr",
        )  # fmt: skip
        yield f"{name}(weight_decay=-1)", (
            lambda r=rule: r([P], lr=0.1, weight_decay=-1), ArgumentError,
            f"{name}: weight_decay must be in .0, inf., got -1",
        )  # fmt: skip
    for name, make in MAKERS.items():
        for shape in ((-1,), (2.5,), ("a",), (2, None)):
            yield f"{name}{shape}", (lambda m=make, s=shape: m(*s), ShapeError, f"{name}: .*got")
        for dtype in ("float33", complex, str):
            yield f"{name}(dtype={dtype})", (
                lambda m=make, d=dtype: m(2, dtype=d), DTypeError, f"{name}: .*such as 'float32'",
            )  # fmt: skip
        yield f"{name}(2, dtype)", (
            lambda m=make: m(2, tg.float64), ShapeError, f"{name}: .*dtype=",
        )  # fmt: skip
    for name in FILLERS.split():
        fill = getattr(INIT, name)
        yield f"init.{name} of an array", (
            lambda f=fill: f(np.ones((3, 3))), DTypeError, f"init.{name}: a Tensor.*ndarray",
        )  # fmt: skip
        yield f"init.{name} of integers", (lambda f=fill: f(N), DTypeError, "floating, got int64")
        yield f"init.{name}_", (
            lambda n=name: getattr(INIT, f"{n}_"), AttributeError, f"here it is {name}",
        )  # fmt: skip
        if name not in ("uniform", "normal"):
            yield f"init.{name} of a vector", (
                lambda f=fill: f(tg.ones(3)), ShapeError, rf"init.{name}: a weight.*\(3,\)",
            )  # fmt: skip


# -- the others, one by one ------------------------------------------------------------------------

SINGLE: list[Misuse] = [
    # shapes and axes
    (lambda: X @ X, ShapeError, r"matmul: \(2, 3\) @ \(2, 3\).*3 and 2"),
    (lambda: ONE @ X, ShapeError, "0-d"),
    (lambda: tg.ones(2, 2, 3) @ tg.ones(3, 3, 2), ShapeError, r"matmul of \(2, 2, 3\) and"),
    (lambda: X.reshape(4, 2), ShapeError, r"reshape of \(2, 3\) with shape=\(4, 2\)"),
    (lambda: X.reshape(-2, 3), ShapeError, "reshape: a length"),
    (lambda: X.reshape("a"), DTypeError, "reshape of"),
    (lambda: X.transpose(0), ShapeError, "swapaxes"),
    (lambda: SEQUENCE.transpose(0, 1), ShapeError, r"transpose: .*swapaxes\(axis1, axis2\)"),
    (lambda: X.transpose(0, 0), ShapeError, "transpose: axis .* twice"),
    (lambda: X.squeeze(0), ShapeError, "squeeze"),
    (lambda: X.swapaxes(0, 7), ShapeError, "swapaxes: axis 7"),
    (lambda: X.swapaxes(0, "a"), ArgumentError, "swapaxes: an axis is an integer, got 'a'"),
    (
        lambda: X.swapaxes(dim0=0, dim1=1),
        TypeError,
        "swapaxes has no argument 'dim0'.*axis1, axis2",
    ),
    (lambda: X.moveaxis((0, 1), 0), ShapeError, "moveaxis"),
    (lambda: X.broadcast_to(4, 3), ShapeError, r"broadcast_to of \(2, 3\) with shape=\(4, 3\)"),
    (lambda: X.flip(5), ShapeError, "flip of"),
    (lambda: X.flip(dims=(0,)), TypeError, "flip has no argument 'dims'"),
    (lambda: X.split(2, axis=1), ShapeError, "length 3.*2"),
    (lambda: X.split([2, 1], axis=1), ShapeError, r"split: .*indices to split at.*split at \[2\]"),
    (lambda: X.split([5]), ShapeError, "split: .*from 0 to 2"),
    (lambda: X.split([0.5]), ArgumentError, "split takes"),
    (lambda: X.split(True), ArgumentError, "split takes"),
    (lambda: tg.pad(X, ((1, 1),) * 3), ShapeError, "pad"),
    (lambda: tg.pad(X, -1), ShapeError, "pad: pad_width -1"),
    (lambda: tg.pad(X, 0.5), ShapeError, "pad: pad_width 0.5"),
    (lambda: tg.pad(X, 1, constant_values="a"), ArgumentError, "pad: constant_values"),
    (lambda: tg.pad(X, 1, mode="mean"), ArgumentError, "pad: a mode is 'constant'.*'mean'"),
    (lambda: tg.pad(X, 1, "edge", 3), ArgumentError, "pad: .*constant_values belongs to"),
    (
        lambda: tg.pad(E, 1, mode="wrap"),
        ShapeError,
        r"pad: axis 0 of shape \(0, 3\) has no element",
    ),
    (lambda: ONE.unbind(), ArgumentError, "0-d"),
    (lambda: tg.stack([]), ArgumentError, "at least one"),
    (lambda: tg.stack([X, tg.ones(2, 4)]), ShapeError, r"stack of \(2, 3\) and \(2, 4\)"),
    (lambda: tg.stack(3), ArgumentError, "stack takes a list"),
    (lambda: tg.concatenate(X), ArgumentError, "list"),
    (lambda: tg.concatenate([], axis=None), ArgumentError, "list"),
    (lambda: tg.concatenate(x for x in [X]), ArgumentError, "list.*generator"),
    (lambda: tg.concatenate([X, tg.ones(2, 4)]), ShapeError, r"concatenate of \(2, 3\) and"),
    (lambda: tg.concatenate([ONE, ONE]), ShapeError, r"concatenate of \(\) and \(\)"),
    # indices
    (lambda: X[5], IndexError, r"indexing of \(2, 3\).*index 5 is out of bounds"),
    (lambda: X[0, 0, 0], IndexError, r"indexing of \(2, 3\).*too many"),
    (lambda: X[1.5], DTypeError, "integers or booleans"),
    (lambda: X["a"], DTypeError, "an index is made of.*'a'"),
    (lambda: X[True], DTypeError, r"an index is made of.*True: a new axis is x\[None\]"),
    (lambda: X[0.0:1], DTypeError, "indexing of .*slice indices must be integers"),
    (lambda: X[::0], ShapeError, "indexing of .*step cannot be zero"),
    (lambda: X[[0, 9]], IndexError, "indexing of .*9 is out of bounds"),
    (lambda: X[[0, 1], [0, 1, 2]], IndexError, "indexing of .*broadcast"),
    (lambda: X[np.array([True])], ShapeError, r"mask of shape \(1,\)"),
    (lambda: X.take([9]), IndexError, "take: .*9 is out of bounds"),
    (lambda: X.take(None), DTypeError, "take: the indices"),
    (lambda: tg.take_along_axis(X, [0]), ShapeError, "take_along_axis"),
    # sums of products
    (lambda: tg.einsum("ii->i", X), ShapeError, r"einsum: 'ii' for .*\(2, 3\): .*differ"),
    (lambda: tg.einsum("i", X), ShapeError, r"einsum: 'i' for an operand of shape \(2, 3\)"),
    (
        lambda: tg.einsum("ijk...", X),
        ShapeError,
        r"einsum: 'ijk...' for an operand of shape \(2, 3",
    ),
    (lambda: tg.einsum("i......j", X), ArgumentError, "einsum: .*once a group"),
    (lambda: tg.einsum("i.j", X), ArgumentError, "einsum: .*letters"),
    (lambda: tg.einsum("ij->ii", X), ArgumentError, "einsum: output 'ii'"),
    (lambda: tg.einsum("ij->k...", X), ArgumentError, "einsum: output 'k...'"),
    (lambda: tg.einsum(X, [0, 52]), ArgumentError, "einsum: .*numbers below 52"),
    (lambda: tg.einsum(X, [0, -1]), ArgumentError, "einsum: .*numbers below 52"),
    (lambda: tg.einsum("ij", X, out=X), TypeError, "einsum has no argument 'out'"),
    (lambda: tg.einsum("ij,jk", X), ArgumentError, "2 operands, 1"),
    (lambda: tg.einsum("...i->i", X), ArgumentError, r"\.\.\."),
    (lambda: tg.einsum("ij,jk->ik", X, X), ShapeError, "lengths 3 and 2"),
    (lambda: tg.einsum("ij->ik", X), ArgumentError, "output 'ik'"),
    (lambda: tg.einsum(X, "ij"), ArgumentError, "einsum: the subscripts come first"),
    (lambda: tg.tensordot(X, X, axes=1), ShapeError, "differ in length"),
    (lambda: tg.tensordot(X, X, axes=5), ArgumentError, "tensordot: axes are a number from 0 to 2"),
    (lambda: tg.tensordot(X, X, axes=-1), ArgumentError, "tensordot: axes"),
    (lambda: tg.tensordot(X, X, dims=1), TypeError, "tensordot has no.*axes= here"),
    # values and dtypes
    (lambda: tg.clip(X, tg.ones(4)), ShapeError, r"clip: .*\(2, 3\) and \(4,\)"),
    (lambda: tg.clip(X, "a"), DTypeError, "clip: .*real numbers only"),
    (lambda: X.clip(2, 1), ArgumentError, "clip: min is at most max, got 2 and 1"),
    (lambda: X.clip(a_min=0), TypeError, "clip has no argument 'a_min'.*min, max.*a_min= is min="),
    (lambda: tg.where(X, X, X), DTypeError, "where: the condition is float32.*x != 0"),
    (lambda: tg.where(X > 0, X, tg.ones(4)), ShapeError, r"where of \(2, 3\) and"),
    (lambda: (X > 0) & (X < 1), TypeError, r"no operator &.*x \* y"),
    (lambda: ~(X > 0), TypeError, "no operator ~.*x == False"),
    (lambda: X % tg.ones(4), ShapeError, r"remainder of \(2, 3\) and \(4,\)"),
    (lambda: X // "a", DTypeError, "real numbers only"),
    (lambda: X.sum(dtype="float64"), TypeError, r"sum has no argument 'dtype'.*\.astype\(dtype\)"),
    (lambda: X.mean(out=X), TypeError, "mean has no argument 'out'; here it is the result"),
    (lambda: tg.max(X, where=X > 0), TypeError, r"max has no argument 'where'.*where\(mask, x"),
    (lambda: tg.sum(X, initial=1), TypeError, "sum has no argument 'initial'"),
    (lambda: X.argmax(order="F"), TypeError, "argmax has no argument 'order'"),
    (lambda: tg.transpose(X, 0), ShapeError, r"transpose: 1 axes \(0,\) given for an array of 2"),
    (lambda: tg.transpose(X, 0.5), ArgumentError, "transpose: an axis is an integer, got 0.5"),
    (lambda: tg.moveaxis(X, 0.5, 0), ArgumentError, "moveaxis: an axis is an integer, got 0.5"),
    (lambda: tg.var(X, ddof="a"), ArgumentError, "var: ddof must be a number, got 'a'"),
    (lambda: tg.std(X, ddof="a"), ArgumentError, "std: ddof must be a number, got 'a'"),
    (
        lambda: tg.random.keep_mask((2, 3), 2),
        ArgumentError,
        "random.keep_mask: keep is a probability.*got 2",
    ),
    (lambda: tg.random.keep_mask((2, 3), "a"), ArgumentError, "random.keep_mask: .*got 'a'"),
    (
        lambda: F.standardize(X, (5,), 1e-5),
        ShapeError,
        r"standardize: axis is .*\(2, 3\) one of \[\(-1,\), \(-2, -1\)\], got \(5,\)",
    ),
    (lambda: F.standardize(X, (0,), 1e-5), ShapeError, r"standardize: axis is .*got \(0,\)"),
    (lambda: F.standardize(X, -1, 1e-5), ShapeError, "standardize: axis is a tuple.*got -1"),
    (lambda: F.standardize(X, (-3,), 1e-5), ShapeError, r"standardize: axis.*got \(-3,\)"),
    (lambda: F.standardize(3, (-1,), 1e-5), DTypeError, "standardize: a Tensor is expected"),
    (lambda: TEXT.sha256(3), TypeError, "data.text.sha256: a text is a str.*got 3"),
    (lambda: TEXT.sha256(b"a"), TypeError, r"data.text.sha256: .*got b'a'; .*\.decode"),
    (
        lambda: tg.bptt.scale_gradient(2 * X, "a"),
        ArgumentError,
        "bptt.scale_gradient: xi is a number, got 'a': .*weights",
    ),
    (lambda: tg.bptt.scale_gradient(2 * X, None), ArgumentError, "scale_gradient: .*got None"),
    (lambda: tg.softmax(ONE, axis=1), ShapeError, r"softmax of \(\) with axis=1"),
    (lambda: tg.logsumexp(ONE, axis=1), ShapeError, r"logsumexp of \(\) with axis=1"),
    (lambda: tg.logsumexp(ONE, axis=()).max(axis=1), ShapeError, r"max of \(\) with axis=1"),
    (lambda: tg.mean(ONE, axis=-2), ShapeError, "mean: axis -2 is out of range"),
    (lambda: tg.max(E), ShapeError, r"max of \(0, 3\)"),
    (lambda: tg.argmin(E, axis=0), ShapeError, r"argmin of \(0, 3\)"),
    (lambda: True & (X > 0), TypeError, r"no operator &.*x \* y"),
    (lambda: N**-1, ArgumentError, r"power of \(2, 3\) and -1: .*negative.*x\.astype\(.*-1\.0"),
    (lambda: 2 ** (N - 1), ArgumentError, r"power of 2 and \(2, 3\): .*negative.*floating"),
    (lambda: N ** (N - 1), ArgumentError, r"power of \(2, 3\) and \(2, 3\): .*floating"),
    (lambda: X + None, DTypeError, "add: cannot make a tensor of dtype object from NoneType"),
    (lambda: X @ None, DTypeError, "^matmul: cannot make a tensor.*NoneType"),
    (lambda: tg.softmax(None), DTypeError, "^softmax: cannot make a tensor.*NoneType"),
    (lambda: tg.transpose("a"), DTypeError, "^transpose: cannot make a tensor.*from str"),
    (lambda: tg.stack([X, {}]), DTypeError, "^stack: cannot make a tensor.*from dict"),
    (lambda: None * X, DTypeError, "multiply: cannot make a tensor.*NoneType"),
    (lambda: F.mse_loss(X, {}), DTypeError, "mse_loss: cannot make a tensor.*from dict"),
    (lambda: tg.tensor("abc"), DTypeError, "real numbers"),
    (lambda: tg.tensor([1j]), DTypeError, "complex128"),
    (lambda: tg.tensor([[1], [2, 3]]), ShapeError, "differ in length"),
    (lambda: tg.tensor([1, 2], requires_grad=True), DTypeError, "int64"),
    (lambda: tg.tensor(np.ma.array([1.0, 2.0], mask=[0, 1])), DTypeError, "filled"),
    (lambda: tg.tensor([1.0], device="gpu"), DeviceError, "unknown device 'gpu'"),
    (lambda: X.astype(None), DTypeError, "real or boolean dtype"),
    (lambda: X.astype("float33"), DTypeError, "float33"),
    (lambda: X.to("gpu"), DTypeError, "neither a device nor a dtype"),
    (lambda: X.to(device="cpu"), TypeError, "to has no argument 'device'.*it takes target"),
    (lambda: X.to("cpu:1"), DeviceError, "cpu:1"),
    (lambda: tg.set_default_dtype("int32"), DTypeError, "floating"),
    (lambda: tg.full(2, "a"), ArgumentError, "full: the value must be a number"),
    (lambda: tg.arange(), ArgumentError, "arange takes stop"),
    (lambda: tg.arange(0, 5, 0), ArgumentError, "arange.*step"),
    (lambda: tg.arange(stop=3, step=0), ArgumentError, "arange takes stop.*stop=3, step=0"),
    (lambda: tg.arange(end=3), TypeError, "arange has no argument 'end'.*end= is stop= here"),
    (lambda: tg.linspace(0, 1, steps=3), TypeError, "linspace has.*steps= is num= here"),
    (lambda: tg.linspace(0, "a", 3), ArgumentError, "linspace: a bound must be a number, got 'a'"),
    (lambda: tg.linspace(0, 1, -1), ArgumentError, "linspace: num must be an integer >= 0"),
    (lambda: tg.eye(2, M=3), TypeError, "eye has no argument 'M'.*M= is m= here"),
    (lambda: tg.zeros_like(X, like=X), TypeError, "zeros_like has no argument 'like'"),
    (lambda: tg.arange("a"), ArgumentError, "arange: a bound must be a number, got 'a'"),
    (lambda: tg.eye(-1), ArgumentError, "eye: n must be an integer >= 0, got -1"),
    (lambda: tg.zeros_like([1.0]), DTypeError, "zeros_like: a Tensor is expected"),
    (lambda: tg.from_dlpack(3), DTypeError, "from_dlpack: an array.*got int"),
    # the graph
    (lambda: X.backward(), GraphError, "reduce it"),
    (lambda: X.sum().backward(create_graph=True), TypeError, r"backward has.*tinygrad_rnn\.grad"),
    (lambda: (X * 2).backward(tg.ones(3)), ShapeError, r"shape \(3,\), the output \(2, 3\)"),
    (lambda: tg.ones(2).sum().backward(), GraphError, "requires_grad=True"),
    (lambda: (X > 0).backward(X), GraphError, "without a graph"),
    (lambda: tg.grad(X.sum(), tg.ones(2)), GraphError, "input 0"),
    (lambda: tg.grad(X.sum(), 3), GraphError, "input 0 does not require grad"),
    (lambda: tg.grad(3, X), GraphError, "without a graph"),
    (lambda: tg.grad(lambda x: x, X), GraphError, "without a graph"),
    (lambda: tg.grad([X.sum()], X, grad_outputs=[1, 2]), ShapeError, "2 grad_outputs for 1"),
    (lambda: tg.grad(X.sum(), X, grad_output=1), TypeError, "grad has no.*did you mean grad_out"),
    (lambda: tg.grad(X.sum(), tg.ones(2, requires_grad=True)), GraphError, "allow_unused"),
    (lambda: tg.no_grad(lambda x: x), TypeError, r"no_grad.*as a decorator.*@no_grad\(\)"),
    (lambda: tg.zeros(shape=(2,)), TypeError, r"it takes \*shape,.* pass shape by position"),
    (lambda: tg.randn(size=(2,)), TypeError, r"randn has no argument 'size'.* pass shape by pos"),
    (lambda: tg.arange(float("inf")), ArgumentError, "arange: Maximum allowed size"),
    (lambda: tg.full((2,), 300, dtype="uint8"), ArgumentError, "full: .*300 out of bounds"),
    (lambda: tg.set_default_dtype(None), DTypeError, "default dtype must be floating, got None"),
    (lambda: tg.tensor([1.0], dtype=complex), DTypeError, "tensor: a real .*, got complex128"),
    (lambda: tg.tensor([1.0], dtype=object), DTypeError, "tensor: a real .*, got object"),
    (lambda: tg.tensor([1.0], dtype="U3"), DTypeError, "tensor: a real .*, got <U3"),
    (lambda: tg.tensor([1], dtype="float8"), DTypeError, "tensor: a real .*, got 'float8'"),
    (lambda: X.sum([0, 1]), DTypeError, "sum of .*integer, or a tuple of integers"),
    (lambda: X.sum(axis=np.array([0, 1])), DTypeError, "sum of .*integer, or a tuple of integers"),
    (lambda: X.argmax(axis=(0, 1)), DTypeError, "argmax of .*pass an integer"),
    (lambda: [1, 2][ONE], TypeError, "an index is an integer, got a tensor of float32"),
    (lambda: (X > 0) - (X > 0), DTypeError, "for Tensors it is x != y"),
    (lambda: -(X > 0), DTypeError, "for Tensors it is x == False"),
    (lambda: N & 1, TypeError, r"no operator &: .*of integers use \.numpy\(\)"),
    (lambda: tg.stack(X), ArgumentError, r"stack takes a list.*Tensor of 2: .*\[\*x\]"),
    (lambda: tg.stack(ONE), ArgumentError, r"stack takes a list.*got Tensor: .*\[\*x\]"),
    (lambda: X.remainder(2), AttributeError, "'remainder'; here it is %"),
    (lambda: X.where(X > 0, 0.0), AttributeError, r"here it is tinygrad_rnn\.where\(condition"),
    (lambda: X.int(), AttributeError, r"here it is astype\(tinygrad_rnn\.int32\)"),
    (lambda: tg.optim.StepLR, AttributeError, r"here it is schedule\.Scheduler\(optimizer, sch"),
    (lambda: tg.data.DataLoader, AttributeError, r"here it is batches\(x, y, batch_size=n\)"),
    (lambda: TEXT.Vocabulary(3), ArgumentError, "Vocabulary: a text or .*, got a int"),
    (lambda: TEXT.Vocabulary("ab").encode(3), ArgumentError, "Vocabulary: a text or .*, got a int"),
    (lambda: tg.checkpoint(lambda: 3), DTypeError, "checkpoint: the function returns a Tensor"),
    (lambda: tg.checkpoint(lambda x: x, X, retain=1), TypeError, "checkpoint has no.*fn, \\*args"),
    (lambda: bool(X), ArgumentError, "ambiguous"),
    (lambda: X.item(), ShapeError, "6 elements"),
    (lambda: setattr(X, "data", tg.ones(3)), ShapeError, r"shape \(3,\) assigned to .* \(2, 3\)"),
    (lambda: setattr(N, "data", X.numpy()), DTypeError, "float32 assigned to int64"),
    (lambda: setattr(X * 2, "data", X), GraphError, "computed"),
    (lambda: setattr(X, "grad", tg.ones(3)), ShapeError, "grad: a Tensor of shape"),
    (lambda: setattr(X * 2, "requires_grad", False), GraphError, r"detach\(\)"),
    (lambda: X.__setitem__(0, 1.0), GraphError, r"where.*such as a copy, tinygrad_rnn.tensor\(x\)"),
    (lambda: np.asarray(X), GraphError, "detach"),
    (lambda: np.linalg.norm(X), TypeError, "lose its graph"),
    (lambda: np.floor(X), TypeError, "lose its graph"),
    (lambda: np.add.reduce(X), TypeError, "lose its graph"),
    (lambda: np.exp(X, out=np.ones((2, 3))), TypeError, r"lose its graph: use tinygrad_rnn\.exp"),
    (lambda: tg.random.generator("a"), ArgumentError, "rng"),
    (lambda: tg.random.set_state({}), ArgumentError, "get_state"),
    (lambda: tg.manual_seed(-1), ArgumentError, "seed must be an integer >= 0, got -1"),
    (lambda: tg.manual_seed(None), ArgumentError, "seed must be an integer >= 0, got None"),
    (lambda: tg.manual_seed(1, -1), ArgumentError, "stream must be an integer >= 0, got -1"),
    (lambda: tg.bptt.detach(3), TypeError, "int"),
    # layers
    (lambda: F.linear(X, tg.ones(3)), ShapeError, r"Linear: a weight \(out, in\).*got \(3,\)"),
    (lambda: F.linear(X, tg.ones(4, 3), tg.ones(3)), ShapeError, r"bias \(out,\)"),
    (lambda: F.linear(X, tg.ones(4, 3), DOUBLE[:, 0].sum() + tg.ones(4)), DTypeError, "bias"),
    (lambda: LINEAR([X, X]), DTypeError, r"Linear: .*got list.*tinygrad_rnn\.stack\("),
    (lambda: F.mse_loss((X, X), X), DTypeError, r"got tuple.*tinygrad_rnn\.stack\("),
    (lambda: LINEAR(N), DTypeError, "Linear: input is int64, weight is float32"),
    (lambda: tg.nn.Embedding(3, 4)([3]), ArgumentError, r"Embedding: id 3 is outside \[0, 3\)"),
    (lambda: tg.nn.Embedding(3, 4)([0.5]), DTypeError, "Embedding: ids must be integers"),
    (lambda: tg.nn.Embedding(3, 4, padding_idx=3), ArgumentError, r"padding_idx 3 is outside \[-3"),
    (
        lambda: tg.nn.Embedding(3, 4, "float64"),
        ArgumentError,
        "padding_idx is an id, got 'float64'",
    ),
    (lambda: F.embedding([0], tg.ones(3, 2), -4), ArgumentError, "padding_idx -4 is outside"),
    (lambda: F.cross_entropy(X, [0, 1], weight=[1, 2]), ShapeError, r"3 classes need.*got \(2,\)"),
    (lambda: F.cross_entropy(X, [0, 1], weight=[1, 2, -1]), ArgumentError, "at least 0, got -1"),
    (lambda: F.cross_entropy(X, [0, 1], weight=[0, 0, 1]), ArgumentError, "or has the weight 0"),
    (lambda: F.cross_entropy(X, [0, 1], weight=X[0]), GraphError, r"constants: .*detach\(\)"),
    (
        lambda: F.binary_cross_entropy_with_logits(X, X.detach(), pos_weight=[1.0, 2.0]),
        ShapeError,
        r"pos_weight \(2,\) does not broadcast to the logits \(2, 3\): pass a number",
    ),
    (
        lambda: F.binary_cross_entropy_with_logits(X, X.detach(), pos_weight=-1),
        ArgumentError,
        "pos_weight must be at least 0, got -1",
    ),
    (lambda: F.embedding([0], tg.ones(3)), ShapeError, r"Embedding: a weight \(V, D\)"),
    (lambda: tg.nn.Dropout(1.5), ArgumentError, r"Dropout: p must be in \[0, 1\], got 1.5"),
    (lambda: tg.nn.Dropout("a"), ArgumentError, "Dropout: p must be a number, got 'a'"),
    (lambda: tg.nn.Dropout(0.5, inplace=True), TypeError, "Dropout has no argument 'inplace'"),
    (lambda: tg.nn.LayerNorm(2.5), ShapeError, "LayerNorm: .*integers, got 2.5"),
    (lambda: tg.nn.LayerNorm(3, eps="a"), ArgumentError, "LayerNorm: eps must be a number"),
    (lambda: tg.nn.Sequential(tg.nn.Linear), ArgumentError, r"write Linear\(\.\.\.\)"),
    (lambda: tg.nn.Sequential(LINEAR, 3), ArgumentError, "Sequential: layer 1"),
    (lambda: tg.nn.ModuleList(LINEAR), ArgumentError, "ModuleList: a list of modules"),
    (lambda: tg.nn.ModuleList([3]), ArgumentError, "ModuleList: members must be modules, got 3"),
    (lambda: LINEAR.weigth, AttributeError, "did you mean weight"),
    (lambda: LINEAR.named_children, AttributeError, r"here it is named_modules\(\)"),
    (lambda: LINEAR.chidren, AttributeError, "no attribute 'chidren'$"),  # none that is private
    (lambda: LINEAR.cuda(), AttributeError, r'to\("cuda"\)'),
    (lambda: LINEAR.load_state_dict({}), ArgumentError, "missing: weight"),
    (
        lambda: LINEAR.load_state_dict(None),
        ArgumentError,
        r"Linear.load_state_dict: .*state_dict\(\)",
    ),
    (lambda: LINEAR.load_state_dict({"weight": 3}), ArgumentError, "missing: bias"),
    (lambda: LINEAR.to("int64"), DTypeError, "Linear.to: .*floating"),
    (lambda: setattr(LINEAR, "weight", tg.ones(3)), ArgumentError, r"\.weight\.data = array"),
    (lambda: LINEAR.register_buffer("weight", [1.0]), ArgumentError, "'weight' is already in use"),
    (lambda: LINEAR.register_buffer(3, [1.0]), ArgumentError, "register_buffer: 3"),
    (lambda: tg.nn.Parameter([1, 2]), DTypeError, "int64"),
    (lambda: tg.nn.ReLU, AttributeError, r"here it is the function tinygrad_rnn\.relu"),
    (lambda: tg.nn.CrossEntropyLoss, AttributeError, r"functional\.cross_entropy"),
    (lambda: F.nll_loss, AttributeError, "cross_entropy, which takes logits"),
    (lambda: F.relu, AttributeError, r"tinygrad_rnn\.relu"),
    # recurrent layers
    (lambda: LSTM(SEQUENCE.swapaxes(1, 2)), ShapeError, r"LSTM: .*\(T, B, I\).*input_size = 3"),
    (lambda: LSTM(tg.ones(0, 2, 3)), ShapeError, "LSTM: .*no time step"),
    (lambda: LSTM(SEQUENCE, tg.zeros(1, 2, 4)), ArgumentError, "LSTM: .*tuple of 2 Tensors"),
    (lambda: LSTM(SEQUENCE, (tg.zeros(2, 4),) * 2), ShapeError, r"LSTM: .*\(1, 2, 4\) is needed"),
    (lambda: LSTM(SEQUENCE, (3, 4)), DTypeError, "LSTM: state: a Tensor is expected, got int 3"),
    (lambda: GRU(SEQUENCE, (tg.zeros(1, 2, 4),)), ArgumentError, "GRU: the state is one Tensor"),
    (
        lambda: GRU(SEQUENCE, tg.zeros(1, 2, 4, dtype="float64")),
        DTypeError,
        "GRU: state is float64",
    ),
    (
        lambda: LSTM(SEQUENCE, lengths=[5]),
        ArgumentError,
        "LSTM: lengths are 2 integers from 0 to 5",
    ),
    (lambda: LSTM(SEQUENCE, lengths=[6, 1]), ArgumentError, r"got \[6, 1\]"),
    (lambda: LSTM(SEQUENCE, lengths=[5.0, 1.0]), ArgumentError, "LSTM: lengths"),
    (lambda: LSTM(TWO_BY_FIVE, lengths=[5, 3]), ArgumentError, r"batch_first=True\?"),
    (lambda: GRU(TWO_BY_FIVE, tg.zeros(1, 2, 4)), ShapeError, r"batch_first=True\?"),
    (lambda: tg.nn.LSTM(3, 4, num_layers=0), ArgumentError, "LSTM: num_layers"),
    (lambda: tg.nn.LSTM(3, 4, True), ArgumentError, "LSTM: num_layers .*got True"),
    (lambda: tg.nn.LSTM(3, 4, dropout=1.0), ArgumentError, r"LSTM: dropout must be in \[0, 1\)"),
    (lambda: tg.nn.LSTM(3, 4, proj_size=4), ArgumentError, "proj_size is in"),
    (lambda: tg.nn.LSTM(3, 4, batchfirst=True), TypeError, "LSTM has.*did you mean batch_first"),
    (lambda: tg.nn.GRU(3, 4, proj_size=2), TypeError, "GRU has no argument 'proj_size'"),
    (lambda: tg.nn.RNN(3, 4, nonlinearity="sin"), ArgumentError, "'tanh' or 'relu', got 'sin'"),
    (
        lambda: tg.nn.Recurrent(tg.nn.Linear, 3, 4),
        ArgumentError,
        "subclass of tinygrad_rnn.nn.Cell",
    ),
    (lambda: tg.nn.Recurrent(3, 3, 4), ArgumentError, "Recurrent: a class or instances of Cell"),
    (lambda: tg.nn.Recurrent(CELL, 3, 4, num_layers=2), ArgumentError, "2 cells of their own"),
    (lambda: CELL(SEQUENCE), ShapeError, "LSTMCell: .*use a layer"),
    (lambda: CELL(X, tg.ones(2, 4)), ArgumentError, "LSTMCell: .*tuple of 2"),
    # losses
    (lambda: F.cross_entropy(tg.ones(2, 3, 4), np.zeros((2, 4), int)), ShapeError, "pass axis=1"),
    (lambda: F.cross_entropy(X, tg.ones(2)), DTypeError, "class numbers"),
    (lambda: F.cross_entropy(X, [0, 3]), ArgumentError, r"id 3 is outside \[0, 3\)"),
    (
        lambda: F.cross_entropy(X, [0, -1]),
        ArgumentError,
        r"id -1 is outside \[0, 3\)",
    ),
    (lambda: F.cross_entropy(X, [0, 1], reduction="avg"), ArgumentError, "'mean', 'sum' or 'none'"),
    (
        lambda: F.cross_entropy(X, [0, 1], label_smoothing=2),
        ArgumentError,
        r"be in \[0, 1\], got 2",
    ),
    (lambda: F.cross_entropy(X, [5, 5], ignore_index=5), ArgumentError, "every target is ignored"),
    (lambda: F.cross_entropy(X, [0, 1], ignore_index=0.5), ArgumentError, "ignore_index is an id"),
    (
        lambda: F.cross_entropy(X, [0, 1], weight="balanced"),
        ArgumentError,
        r"3 numbers, got 'balanced': balanced ones are len\(y\) / \(3 \* numpy.bincount",
    ),
    (lambda: F.cross_entropy(X, [0, 1], weight={0: 1.0}), ArgumentError, "3 numbers, got {0: 1.0}"),
    (lambda: F.cross_entropy(E, np.zeros(0, int)), ArgumentError, "the batch is empty"),
    (lambda: F.cross_entropy(N, [0, 1]), DTypeError, "logits are int64"),
    (lambda: F.cross_entropy([[1.0]], [0]), DTypeError, "cross_entropy: logits: a Tensor"),
    (lambda: F.mse_loss(X, tg.ones(3)), ShapeError, "does not broadcast"),
    (lambda: F.mse_loss(N, N), DTypeError, "mse_loss: the prediction is int64"),
    (lambda: F.mse_loss(X, X, size_average=True), TypeError, "mse_loss has no argument"),
    (lambda: F.binary_cross_entropy_with_logits(X, X * 3), ArgumentError, r"are in \[0, 1\]"),
    (lambda: F.one_hot([3], 3), ArgumentError, r"one_hot: id 3 is outside \[0, 3\)"),
    (lambda: F.one_hot([0], 2.5), ArgumentError, "one_hot: num_classes must be a positive"),
    (lambda: F.one_hot([0], 3, dtype=complex), DTypeError, "one_hot: .*complex"),
    (lambda: F.perplexity(X), ArgumentError, "perplexity: the mean"),
    (lambda: F.perplexity("a"), ArgumentError, "perplexity: .*'a'"),
    (lambda: tg.metrics.Perplexity().value, ArgumentError, "no losses yet"),
    (
        lambda: tg.metrics.Perplexity().update(1.0),
        ArgumentError,
        "a mean loss needs its number of tokens",
    ),
    (lambda: tg.metrics.Perplexity().update([1.0, 2.0], 2), ArgumentError, "omit count="),
    # learning
    (lambda: OPTIM.SGD([P]), TypeError, "SGD: missing a required argument: 'lr'; it takes"),
    (lambda: OPTIM.SGD([P], 0.1, momentum=1.0), ArgumentError, r"momentum must be in \[0, 1.0\)"),
    (lambda: OPTIM.SGD([P], 0.1, nesterov=True), ArgumentError, "needs a momentum"),
    (lambda: OPTIM.Adam([P], betas=0.9), ArgumentError, "Adam: betas are two numbers"),
    (lambda: OPTIM.Adam([P], betas=(0.9, 1.0)), ArgumentError, "beta2 must be in"),
    (lambda: OPTIM.Adam([P], amsgrad=True), TypeError, "Adam has no argument 'amsgrad'"),
    (lambda: OPTIM.clip_grad_norm([P], 0), ArgumentError, "max_norm must be above 0, got 0"),
    (lambda: OPTIM.clip_grad_norm([P], "a"), ArgumentError, "max_norm must be a number, got 'a'"),
    (lambda: OPTIM.clip_grad_value([P], None), ArgumentError, "max_value must be a number"),
    (lambda: OPTIM.clip_grad_norm(LINEAR, 1.0), ArgumentError, r"module.parameters\(\)"),
    (
        lambda: OPTIM.SGD([P], 0.1).param_groups[0].update(lr=0.2),
        ArgumentError,
        "'lr' cannot be assigned here: optimizer.lr = rate changes the",
    ),
    (
        lambda: setattr(OPTIM.Adam([P], 0.1), "learning_rate", 1.0),
        AttributeError,
        "Adam has no attribute 'learning_rate'; here it is lr",
    ),
    (lambda: OPTIM.SGD([P], 0.1).state, AttributeError, r"state_dict\(\)\[\"slots\"\]"),
    (
        lambda: SCHEDULE.Scheduler(OPTIM.SGD([P], 0.1), SCHEDULE.constant()).get_last_lr(),
        AttributeError,
        "Scheduler has no attribute 'get_last_lr'; here it is optimizer.lr",
    ),
    (lambda: OPTIM.clip_grad_norm_, AttributeError, "here it is clip_grad_norm"),
    (lambda: OPTIM.lr_scheduler, AttributeError, r"optim\.schedule"),
    (lambda: SCHEDULE.StepLR, AttributeError, r"Scheduler\(optimizer, schedule.step"),
    (lambda: OPTIM.ReduceLROnPlateau, AttributeError, "here it is schedule.ReduceLROnPlateau"),
    (
        lambda: SCHEDULE.ReduceLROnPlateau(OPTIM.SGD([P], 0.1), mode="loss"),
        ArgumentError,
        "mode must be 'min' or 'max', got 'loss'",
    ),
    (
        lambda: SCHEDULE.ReduceLROnPlateau(OPTIM.SGD([P], 0.1), factor=2),
        ArgumentError,
        r"factor must be in \(0, 1\), got 2",
    ),
    (lambda: SCHEDULE.ReduceLROnPlateau([P]), ArgumentError, "Plateau: an optimiser is expected"),
    (lambda: SCHEDULE.cosine(2.5), ArgumentError, "cosine: total must be a positive integer"),
    (lambda: SCHEDULE.step(0), ArgumentError, "step: every must be a positive integer"),
    (lambda: SCHEDULE.exponential("a"), ArgumentError, "exponential: gamma must be a number"),
    (lambda: SCHEDULE.compose(3), ArgumentError, "compose: a schedule is a function"),
    (lambda: SCHEDULE.Scheduler(P, SCHEDULE.constant()), ArgumentError, "an optimiser is expected"),
    (lambda: SCHEDULE.Scheduler(OPTIM.SGD([P], 0.1), 3), ArgumentError, "a schedule is a function"),
    (lambda: INIT.uniform(tg.ones(3), 1.0, 0.0), ArgumentError, "low .* is above high"),
    (lambda: INIT.normal(tg.ones(3), std=-1.0), ArgumentError, "std must not be negative"),
    (lambda: INIT.constant(tg.ones(3), "a"), ArgumentError, "the value must be a number"),
    (lambda: INIT.constant(N, 1.5), DTypeError, "floating, got int64"),
    # data
    (lambda: tg.data.batches(np.ones(3), np.ones(4), batch_size=2), ShapeError, r"\(3,\), \(4,\)"),
    (lambda: tg.data.batches(batch_size=2), ArgumentError, "no arrays"),
    (lambda: tg.data.batches(np.ones(3), batch_size=0), ArgumentError, "batch_size must be"),
    (lambda: tg.data.batches(np.ones(3), batch_size=2, rng="a"), ArgumentError, "rng"),
    (lambda: TEXT.sequential(IDS, 0, 3), ArgumentError, "sequential: batch_size must be"),
    (lambda: TEXT.sequential(IDS, 100, 3), ArgumentError, "too few.*smaller batch_size"),
    (lambda: TEXT.sequential(IDS * 0.5, 2, 3), DTypeError, "make them with Vocabulary.encode"),
    (lambda: TEXT.random(IDS, 2, 50), ArgumentError, "random: 40 tokens are too few"),
    (lambda: TEXT.evaluation(IDS[:1], 2, 3), ArgumentError, "two tokens or more"),
    (lambda: next(iter(TEXT.sequential(IDS, 2, 3, device="tpu"))), DeviceError, "'tpu'"),
    (lambda: TEXT.corpus("no_such"), FileNotFoundError, "no_such.*the names of corpora are"),
    (lambda: TEXT.Vocabulary(""), ArgumentError, "no tokens"),
    (lambda: TEXT.Vocabulary("a", level="letter"), ArgumentError, "use 'char' or 'word'"),
    (lambda: TEXT.Vocabulary("ab").decode([9]), ArgumentError, "the vocabulary that encoded"),
    (lambda: TASKS.adding(2, 1), ArgumentError, "adding: steps=1"),
    (lambda: TASKS.copy(0, 3), ArgumentError, "copy: batch_size must be"),
    (lambda: TASKS.parity(2, "a"), ArgumentError, "parity: steps must be"),
]

MISUSES: dict[str, Misuse] = {
    **dict(families()),
    **{f"single {number}": misuse for number, misuse in enumerate(SINGLE)},
}


def test_the_table_is_long() -> None:
    assert len(MISUSES) > 600
    assert len(list(families())) == len(dict(families()))


@pytest.mark.parametrize("name", MISUSES)
def test_a_misuse_is_answered_with_the_cure(name: str) -> None:
    misuse, kind, message = MISUSES[name]
    with pytest.raises(kind, match=f"(?s){message}") as caught:
        misuse()
    said = str(caught.value)
    for inner in ("gemm", "getitem", "affine", "stack_over_time", "smoothed_one_hot"):
        assert inner not in said or "here it is" in said, said


class Tensor:
    """Another library's."""

    shape, dtype = (2, 3), "float32"

    def __dlpack__(self) -> None: ...


def test_a_hint_names_functions_that_the_package_has() -> None:
    for hint in (*spelling.TENSOR_HINTS.values(), *spelling.PACKAGE_HINTS.values()):
        for function in re.findall(r"tinygrad_rnn\.([\w.]+)", hint):
            assert operator.attrgetter(function)(tg) is not None


TAKE_A_FUNCTION: dict[str, Callable[[Any], Any]] = {
    "fuse": tg.fuse,
    "checkpoint": lambda f: tg.checkpoint(f, X),
    "primitive": lambda f: tg.primitive(x=lambda F, g: g)(f),
    "vjp": lambda f: tg.vjp(f, X),
    "jvp": lambda f: tg.jvp(f, X, X),
    "hvp": lambda f: tg.hvp(f, X, X),
    "jacobian": lambda f: tg.jacobian(f, X),
    "hessian": lambda f: tg.hessian(f, X),
    "gradcheck": lambda f: tg.gradcheck(f, [1.0]),
    "no_grad": lambda f: tg.no_grad()(f),
    "detect_anomaly": lambda f: tg.detect_anomaly()(f),
}


@pytest.mark.parametrize("name", TAKE_A_FUNCTION)
def test_an_argument_that_must_be_a_function_is_checked_in_one_way(name: str) -> None:
    for other in (3, X, "tanh"):
        message = re.escape(f"{name}: a function is expected, got {other!r:.60}")
        with pytest.raises(ArgumentError, match=f"^{message}$"):
            TAKE_A_FUNCTION[name](other)


FOREIGN: list[Misuse] = [
    (lambda x: LINEAR(x), DTypeError, "Linear: a Tensor is expected, got {} of shape"),
    (lambda x: LSTM(x), DTypeError, "LSTM: a Tensor is expected, got {} of shape"),
    (lambda x: GRU(SEQUENCE, x), DTypeError, "GRU: state: a Tensor is expected, got {}"),
    (lambda x: F.cross_entropy(x, [0, 1]), DTypeError, "cross_entropy: logits: .* got {}"),
    (lambda x: tg.zeros_like(x), DTypeError, "zeros_like: a Tensor is expected, got {}"),
    (lambda x: OPTIM.SGD([x], 0.1), ArgumentError, "SGD: parameter 0 is a {}, not a Tensor: "),
    (lambda x: OPTIM.clip_grad_norm([x], 1.0), ArgumentError, "parameter 0 is a {}, not a T"),
    (lambda x: tg.grad(X.sum(), x), GraphError, r"input 0 does not require grad \(it is a {}: "),
    (lambda x: tg.grad(x, X), GraphError, r"without a graph \(it is a {}: "),
    (lambda x: tg.bptt.detach([x]), TypeError, "bptt.detach: .*Tensors, got {}: "),
    (lambda x: tg.viz.graph(x), ArgumentError, "viz.graph: .*got {}: "),
    (lambda x: setattr(P, "grad", x), ShapeError, r"grad: a Tensor of shape .*\(it is a {}: "),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FOREIGN)))
def test_another_librarys_tensor_is_named_with_its_module(number: int) -> None:
    misuse, kind, message = FOREIGN[number]
    name = re.escape(f"{Tensor.__module__}.Tensor")
    cure = r".*(make one|convert it) by tinygrad_rnn\.from_dlpack\(x\), or .*copies"
    with pytest.raises(kind, match="(?s)" + message.format(name) + cure):
        misuse(Tensor())


@pytest.mark.oracle
@pytest.mark.parametrize("number", range(len(FOREIGN)))
def test_so_is_pytorchs(number: int) -> None:
    torch = pytest.importorskip("torch")
    misuse, kind, message = FOREIGN[number]
    with pytest.raises(kind, match=message.format(r"torch\.Tensor") + ".*from_dlpack"):
        misuse(torch.ones(2, 3))
    assert LINEAR(tg.from_dlpack(torch.ones(2, 3))).shape == (2, 4)


@pytest.mark.parametrize(
    "error, ours",
    [
        (ValueError("operands could not be broadcast together with shapes (2,) (3,)"), ShapeError),
        (ValueError("cannot reshape array of size 6 into shape (4,)"), ShapeError),
        (ValueError("need at least one array to stack"), ShapeError),
        (ValueError("zero-size array to reduction operation maximum"), ShapeError),
        (ValueError("attempt to get argmax of an empty sequence"), ShapeError),
        (ValueError("Integers to negative integer powers are not allowed."), ArgumentError),
        (ValueError("the temperature must be positive"), ArgumentError),
        (np.exceptions.AxisError(3, 2), ShapeError),
        (IndexError("index 5 is out of bounds for axis 0 with size 2"), IndexError),
        (TypeError("ufunc 'tanh' not supported for the input types"), DTypeError),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_error_of_the_array_library_gets_the_class_of_what_it_says(
    error: Exception, ours: type
) -> None:
    @tg.primitive(x=lambda F, g: g)
    def failing(xp: Any, x: Any) -> Any:
        raise error

    with pytest.raises(ours, match=r"failing of \(2, 3\): ") as caught:
        failing(X)
    assert type(caught.value) is ours
    assert caught.value.__cause__ is error


def test_a_state_of_any_structure_is_detached() -> None:
    y = X * 2
    state = tg.bptt.detach({"h": [y, (y, None)]})
    assert not state["h"][0].requires_grad
    assert not state["h"][1][0].requires_grad
    assert state["h"][1][1] is None
    assert (state["h"][0].numpy() == y.numpy()).all()


def test_a_carried_state_names_its_cure() -> None:
    layer = tg.nn.LSTM(3, 4)
    output, state = layer(tg.ones(2, 1, 3))
    output.sum().backward()
    output, _ = layer(tg.ones(2, 1, 3), state)
    with pytest.raises(GraphError, match=r"bptt\.detach"):
        output.sum().backward()


def test_a_norm_without_a_bound_leaves_gradients_alone() -> None:
    p = tg.nn.Parameter(tg.ones(2))
    (p * 3).sum().backward()
    norm = tg.optim.clip_grad_norm([p], float("inf"))
    assert float(norm) == pytest.approx(18**0.5)
    assert (p.grad.numpy() == 3).all()


def test_a_default_device_that_is_not_there_is_refused_and_changes_nothing() -> None:
    with pytest.raises(DeviceError, match="unknown device 'tpu'"), tg.default_device("tpu"):
        pass
    with tg.default_device("cpu"):
        assert tg.ones(2).device == "cpu"
    assert tg.ones(2).device == "cpu"
