"""NumPy's functions on Tensors, as NumPy spells them: ours, NumPy's, or an error; never a loss."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn._util import api_hints as spelling
from tinygrad_rnn.errors import ArgumentError
from tinygrad_rnn.tensors import numpy_protocols as numpy_calls

X = np.array([[0.5, 2.0, -1.5], [1.25, -0.75, 3.0]])

# Calls of numpy.name(x, ...) that the library has: what stands behind x, by place and by name.
OURS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *[
        (name, args, keywords)
        for name in ("sum", "mean", "prod")
        for args, keywords in [
            ((), {}), ((0,), {}), ((None, None, None, True), {}), ((1, None, None), {}),
            ((), {"axis": (0, 1), "keepdims": True}), ((), {"axis": -1, "out": None}),
        ]
    ],
    *[
        (name, args, keywords)
        for name in ("max", "min", "amax", "amin")
        for args, keywords in [((), {}), ((0, None, True), {}), ((), {"axis": 1})]
    ],
    *[
        (name, args, keywords)
        for name in ("var", "std")
        for args, keywords in [
            ((), {}), ((0, None, None, 1), {}), ((), {"ddof": 1, "keepdims": True}),
            ((), {"axis": 1, "correction": 1}),
        ]
    ],
    ("argmax", (1,), {}), ("argmin", (), {"axis": 0, "keepdims": True}),
    ("cumsum", (0,), {}), ("cumsum", (), {"axis": 1, "dtype": None}),
    ("clip", (0.0, 1.0), {}), ("clip", (None, 1.0, None), {}), 
    ("clip", (), {"a_min": 0, "a_max": 1}),
    ("clip", (np.zeros(3), np.ones((2, 1))), {}),
    ("transpose", (), {}), ("transpose", ((1, 0),), {}), ("permute_dims", (), {"axes": [1, 0]}),
    ("reshape", ((3, 2),), {"order": "C"}), ("reshape", (-1,), {}),
    ("reshape", (), {"shape": (6,)}),
    ("squeeze", (), {}), ("expand_dims", (0,), {}), ("expand_dims", (), {"axis": [0, 1]}),
    ("swapaxes", (0, 1), {}), ("moveaxis", (0, -1), {}), ("moveaxis", ([0, 1], [1, 0]), {}),
    ("broadcast_to", ((4, 2, 3),), {}), ("flip", (), {}), ("flip", (0,), {}),
    ("take", ([0, 2], 1), {}), ("take", (), {"indices": [0, 2], "mode": "raise"}),
    ("take_along_axis", (np.array([[1], [0]]), 1), {}),
    ("split", (3, 1), {}), ("split", ([1], 0), {}),
    ("pad", (1,), {}), ("pad", (1, "edge"), {}), ("pad", ((1, 2),), {"mode": "reflect"}),
    ("pad", (((0, 1), (2, 0)), "constant"), {"constant_values": 3.0}),
    ("tensordot", (X, ([0], [0])), {}), ("tensordot", (X.T,), {"axes": 1}),
    ("matmul", (X.T,), {}), ("remainder", (0.7,), {}), ("mod", (X + 10,), {}),
    ("floor_divide", (0.7,), {}), ("absolute", (), {}), ("positive", (), {}),
    ("zeros_like", (), {}), ("ones_like", (np.float32,), {}),
]  # fmt: skip
IN_LISTS: list[tuple[str, dict[str, Any]]] = [
    ("concatenate", {}), ("concatenate", {"axis": 1}), ("concatenate", {"axis": None}),
    ("concat", {"axis": 0}), ("stack", {}), ("stack", {"axis": -1, "out": None}),
]  # fmt: skip
NO_GRADIENT = {"argmax", "argmin", "floor_divide", "zeros_like", "ones_like"}


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def assert_ours(found: Any, expected: Any, tracked: bool) -> None:
    assert len(listed(found)) == len(listed(expected))
    for ours, theirs in zip(listed(found), listed(expected), strict=True):
        assert isinstance(ours, tg.Tensor)
        assert (ours.shape, ours.requires_grad) == (np.shape(theirs), tracked)
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("name, args, keywords", OURS)
def test_a_call_of_numpys_is_ours_with_its_gradient(name, args, keywords, tracked):
    function = getattr(np, name)
    if "correction" in keywords and "correction" not in inspect.signature(function).parameters:
        pytest.skip("this NumPy has no correction=")
    x = tg.tensor(X, requires_grad=tracked)
    found = function(x, *args, **keywords)
    assert_ours(found, function(X, *args, **keywords), tracked and name not in NO_GRADIENT)
    if tracked and name not in NO_GRADIENT:
        tg.gradcheck(lambda t: function(t, *args, **keywords), X)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("name, keywords", IN_LISTS)
def test_a_call_of_numpys_with_a_list_is_ours(name, keywords, tracked):
    x = tg.tensor(X, requires_grad=tracked)
    found = getattr(np, name)([x, X, x], **keywords)
    assert_ours(found, getattr(np, name)([X, X, X], **keywords), tracked)


@pytest.mark.parametrize("tracked", [False, True])
def test_einsum_takes_optimize_and_lists_of_axes(tracked):
    x = tg.tensor(X, requires_grad=tracked)
    for optimize in (True, False, "optimal", ["einsum_path", (0, 1)]):
        found = np.einsum("ij,kj->ik", x, x, optimize=optimize)
        assert_ours(found, np.einsum("ij,kj->ik", X, X), tracked)
    for args in ([0, 1],), ([0, 1], [1]), ([..., 1], [1, ...]), ([30, 5],):
        assert_ours(np.einsum(x, *args), np.einsum(X, *args), tracked)
    assert_ours(
        np.einsum(x, [0, 1], X.T, [1, 0], [0]), np.einsum(X, [0, 1], X.T, [1, 0], [0]), tracked
    )


# What the library does not have, or not with this argument.
THEIRS = {
    "allclose": lambda x: np.allclose(x, x),
    "any": lambda x: np.any(x),
    "argsort": lambda x: np.argsort(x, axis=0),
    "array_equal": lambda x: np.array_equal(x, X),
    "atleast_3d": lambda x: np.atleast_3d(x),
    "average": lambda x: np.average(x, axis=0, weights=[1, 2]),
    "cumprod": lambda x: np.cumprod(x, 1),
    "diff": lambda x: np.diff(x),
    "dot": lambda x: np.dot(x, X.T),
    "floor": lambda x: np.floor(x),
    "fmod": lambda x: np.fmod(x, 0.7),
    "isclose": lambda x: np.isclose(X, x),
    "isfinite": lambda x: np.isfinite(x),
    "isnan": lambda x: np.isnan(x),
    "median": lambda x: np.median(x),
    "linalg.norm": lambda x: np.linalg.norm(x),
    "outer": lambda x: np.outer(x, x),
    "ravel": lambda x: np.ravel(x),
    "repeat": lambda x: np.repeat(x, 2),
    "roll": lambda x: np.roll(x, 1, axis=1),
    "round": lambda x: np.round(x, 1),
    "searchsorted": lambda x: np.searchsorted(np.arange(3.0), x),
    "sort": lambda x: np.sort(x, axis=0),
    "square": lambda x: np.square(x),
    "tile": lambda x: np.tile(x, 2),
    "trace": lambda x: np.trace(x),
    "tril": lambda x: np.tril(x),
    "vstack": lambda x: np.vstack([x, X]),
    "where of a condition": lambda x: np.where(x),
    "add.reduce": lambda x: np.add.reduce(x),
    "multiply.outer": lambda x: np.multiply.outer(x, x),
    "add.reduceat": lambda x: np.add.reduceat(x, [0, 1]),
    "sum(dtype)": lambda x: np.sum(x, dtype=np.float32),
    "sum(dtype) by place": lambda x: np.sum(x, 0, np.float32),
    "sum(where)": lambda x: np.sum(x, where=X > 0),
    "max(initial)": lambda x: np.max(x, initial=9.0),
    "mean(out)": lambda x: np.mean(x, 0, None, np.zeros(3)),
    "cumsum(dtype)": lambda x: np.cumsum(x, 0, np.float32),
    "reshape(order)": lambda x: np.reshape(x, (3, 2), order="F"),
    "take(mode)": lambda x: np.take(x, [7], mode="wrap"),
    "exp(out)": lambda x: np.exp(x, out=np.zeros((2, 3))),
    "add(dtype)": lambda x: np.add(x, x, dtype=np.float32),
    "einsum(dtype)": lambda x: np.einsum("ij->j", x, dtype=np.float32, casting="same_kind"),
    "zeros_like(shape)": lambda x: np.zeros_like(x, shape=(2,)),
}


@pytest.mark.parametrize("name", THEIRS)
def test_what_the_library_does_not_have_is_numpys_without_a_graph(name):
    for x in (tg.tensor(X), (tg.tensor(X, requires_grad=True) * 1).detach()):
        found, expected = THEIRS[name](x), THEIRS[name](X)
        for a, b in zip(listed(found), listed(expected), strict=True):
            assert not isinstance(a, tg.Tensor)
            assert (np.shape(a), np.asarray(a).dtype) == (np.shape(b), np.asarray(b).dtype)
            np.testing.assert_array_equal(a, b)
    with tg.no_grad():
        np.testing.assert_array_equal(
            THEIRS[name](tg.tensor(X, requires_grad=True) * 1), THEIRS[name](X)
        )


@pytest.mark.parametrize("name", THEIRS)
def test_what_the_library_does_not_have_is_refused_with_a_graph(name):
    said = name.split(" ")[0].split("(")[0]
    for x in (tg.tensor(X, requires_grad=True), tg.tensor(X, requires_grad=True) * 1):
        with pytest.raises(TypeError, match=rf"numpy\.{said}\(.*lose its graph: .*"):
            THEIRS[name](x)


def test_the_refusal_names_the_argument_and_the_cure():
    x = tg.tensor(X, requires_grad=True)
    for call, message in (
        (lambda: np.sum(x, 0, np.float32), r"numpy\.sum\(dtype\).*use tinygrad_rnn\.sum"),
        (lambda: np.amax(x, initial=0), r"numpy\.amax\(initial\).*use tinygrad_rnn\.max"),
        (lambda: np.dot(x, x), r"numpy\.dot.*here it is @"),
        (lambda: np.square(x), r"numpy\.square.*here it is x \* x"),
        (lambda: np.median(x), r"numpy\.median.*use \.detach\(\) or \.numpy\(\)"),
        (lambda: np.vstack([X, x]), r"numpy\.vstack.*concatenate"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


def test_the_cures_are_right():
    x = tg.tensor(X)
    square = tg.tensor(X @ X.T)
    for found, expected in (
        (x * x, np.square(X)),
        (1 / x, np.reciprocal(X)),
        (x // 1, np.floor(X)),
        (x.reshape(-1, 1) * x.reshape(-1), np.outer(X, X)),
        (x @ x.T, np.inner(X, X)),
        (2.0**x, np.exp2(X)),
        ((x * x).sum() / x.sum(), np.average(X, weights=X)),
        (x.swapaxes(-1, -2), X.T),
        (tg.einsum("ii", square), np.trace(square.numpy())),
        (tg.einsum("...ii->...i", square), np.diagonal(square.numpy())),
        (x.take_along_axis(x.numpy().argsort(0), 0), np.sort(X, axis=0)),
        (tg.where(np.tri(2, 3, dtype=bool), x, 0.0), np.tril(X)),
        (tg.where(np.tri(2, 3, -1, dtype=bool), 0.0, x), np.triu(X)),
        (x[..., 1:] - x[..., :-1], np.diff(X)),
        (x.take(np.arange(x.size).repeat(2)), np.repeat(X, 2)),
        (tg.concatenate([x[-1:], x[:-1]]), np.roll(X, 1, axis=0)),
        (x - 0.7 * np.trunc((x / 0.7).numpy()), np.fmod(X, 0.7)),
        ((x != 0) * (x > 1), np.logical_and(X, X > 1)),
        ((x != 0) + (x > 1), np.logical_or(X, X > 1)),
        ((x != 0) != (x > 1), np.logical_xor(X, X > 1)),
        (x == 0, np.logical_not(X)),
        ((x != 0).sum(), np.count_nonzero(X)),
        (tg.sin(x) / tg.cos(x), np.tan(X)),
        ((tg.exp(x) - tg.exp(-x)) / 2, np.sinh(X)),
        ((tg.exp(x) + tg.exp(-x)) / 2, np.cosh(X)),
        (tg.where(x == x, x, 0.0).sum(), np.nansum(X)),
        (tg.concatenate([x, x]), np.vstack([X, X])),
        (tg.concatenate([x, x], axis=1), np.hstack([X, X])),
    ):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_no_hint_hides_a_method_and_none_names_what_is_not_there():
    """A hint names methods, functions of the package, or what Python and NumPy have."""
    x = tg.tensor(X @ X.T)
    for name, hint in spelling.TENSOR_HINTS.items():
        assert isinstance(vars(tg.Tensor)[name], spelling.MissingAttribute)
        for function in re.findall(r"numpy\.([a-z_]+)\(", hint):
            assert hasattr(np, function) or hasattr(np.ndarray, function)
        method = re.match(r"(?:x\.)?([a-z_]+)\(", hint)
        if method and method[1] not in ("repr", "sin", "exp", "sqrt", "log", "abs"):
            assert hasattr(x, method[1]), hint


def test_numpy_never_writes_into_a_tensor():
    x = tg.tensor(X)
    for write in (
        lambda: np.copyto(x, 0.0),
        lambda: np.fill_diagonal(x, 0.0),
        lambda: np.put(x, [0], [9.0]),
        lambda: np.exp(X, out=x),
        lambda: np.add.at(x, 0, 1.0),
    ):
        with pytest.raises(ArgumentError, match=r"^numpy\.\w+.*NumPy does not write into a Tensor"):
            write()
    np.testing.assert_array_equal(x.numpy(), X)
    total = np.zeros((2, 3))
    total += x
    np.testing.assert_array_equal(total, X)
    with pytest.raises(TypeError, match=r"numpy\.add\(out\)"):
        total += tg.tensor(X, requires_grad=True)


def test_questions_about_an_array_need_no_values():
    x = tg.tensor(X, requires_grad=True)
    assert (np.shape(x), np.ndim(x), np.size(x)) == ((2, 3), 2, 6)
    assert np.result_type(x, np.float32) == np.float64
    assert np.isrealobj(x)
    assert not np.iscomplexobj(x)
    assert np.shares_memory(x, x.detach())
    assert not np.shares_memory(x, x * 1)


def test_no_function_of_numpys_meets_one_of_ours_by_its_inner_name():
    """What NumPy has by the name of an inner helper would be taken for it."""
    for module in (np, np.linalg, np.fft):
        for name in (name for name in dir(module) if not name.startswith("_")):
            ours = getattr(tg.tensors, numpy_calls.NAMES.get(name, name), None)
            if callable(ours) and callable(getattr(module, name)):
                assert getattr(tg, ours.__name__, None) is ours, name


# -- lists of Tensors ------------------------------------------------------------------------------

FUNCTIONS = {
    "sum": tg.sum,
    "mean of rows": lambda x: tg.mean(x, axis=0),
    "max": lambda x: tg.max(x, axis=-1),
    "var": tg.var,
    "logsumexp": tg.logsumexp,
    "prod": lambda x: tg.prod(x, axis=0),
    "cumsum": lambda x: tg.cumsum(x, axis=0),
    "softmax": tg.softmax,
    "exp": tg.exp,
    "add": lambda x: tg.add(x, 1),
    "subtract from": lambda x: tg.subtract(1.0, x),
    "clip": lambda x: tg.clip(x, 0, 1),
    "maximum": lambda x: tg.maximum(x, x),
    "where": lambda x: tg.where(X > 0, x, 0.0),
    "reshape": lambda x: tg.reshape(x, -1),
    "transpose": tg.transpose,
    "flip": tg.flip,
    "einsum": lambda x: tg.einsum("...i->...", x),
    "matmul": lambda x: tg.matmul(x, X.T),
    "take": lambda x: tg.take(x, [0], axis=0),
    "pad": lambda x: tg.pad(x, 1),
    "an operand": lambda x: tg.tensor(X) * x,
}


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_list_of_tensors_is_stacked(name, nested, tracked):
    x, y = (tg.tensor(a, requires_grad=tracked) for a in (X, X[::-1] + 0.3))
    whole, parts = tg.stack([x, y]), [x, y]
    if nested:  # lists in lists, and numbers beside 0-d tensors
        whole = tg.stack([tg.stack([x[0], x[1]]), y])
        parts = ([[x[0, 0], x[0, 1], float(X[0, 2])], x[1]], y)
    found, expected = FUNCTIONS[name](parts), FUNCTIONS[name](whole)
    assert (found.dtype, found.requires_grad) == (np.float64, tracked)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    if tracked:
        weights = np.random.default_rng(0).normal(size=found.shape)
        grads = [tg.grad((out * weights).sum(), [x, y]) for out in (found, expected)]
        if nested:  # one element stands there as a number
            grads[1][0].data[0, 2] = 0
        for a, b in zip(*grads, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


def test_lists_of_tensors_that_do_not_stack_are_refused_by_that_name():
    x = tg.tensor(X, requires_grad=True)
    for wrong in (x, x.detach()):
        with pytest.raises(ValueError, match=r"stack of \(2, 3\) and \(3,\)"):
            tg.mean([wrong, wrong[0]])
    for array in (lambda: np.mean([x, x]), lambda: tg.tensor([x, x]), lambda: np.asarray(x)):
        with pytest.raises(RuntimeError, match=r"\.detach\(\) .*tinygrad_rnn\.stack"):
            array()


def test_lists_of_tensors_stay_on_their_device(device):
    x = tg.tensor(X, device=device, requires_grad=True)
    for found in (tg.mean([x, x * 2], axis=0), tg.mean([x.detach(), x.detach()], axis=0)):
        assert found.device == x.device
    assert (tg.clip(x, x * 0, x * 0 + 1)).device == x.device
    assert tg.pad(x, 1, mode="reflect").device == x.device
    assert tg.einsum("iji->j", tg.stack([x[:, :2], x[:, 1:]])).device == x.device
