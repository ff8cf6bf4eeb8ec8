"""What a user meets who gets it wrong: errors name the operation, what it saw, and the cure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, DeviceError, DTypeError, GraphError, ShapeError

X = tg.ones(2, 3, requires_grad=True)

MISUSES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: X.view(6), AttributeError, "reshape"),
    (lambda: X.unsqueeze(0), AttributeError, "expand_dims"),
    (lambda: tg.cat([X, X]), AttributeError, "concatenate"),
    (lambda: X.sum(dim=0), TypeError, "axis="),
    (lambda: X @ X, ShapeError, r"matmul: \(2, 3\) @ \(2, 3\).*3 and 2"),
    (lambda: tg.tensor(1.0) @ X, ShapeError, "0-d"),
    (lambda: X + tg.ones(4), ShapeError, r"add of \(2, 3\) and \(4,\)"),
    (lambda: X.reshape(4, 2), ShapeError, r"reshape of \(2, 3\)"),
    (lambda: X.transpose(0), ShapeError, "swapaxes"),
    (lambda: X.sum(axis=5), ShapeError, "sum of"),
    (lambda: X.squeeze(0), ShapeError, "squeeze"),
    (lambda: X.split(2, axis=1), ShapeError, "length 3.*2"),
    (lambda: X.swapaxes(0, 7), ShapeError, "axis 7"),
    (lambda: X.moveaxis((0, 1), 0), ShapeError, "moveaxis"),
    (lambda: X.swapaxes(0, "a"), ArgumentError, "an axis is an integer"),
    (lambda: tg.pad(X, ((1, 1),) * 3), ShapeError, "pad"),
    (lambda: tg.tensor(1.0).unbind(), ArgumentError, "0-d"),
    (lambda: X[1.5], DTypeError, "integers or booleans"),
    (lambda: X[np.array([True])], ShapeError, r"mask of shape \(1,\)"),
    (lambda: tg.take_along_axis(X, [0]), ShapeError, "take_along_axis"),
    (lambda: tg.einsum("ii->i", X), ShapeError, "each once"),
    (lambda: tg.einsum("ij,jk", X), ArgumentError, "2 operands, 1"),
    (lambda: tg.einsum("...i->i", X), ArgumentError, r"\.\.\."),
    (lambda: tg.einsum("ij,jk->ik", X, X), ShapeError, "lengths 3 and 2"),
    (lambda: tg.einsum("ij->ik", X), ArgumentError, "output 'ik'"),
    (lambda: tg.tensordot(X, X, axes=1), ShapeError, "differ in length"),
    (lambda: tg.stack([]), ArgumentError, "at least one"),
    (lambda: tg.concatenate(X), ArgumentError, "list"),
    (lambda: tg.concatenate([], axis=None), ArgumentError, "list"),
    (lambda: tg.clip(X, X), TypeError, "maximum"),
    (lambda: tg.tensor("abc"), DTypeError, "real numbers"),
    (lambda: tg.tensor([1j]), DTypeError, "complex128"),
    (lambda: tg.tensor([[1], [2, 3]]), ShapeError, "differ in length"),
    (lambda: tg.tensor([1, 2], requires_grad=True), DTypeError, "int64"),
    (lambda: tg.tensor(np.ma.array([1.0, 2.0], mask=[0, 1])), DTypeError, "filled"),
    (lambda: X.astype(None), DTypeError, "real or boolean dtype"),
    (lambda: X.to("gpu"), DTypeError, "neither a device nor a dtype"),
    (lambda: X.to("cpu:1"), DeviceError, "cpu:1"),
    (lambda: tg.set_default_dtype("int32"), DTypeError, "floating"),
    (lambda: X.backward(), GraphError, "reduce it"),
    (lambda: tg.ones(2).sum().backward(), GraphError, "requires_grad=True"),
    (lambda: tg.grad(X.sum(), tg.ones(2)), GraphError, "input 0"),
    (lambda: tg.grad(X.sum(), tg.ones(2, requires_grad=True)), GraphError, "allow_unused"),
    (lambda: bool(X), ArgumentError, "ambiguous"),
    (lambda: X.item(), ShapeError, "6 elements"),
    (lambda: np.asarray(X), GraphError, "detach"),
    (lambda: np.linalg.norm(X), TypeError, "lose its graph"),
    (lambda: np.floor(X), TypeError, "lose its graph"),
    (lambda: np.add.reduce(X), TypeError, "lose its graph"),
    (lambda: X.__setitem__(0, 1.0), GraphError, "where"),
    (lambda: tg.softmax(X, axis=4), ShapeError, "softmax"),
    (lambda: tg.random.generator("a"), ArgumentError, "rng"),
    (lambda: tg.random.set_state({}), ArgumentError, "get_state"),
    (lambda: tg.bptt.detach(3), TypeError, "int"),
]


@pytest.mark.parametrize("number", range(len(MISUSES)))
def test_a_misuse_is_answered_with_the_cure(number: int) -> None:
    misuse, kind, message = MISUSES[number]
    with pytest.raises(kind, match=message):
        misuse()


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
