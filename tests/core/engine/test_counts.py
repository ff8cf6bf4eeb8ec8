"""Products of a time step, and array calls of `unbroadcast`: counts do not depend on the machine.

Nodes, calls and bytes of a time step that is fused, or traced as a part of a loop, are counted in
``tests/speed/test_step_counts.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.backward_pass import unbroadcast
from tinygrad_rnn.engine.ops import kernels

BATCH, INPUT, HIDDEN = 4, 3, 8
LAYERS = {"RNN": tg.nn.RNN, "GRU": tg.nn.GRU, "LSTM": tg.nn.LSTM}


def each_step(count: Callable[[int], int]) -> int:
    """Return by how much a count grows with every time step."""
    few, many = count(6), count(16)
    assert (many - few) % 10 == 0
    return (many - few) // 10


def run(kind: str, steps: int) -> tg.Tensor:
    output, _ = LAYERS[kind](INPUT, HIDDEN)(tg.randn(steps, BATCH, INPUT, rng=0))
    return output


def products(kind: str, steps: int) -> int:
    """Return how often a forward and a backward pass call `kernels.gemm`, but for sums."""
    made: list[Any] = []
    gemm = kernels.gemm

    def counted(x: Any, y: Any) -> Any:
        made.extend([1] * (y.shape[-1] > 1))  # a product with a column of ones is a sum
        return gemm(x, y)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "gemm", counted)
        output = run(kind, steps)
        (output * output).sum().backward()
    return len(made)


@pytest.mark.parametrize("kind", LAYERS)
def test_products_of_a_time_step(kind: str) -> None:
    with tg.eager():  # a loop that is one operation is counted with those of `speed`
        # W h, and the gradient of h; those of the weights are joined
        assert each_step(lambda T: products(kind, T)) == 2


@pytest.mark.parametrize(
    "shape, dtype, to_shape, to_dtype, expected",
    [
        ((2, 3), "float32", (2, 3), "float32", []),
        ((), "float64", (), "float64", []),
        ((2, 3), "float64", (2, 3), "float32", ["cast"]),
        ((2, 3), "float32", (2, 1), "float32", ["sum"]),
        ((2, 3), "float32", (1, 1), "float64", ["sum", "cast"]),
        ((2, 3), "float32", (3,), "float32", ["sum", "reshape"]),
        ((2, 3), "float64", (), "float32", ["sum", "reshape", "cast"]),
    ],
)
def test_a_gradient_is_brought_to_its_arguments_shape_by_no_call_too_many(
    shape: Any, dtype: str, to_shape: Any, to_dtype: str, expected: list[str]
) -> None:
    made: list[str] = []

    class F:
        def __getattr__(self, name: str) -> Any:
            made.append(name)
            return {
                "sum": lambda g, axis, keepdims: g.sum(axis, keepdims=keepdims),
                "reshape": lambda g, shape: g.reshape(shape),
                "cast": lambda g, dtype: g.astype(dtype),
            }[name]

    node = SimpleNamespace(shape=to_shape, dtype=np.dtype(to_dtype))
    gradient = unbroadcast(np.ones(shape, dtype), node, F())  # type: ignore[arg-type]
    assert (gradient.shape, gradient.dtype) == (to_shape, to_dtype)
    assert made == expected
