"""``examples/micro.py``: short, alone, and right where the real engine is."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from test_examples import ROOT

import reference
import strict_device
import tinygrad_rnn as tg
from op_table import ROWS, Case, Row

SCRIPT = ROOT / "examples" / "micro.py"
spec = importlib.util.spec_from_file_location("micro", SCRIPT)
assert spec is not None and spec.loader is not None
micro: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(micro)

TABLE = {row.name: row for row in ROWS}
OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": micro.add,
    "concatenate": lambda *tensors, axis: micro.concatenate(tensors, axis),
    "matmul": micro.matmul,
    "multiply": micro.multiply,
    "sum": micro.sum,
    "tanh": micro.tanh,
}
every_operation = pytest.mark.parametrize("name", OPERATIONS)


def leaves(arrays: Sequence[np.ndarray]) -> list[Any]:
    return [micro.Tensor(array, requires_grad=True) for array in arrays]


def gradients(out: Any, tensors: Sequence[Any], cotangent: np.ndarray) -> list[np.ndarray]:
    """Return the gradient of sum(out * cotangent) by each tensor."""
    micro.backward(micro.sum(out * micro.Tensor(cotangent)))
    return [np.broadcast_to(x.node.grad, x.data.shape) for x in tensors]


def drawn(row: Row, data: st.DataObject) -> tuple[Case, np.ndarray, np.random.Generator]:
    """Return a case, a cotangent of the shape of its result, and a generator."""
    case = data.draw(row.cases)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    return case, rng.uniform(-1, 1, np.shape(row.reference(*case.arrays, **case.keywords))), rng


# -- what the file promises ------------------------------------------------------------------------


def test_it_has_at_most_150_lines_and_imports_nothing_of_ours() -> None:
    source = SCRIPT.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 150
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert imported == {"argparse", "heapq", "itertools", "numpy"}
    assert not {"exec", "eval", "compile"} & {
        node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)
    }


@every_operation
@given(data=st.data())
def test_an_operation_passes_its_row_of_the_table(name: str, data: st.DataObject) -> None:
    row = TABLE[name]
    case, cotangent, rng = drawn(row, data)
    tensors = leaves(case.arrays)
    out = OPERATIONS[name](*tensors, **case.keywords)
    expected = row.reference(*case.arrays, **case.keywords)
    assert (out.data.shape, out.data.dtype) == (np.shape(expected), np.float64)
    assert_allclose(out.data, expected, rtol=1e-12, atol=1e-13)

    grads = gradients(out, tensors, cotangent)
    directions = [rng.uniform(-1, 1, a.shape) for a in case.arrays]
    slope = reference.difference(
        lambda *arrays: np.sum(row.reference(*arrays, **case.keywords) * cotangent),
        case.arrays,
        directions,
    )
    along = sum(np.sum(g * d) for g, d in zip(grads, directions, strict=True))
    assert_allclose(along, slope, rtol=1e-8, atol=1e-8)

    ours = [tg.tensor(array, requires_grad=True) for array in case.arrays]
    wanted = tg.grad(row.function(*ours, **case.keywords), ours, grad_outputs=cotangent)
    for grad, theirs in zip(grads, wanted, strict=True):
        assert_allclose(grad, theirs.numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["add", "concatenate", "matmul", "multiply"])
@given(data=st.data())
def test_the_same_tensor_in_two_places(name: str, data: st.DataObject) -> None:
    row = TABLE[name]
    case = data.draw(row.cases)

    def shared(tensor: Any, other: Callable[[Any], Any], function: Callable[..., Any]) -> Any:
        first = case.arrays[0]
        return function(
            *[tensor if a.shape == first.shape else other(a) for a in case.arrays], **case.keywords
        )

    (x,) = leaves(case.arrays[:1])
    out = shared(x, micro.Tensor, OPERATIONS[name])
    micro.backward(out)
    y = tg.tensor(case.arrays[0], requires_grad=True)
    shared(y, tg.tensor, row.function).sum().backward()
    assert y.grad is not None
    assert_allclose(x.node.grad, y.grad.numpy(), rtol=1e-12, atol=1e-13)


# -- the pass --------------------------------------------------------------------------------------


def test_a_chain_of_100_000_operations() -> None:
    x = y = micro.Tensor(1.0, requires_grad=True)
    one = micro.Tensor(1.0)
    for _ in range(50_000):
        y = y * one + x
    micro.backward(y)
    assert x.node.grad == 50_001


def test_a_node_is_reached_once_with_its_whole_gradient() -> None:
    x, zero = micro.Tensor([1, 2], requires_grad=True), micro.Tensor(0)
    assert x.data.dtype == np.float64
    y, calls = x, []
    for _ in range(8):  # 2 ** 8 paths, of different lengths
        y = y + (y + zero)
        y.node.vjp = lambda g, vjp=y.node.vjp: calls.append(g.tolist()) or vjp(g)
    micro.backward(y)
    assert x.node.grad.tolist() == [256.0, 256.0]
    assert calls == [[2.0**k] * 2 for k in range(8)]


def test_gradients_add_up_at_a_leaf_and_only_there() -> None:
    x, constant = micro.Tensor([1.0, 2.0], requires_grad=True), micro.Tensor([3.0, 4.0])
    middle = x * constant
    for times in (1, 2):
        micro.backward(micro.sum(middle * middle))
        np.testing.assert_array_equal(x.node.grad, times * 2 * constant.data**2 * x.data)
    assert constant.node is None and np.all(middle.node.grad == 0)


def test_a_result_of_constants_is_not_recorded() -> None:
    assert micro.add(micro.Tensor(1.0), micro.Tensor(2.0)).node is None


# -- the recurrent network -------------------------------------------------------------------------

T, V, H = 12, 5, 4


def weights() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.6, shape) for shape in [(V + H, H), H, (H, V), V]]


def sequence() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(T, V)), rng.normal(size=(T, V))


def test_backpropagation_through_time_equals_the_real_engines() -> None:
    (W, b, U, c), (x, cotangent) = weights(), sequence()
    own = leaves([W, b, U, c])
    outputs = micro.rnn(x, *own)
    dW, db, dU, dc = gradients(outputs, own, cotangent)

    layer, head = tg.nn.RNN(V, H, dtype=tg.float64), tg.nn.Linear(H, V, dtype=tg.float64)
    layer.weight_ih_l0.data, layer.weight_hh_l0.data = W[:V].T, W[V:].T
    layer.bias_ih_l0.data, layer.bias_hh_l0.data = b, np.zeros(H)
    head.weight.data, head.bias.data = U.T, c
    states, _ = layer(tg.tensor(x[:, None]))
    real = head(states[:, 0])
    assert_allclose(outputs.data, real.numpy(), rtol=1e-12)
    real.backward(cotangent)

    for grad, parameter in [
        (dW[:V].T, layer.weight_ih_l0),
        (dW[V:].T, layer.weight_hh_l0),
        (db, layer.bias_ih_l0),
        (dU.T, head.weight),
        (dc, head.bias),
    ]:
        assert np.abs(grad).max() > 0.1
        assert_allclose(grad, parameter.grad.numpy(), rtol=1e-11, atol=1e-12)


def test_one_name_is_the_array_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """With CuPy's stand-in for NumPy the gradients are the same, and no value is read."""
    x, cotangent = sequence()
    on_cpu = leaves(weights())
    expected = gradients(micro.rnn(x, *on_cpu), on_cpu, cotangent)

    def split(array: Any, ends: Sequence[int], axis: int) -> list[Any]:
        before = (slice(None),) * (axis % array.ndim)
        return [array[(*before, slice(a, b))] for a, b in pairwise([0, *ends, array.shape[axis]])]

    with strict_device.installed() as cupy:
        # CuPy has both; the library calls neither, so the stand-in lacks them.
        monkeypatch.setattr(cupy, "ones", lambda shape: cupy.full(shape, 1.0), raising=False)
        monkeypatch.setattr(cupy, "split", split, raising=False)
        monkeypatch.setattr(micro, "xp", cupy)
        own = leaves(weights())
        reads = strict_device.syncs
        loss = micro.sum(micro.rnn(cupy.asarray(x), *own) * micro.Tensor(cotangent))
        micro.backward(loss)
        assert strict_device.syncs == reads
        for leaf, grad in zip(own, expected, strict=True):
            assert isinstance(leaf.node.grad, cupy.ndarray)
            assert_allclose(leaf.node.grad.get(), grad, rtol=1e-12)


def test_the_loss_falls_and_the_text_is_learned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["micro.py"])
    assert micro.main() == 0
    losses = [float(line.split()[3].rstrip(",")) for line in capsys.readouterr().out.splitlines()]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.1 * losses[0]
