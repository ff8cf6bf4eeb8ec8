"""The GRU whose reset gate acts before the recurrent product, against its formula in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import reference
import tinygrad_rnn as tg

EXACT = {"rtol": 1e-12, "atol": 1e-12}
Array = np.ndarray[Any, Any]


def step(weights: dict[str, Array], suffix: str, x: Array, h: Array) -> Array:
    """Advance one sequence by one step."""
    W, R = weights[f"weight_ih{suffix}"], weights[f"weight_hh{suffix}"]
    b = weights[f"bias_ih{suffix}"] + weights[f"bias_hh{suffix}"]
    H = len(h)
    r, z = np.split(reference.sigmoid(W[: 2 * H] @ x + R[: 2 * H] @ h + b[: 2 * H]), 2)
    n = np.tanh(W[2 * H :] @ x + R[2 * H :] @ (r * h) + b[2 * H :])
    return (1 - z) * n + z * h


@given(
    inputs=st.integers(1, 4),
    H=st.integers(1, 4),
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_two_directions_of_sequences_equal_the_formula(
    inputs: int, H: int, lengths: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    layer = tg.nn.Recurrent(
        tg.nn.ResetBeforeGRUCell, inputs, H, bidirectional=True, dtype=tg.float64
    )
    weights = {name: rng.standard_normal(a.shape) for name, a in layer.state_dict().items()}
    layer.load_state_dict(weights)
    T, B = max(1, *lengths), len(lengths)
    x, initial = rng.standard_normal((T, B, inputs)), rng.standard_normal((2, B, H))
    output, final = layer(tg.tensor(x), tg.tensor(initial), lengths=lengths)
    expected = np.zeros((T, B, 2 * H))
    for direction, suffix in enumerate(("_l0", "_l0_reverse")):
        for b, length in enumerate(lengths):
            h = initial[direction, b]
            for t in range(length)[:: -1 if direction else 1]:
                h = step(weights, suffix, x[t, b], h)
                expected[t, b, direction * H : (direction + 1) * H] = h
            assert_allclose(final.numpy()[direction, b], h, **EXACT)
    assert_allclose(output.numpy(), expected, **EXACT)


def test_derivatives_of_two_orders() -> None:
    cell = tg.nn.ResetBeforeGRUCell(2, 3, dtype=tg.float64, rng=0)
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    state = cell.state_dict()

    def two_steps(x: Any, h: Any, *weights: Any) -> Any:
        for name, value in zip(names, weights, strict=True):
            if name in vars(cell):
                delattr(cell, name)
            setattr(cell, name, value)
        return cell.step(cell.project(x[1]), cell.step(cell.project(x[0]), h))

    rng = np.random.default_rng(0)
    arguments = [rng.standard_normal((2, 2, 2)), rng.standard_normal((2, 3))]
    assert tg.gradcheck(two_steps, [*arguments, *(state[name] for name in names)], order=2)


def test_it_is_another_function_than_the_gru_of_the_same_weights() -> None:
    before, after = tg.nn.ResetBeforeGRUCell(2, 3, rng=0), tg.nn.GRUCell(2, 3, rng=0)
    assert before.state_dict().keys() == after.state_dict().keys()
    after.load_state_dict(before.state_dict())
    x, h = tg.ones(1, 2), tg.ones(1, 3)
    assert np.abs(before(x, h).numpy() - after(x, h).numpy()).max() > 1e-3


@pytest.mark.parametrize("bias", [False, True])
def test_on_every_device(bias: bool, device: str) -> None:
    x, h = np.ones((4, 2, 3), np.float32), np.ones((1, 2, 5), np.float32)
    results = []
    for where in ("cpu", device):
        layer = tg.nn.Recurrent(tg.nn.ResetBeforeGRUCell, 3, 5, bias=bias, rng=0).to(where)
        output, _ = layer(tg.tensor(x, device=where), tg.tensor(h, device=where))
        output.sum().backward()
        results.append([output.numpy(), layer.weight_hh_l0.grad.numpy()])
    for ours, theirs in zip(*results, strict=True):
        assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
