"""Tensors of other libraries: their values are converted, their graph is never dropped implicitly.

The classes here stand for such libraries; what they have in common is all that is asked for.
"""

from __future__ import annotations

import collections
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import DTypeError, GraphError


class Foreign:
    """An array of another library, which leaves operators with a Tensor to the Tensor."""

    __array_ufunc__ = None

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array([1.0, 2.0, 3.0], dtype or np.float32)

    def __mul__(self, other: Any) -> Any:
        return NotImplemented

    __add__ = __sub__ = __truediv__ = __pow__ = __matmul__ = __mul__


class WithFlagInTheClass(Foreign):
    requires_grad = True


class WithProperty(Foreign):
    @property
    def stop_gradient(self) -> bool:
        return False


class WithSlots:
    __slots__ = ("constant",)

    def __init__(self) -> None:
        self.constant = False

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.ones(3, np.float32)


class WithBackward(Foreign):
    def backward(self) -> None: ...


class OfNumpy(np.ndarray):
    """A subclass of an array is no plain array."""

    requires_grad = True


class Sequence:
    """What has a length and parts, and no __array__."""

    grad = None

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> float:
        return [1.0, 2.0, 3.0][i]


class Number(float):
    requires_grad = True


GRAPHS: dict[str, Callable[[], Any]] = {
    "requires_grad": lambda: Foreign(requires_grad=True),
    "requires_grad, in the class": WithFlagInTheClass,
    "stop_gradient": lambda: Foreign(stop_gradient=False),
    "stop_gradient, a property": WithProperty,
    "constant": lambda: Foreign(constant=False),
    "constant, a slot": WithSlots,
    "backward": WithBackward,
    "grad": lambda: Foreign(grad=None),
    "a subclass of ndarray": lambda: np.ones(3, np.float32).view(OfNumpy),
    "a sequence": Sequence,
    "two flags": lambda: Foreign(requires_grad=True, backward=print),
}


class Table:
    """A table whose columns are attributes, as in pandas: a column's name says nothing."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array([1.0, 2.0, 3.0], dtype or np.float32)

    def __getattr__(self, name: str) -> Any:
        if name in ("grad", "backward", "constant"):
            return np.ones(3)
        raise AttributeError(name)


VALUES: dict[str, Callable[[], Any]] = {
    "no flag": Foreign,
    "requires_grad": lambda: Foreign(requires_grad=False, backward=print, grad=None),
    "requires_grad, not set": lambda: Foreign(requires_grad=None, backward=print),
    "stop_gradient": lambda: Foreign(stop_gradient=True, backward=print),
    "constant": lambda: Foreign(constant=True, grad=None),
    "a table": Table,
    "a memory view": lambda: memoryview(np.array([1.0, 2.0, 3.0], np.float32)),
    "an array": lambda: np.array([1.0, 2.0, 3.0], np.float32),
    "NumPy's numbers": lambda: [np.float32(1), np.float32(2), np.float32(3)],
}


@tg.fuse
def product(x: Any, y: Any) -> Any:
    return x * y


def ours() -> tg.Tensor:
    return tg.ones(3, requires_grad=True)


USES: dict[str, Callable[[Any], Any]] = {
    "tensor": tg.tensor,
    "in a list": lambda x: tg.tensor([x, x]),
    "in a deque": lambda x: tg.tensor(collections.deque([x])),
    "in lists": lambda x: tg.tensor([[x], [[1.0, 2.0, 3.0]]]),
    "where": lambda x: tg.where(ours() > 0, x, 0.0),
    "stack": lambda x: tg.stack([ours(), x]),
    "concatenate": lambda x: tg.concatenate([x, ours()]),
    "einsum": lambda x: tg.einsum("i,i->", x, ours()),
    "a function": tg.exp,
    "a fused function": lambda x: product(ours(), x),
    "a function with a rule for several": lambda x: tg.tensordot(ours(), x, 1),
    "mse_loss": lambda x: tg.functional.mse_loss(ours(), x),
    "binary_cross_entropy": lambda x: tg.functional.binary_cross_entropy_with_logits(
        ours(), tg.tensor(x) * 0
    ),
    "data": lambda x: setattr(ours(), "data", x),
    "backward": lambda x: (ours() * 2).backward(x),
    "grad": lambda x: tg.grad(ours().exp(), [ours()], x, allow_unused=True),
    "jvp": lambda x: tg.jvp(lambda a: a * 2, x, tg.ones(3)),
    "inside checkpoint": lambda x: tg.checkpoint(lambda y, x: y * x, ours(), x),
}
for _name in "add sub mul truediv pow matmul".split():
    _operator = getattr(operator, _name)
    USES[f"{_name}, ours first"] = lambda x, f=_operator: f(ours(), x)
    USES[f"{_name}, theirs first"] = lambda x, f=_operator: f(x, ours())


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_of_another_library_is_refused(kind, use):
    with pytest.raises(GraphError, match=r"graph of another library \(.*lost without an error"):
        USES[use](GRAPHS[kind]())


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", VALUES)
def test_values_of_another_library_come_in(kind, use):
    if kind == "NumPy's numbers" and use.endswith("theirs first"):
        return  # lists have operators of their own
    if kind == "NumPy's numbers" and use == "jvp":
        return  # a list is one number for each argument
    USES[use](VALUES[kind]())


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_another_library_are_the_numbers(kind):
    np.testing.assert_array_equal(tg.tensor(VALUES[kind]()).numpy(), np.float32([1, 2, 3]))


def test_layers_name_it_too():
    x = Foreign(requires_grad=True)
    for use in (tg.nn.Linear(3, 2), tg.nn.LSTM(3, 2), tg.nn.LayerNorm(3), tg.zeros_like):
        with pytest.raises(GraphError, match="graph of another library"):
            use(x)
        with pytest.raises(DTypeError, match="a Tensor is expected"):
            use(Foreign())


def test_a_number_that_is_a_tensor_is_refused():
    for value in (Number(2.0), Foreign(constant=False)):
        with pytest.raises(GraphError, match="graph of another library"):
            tg.full((2,), value)
    with pytest.raises(GraphError, match=r"full: .*\.broadcast_to"):
        tg.full((2,), tg.tensor(1.0, requires_grad=True))
    assert tg.full((2,), tg.tensor(3.0)).numpy().tolist() == [3, 3]


def test_dlpack_does_not_lose_it_either():
    class Exported(Foreign):
        def __dlpack__(self, **_: Any) -> Any:
            return np.ones(3).__dlpack__()

        def __dlpack_device__(self) -> Any:
            return 1, 0

    assert tg.from_dlpack(Exported(requires_grad=False)).shape == (3,)
    with pytest.raises(BufferError, match="graph of another library"):
        tg.from_dlpack(Exported(requires_grad=True))


@pytest.mark.oracle
@pytest.mark.parametrize("use", [use for use in USES if "theirs" not in use])
def test_a_graph_of_pytorch_is_refused(use):
    torch = pytest.importorskip("torch")
    with pytest.raises(GraphError, match=r"torch.Tensor has a graph .*requires_grad=True"):
        USES[use](torch.ones(3, requires_grad=True))
    USES[use](torch.ones(3))
