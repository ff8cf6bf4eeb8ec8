"""Tensors of other libraries: their values are converted, their graph is never dropped implicitly.

The classes here stand for such libraries; what they have in common is all that is asked for.
"""

from __future__ import annotations

import collections
import importlib
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


# -- tables ----------------------------------------------------------------------------------------


class Series:
    """A column as in pandas: its values are read by NumPy's protocol."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.dtype = self.values.dtype

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __len__(self):
        return len(self.values)


class Frame:
    """A table as in pandas: it has the dtypes of its columns, and no dtype of its own."""

    def __init__(self, **columns):
        self.values = {name: np.asarray(column) for name, column in columns.items()}
        self.columns = list(columns)
        self.dtypes = [column.dtype for column in self.values.values()]
        self.iloc = self

    def __getitem__(self, key):
        rows, column = key
        return Series(self.values[self.columns[column]][rows])

    def __array__(self, dtype=None, copy=None):
        kinds = {column.dtype for column in self.values.values()}
        same = kinds.pop() if len(kinds) == 1 else object
        if same is object and all(x.dtype.kind in "fiu" for x in self.values.values()):
            same = np.result_type(*self.values.values())
        return np.stack([x.astype(same) for x in self.values.values()], axis=1)


def frames():
    """Yield the classes of tables and of columns: these and, where it is installed, pandas'."""
    yield lambda **columns: Frame(**columns), Series
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        return
    yield lambda **columns: pandas.DataFrame(columns), pandas.Series


DATES = np.array(["2024-01-01", "2024-01-03"], "datetime64[ns]")
NAMES = np.array(["Ada", "Grace"], object)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_columns_and_tables_keep_the_dtype_of_their_values(dtype):
    values = np.array([1, 0], dtype)
    for frame, series in frames():
        assert tg.tensor(series(values)).dtype == np.dtype(dtype)
        table = tg.tensor(frame(a=values, b=values))
        assert (table.dtype, table.shape) == (np.dtype(dtype), (2, 2))
        assert tg.tensor(frame(a=values), dtype="float32").dtype == np.float32


def test_a_table_of_integers_and_numbers_keeps_double_precision():
    for frame, _ in frames():
        table = tg.tensor(frame(a=np.array([0.1, 0.2]), b=np.array([1, 2])))
        np.testing.assert_array_equal(table.numpy(), [[0.1, 1], [0.2, 2]])


def test_columns_that_are_no_numbers_are_refused_with_the_cure():
    dates = r"real numbers only: count time from a first date, \(dates - dates.min\(\)\) / numpy.t"
    for frame, series in frames():
        for data, message in (
            (DATES, dates),
            (series(DATES), dates),
            (series(DATES - DATES[0]), r"divide durations by a unit, x / numpy.timedelta64\(1, 'D"),
            (series(NAMES), r"number labels, numpy.unique\(labels, return_inverse=True\)\[1\]"),
            (["Ada"], "number labels"),
            (
                frame(d=DATES),
                r"\.drop\(columns=\['d'\]\), or convert them; count time from a first",
            ),
            (
                frame(a=np.ones(2), d=DATES, n=NAMES),
                r"drop the columns, \.drop\(columns=\['d', 'n'\]\), .*; count .*; number labels",
            ),
        ):
            with pytest.raises(DTypeError, match=message):
                tg.tensor(data)
        (days,) = [(DATES - DATES.min()) / np.timedelta64(1, "D")]
        np.testing.assert_array_equal(tg.tensor(series(days)).numpy(), [0.0, 2.0])


def test_data_that_have_no_cure_are_refused_without_one():
    for data in ([1j], np.array([None]), [object()]):
        with pytest.raises(DTypeError, match=r"real numbers only$"):
            tg.tensor(data)
