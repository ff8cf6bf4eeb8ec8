"""Recurrent cells and layers: outputs, states and derivatives of two orders, over every option.

The oracles are ``reference.py`` (plain NumPy, from the equations), PyTorch where it is installed,
the derivative worked out by hand for a vanilla RNN, and the layers put together in other ways.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from test_reference import Array, Case, cases, run_torch, torch_layer

import reference
import tinygrad_rnn as tg

CLASSES = {"rnn_tanh": tg.nn.RNN, "rnn_relu": tg.nn.RNN, "gru": tg.nn.GRU, "lstm": tg.nn.LSTM}
CELLS = {
    "rnn_tanh": tg.nn.RNNCell,
    "rnn_relu": tg.nn.RNNCell,
    "gru": tg.nn.GRUCell,
    "lstm": tg.nn.LSTMCell,
}
EXACT = {"rtol": 1e-9, "atol": 1e-9}
CELL_CLASSES = [tg.nn.RNNCell, tg.nn.GRUCell, tg.nn.LSTMCell]
LAYERS = [tg.nn.RNN, tg.nn.GRU, tg.nn.LSTM]


# ------------------------------------------------------------------------------------------ helpers


def make_layer(case: Case, device: str = "cpu", **more: Any) -> Any:
    """Build our layer of this case in float64, with its weights."""
    options = case.options | {"dtype": tg.float64, "device": device} | more
    if case.kind.startswith("rnn"):
        options["nonlinearity"] = case.kind.removeprefix("rnn_")
    layer = CLASSES[case.kind](**options)
    layer.load_state_dict(case.weights())
    return layer


def tensors(arrays: Sequence[Array] | None, **options: Any) -> Any:
    """Turn a state of the reference into one of ours: a Tensor, a pair of them, or None."""
    if arrays is None:
        return None
    state = tuple(tg.tensor(array, **options) for array in arrays)
    return state if len(state) > 1 else state[0]


def elements(state: Any) -> tuple[Any, ...]:
    """Return the elements of one of our states."""
    return state if isinstance(state, tuple) else (state,)


def assert_same(ours: tuple[Any, Any], expected: tuple[Any, Any], **tolerance: float) -> None:
    """Compare (output, state) with another, elements of ours or arrays."""
    tolerance = tolerance or EXACT
    pairs = zip((ours[0], *elements(ours[1])), (expected[0], *elements(expected[1])), strict=True)
    for found, wanted in pairs:
        wanted = wanted.numpy() if isinstance(wanted, tg.Tensor) else wanted
        assert found.shape == wanted.shape
        assert_allclose(found.numpy(), wanted, **tolerance)


def weighted(output: Any, state: Sequence[Any], weights: Sequence[Any]) -> Any:
    """Return a scalar that bends in every output: Σ ½ R output² + Σ S · state."""
    loss = (0.5 * weights[0] * output * output).sum()
    for element, weight in zip(state, weights[1:], strict=True):
        loss = loss + (weight * element).sum()
    return loss


def loss_weights(case: Case) -> list[Array]:
    return case.normal(3, case.output_shape, *case.state_shapes)


def our_loss(case: Case, lengths: Any = None) -> tuple[Any, dict[str, Any]]:
    """Return the loss of our layer, and everything that it depends on by name."""
    layer = make_layer(case)
    x = tg.tensor(case.x(), requires_grad=True)
    state = tensors(case.state(), requires_grad=True)
    output, final = layer(x, state, lengths=lengths or case.lengths)
    inputs = dict(layer.named_parameters()) | {"x": x}
    if state is not None:
        inputs |= {f"state {i}": element for i, element in enumerate(elements(state))}
    weights = [tg.tensor(w) for w in loss_weights(case)]
    return weighted(output, elements(final), weights), inputs


def torch_loss(torch: Any, case: Case) -> tuple[Any, dict[str, Any]]:
    """Return the same from PyTorch's layer."""
    layer = torch_layer(torch, case)
    x = torch.from_numpy(case.x()).requires_grad_()
    state = case.state()
    if state is not None:
        state = tuple(torch.from_numpy(element).requires_grad_() for element in state)
    output, final = run_torch(torch, layer, x, state, case.lengths)
    inputs = dict(layer.named_parameters()) | {"x": x}
    if state is not None:
        inputs |= {f"state {i}": element for i, element in enumerate(state)}
    weights = [torch.from_numpy(w) for w in loss_weights(case)]
    return weighted(output, final, weights), inputs


def reference_loss(case: Case, names: Sequence[str]) -> Callable[..., float]:
    """Return the same as a function of arrays, those that ``names`` names."""

    def loss(*arrays: Array) -> float:
        values = dict(zip(names, arrays, strict=True))
        x = values.pop("x")
        state = tuple(values.pop(name) for name in names if name.startswith("state"))
        output, final = reference.recurrent(case.kind, values, x, state or None, case.lengths)
        return float(weighted(output, final, loss_weights(case)))

    return loss


# -------------------------------------------------------------------------------- against equations


@given(case=cases(shortest=0))
def test_outputs_and_states_equal_the_equations(device: str, case: Case) -> None:
    layer = make_layer(case, device)
    state = tensors(case.state(), device=device)
    found = layer(tg.tensor(case.x(), device=device), state, lengths=case.lengths)
    assert isinstance(found[1], tuple) == (case.kind == "lstm")
    assert_same(found, case.reference())


@given(case=cases())
def test_names_shapes_and_order_of_the_weights_are_pytorchs(case: Case) -> None:
    layer = make_layer(case)
    expected = reference.weight_shapes(case.kind, **case.options)
    assert {name: p.shape for name, p in layer.named_parameters()} == expected
    assert list(layer.state_dict()) == list(expected)


@given(case=cases(smooth=True, shortest=0))
def test_gradients_equal_differences_of_the_equations(case: Case) -> None:
    loss, inputs = our_loss(case)
    gradients = tg.grad(loss, list(inputs.values()))
    arrays = [t.numpy() for t in inputs.values()]
    direction = unit(case.normal(4, *[a.shape for a in arrays]))
    found = sum((g.numpy() * d).sum() for g, d in zip(gradients, direction, strict=True))
    expected = reference.difference(reference_loss(case, list(inputs)), arrays, direction)
    assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * size(gradients))


@given(case=cases(smooth=True))
def test_second_derivatives_equal_differences_of_the_equations(case: Case) -> None:
    loss, inputs = our_loss(case)
    values = list(inputs.values())
    shapes = [t.shape for t in values]
    one, other = unit(case.normal(4, *shapes)), unit(case.normal(5, *shapes))
    products = hessian_vector_product(loss, values, one)
    found = sum((p.numpy() * d).sum() for p, d in zip(products, other, strict=True))
    function, arrays = reference_loss(case, list(inputs)), [t.numpy() for t in values]

    def slope(*moved: Array) -> float:
        return reference.difference(function, moved, one)

    expected = reference.difference(slope, arrays, other)
    assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * size(products))


def unit(direction: list[Array]) -> list[Array]:
    """Return a direction of length one."""
    length = np.sqrt(sum((d * d).sum() for d in direction))
    return [d / length for d in direction]


def size(values: Sequence[Any]) -> float:
    """Return the length of a gradient, at least one: what an error is small against."""
    return max(1.0, float(np.sqrt(sum((v.numpy() ** 2).sum() for v in values))))


def hessian_vector_product(loss: Any, inputs: list[Any], directions: Sequence[Array]) -> list[Any]:
    """Return the product with the Hessian by differentiating the gradient."""
    gradients = tg.grad(loss, inputs, create_graph=True)
    along = sum((g * tg.tensor(d)).sum() for g, d in zip(gradients, directions, strict=True))
    products = tg.grad(along, inputs, allow_unused=True)
    return [tg.zeros_like(t) if p is None else p for p, t in zip(products, inputs, strict=True)]


def test_gradient_through_time_of_a_vanilla_rnn_is_the_sum_worked_out_by_hand() -> None:
    """The chapter's sum: every path from a step's loss back to every earlier use of the weights.

    ∂L/∂W_hh = Σ_t Σ_{k≤t} (∂L/∂h_t Π_{j=k+1..t} ∂h_j/∂h_{j-1} ∂a_k)ᵀ h_{k-1} and the like, where
    ∂h_j/∂h_{j-1} = diag(1 - h_j²) W_hh and ∂a_k = diag(1 - h_k²).
    """
    steps, width = 7, 3
    rng = np.random.default_rng(0)
    x, losses = rng.standard_normal((steps, 2)), rng.standard_normal((steps, width))
    layer = tg.nn.RNN(2, width, dtype=tg.float64)
    W_ih, W_hh, b_ih, b_hh = (p.numpy().copy() for p in layer.parameters())
    h = [rng.standard_normal(width)]
    for t in range(steps):
        h.append(np.tanh(W_ih @ x[t] + b_ih + W_hh @ h[-1] + b_hh))

    expected = {name: np.zeros_like(p.numpy()) for name, p in layer.named_parameters()}
    expected |= {"x": np.zeros_like(x), "h0": np.zeros((1, width))}
    for t in range(steps):  # the loss of step t ...
        for k in range(t + 1):  # ... through what step k did with its arguments
            row = losses[t]
            for j in range(t, k, -1):
                row = row * (1 - h[j + 1] ** 2) @ W_hh
            row = row * (1 - h[k + 1] ** 2)
            expected["weight_ih_l0"] += np.outer(row, x[k])
            expected["weight_hh_l0"] += np.outer(row, h[k])
            expected["bias_ih_l0"] += row
            expected["bias_hh_l0"] += row
            expected["x"][k] += row @ W_ih
            if k == 0:
                expected["h0"][0] += row @ W_hh

    inputs = dict(layer.named_parameters())
    inputs["x"] = tg.tensor(x, requires_grad=True)
    inputs["h0"] = tg.tensor(h[0].reshape(1, width), requires_grad=True)
    output, _ = layer(inputs["x"], inputs["h0"])
    found = tg.grad((output * tg.tensor(losses)).sum(), list(inputs.values()))
    assert_allclose(output.numpy(), h[1:], rtol=1e-12)
    for name, gradient in zip(inputs, found, strict=True):
        assert_allclose(gradient.numpy(), expected[name], rtol=1e-10, atol=1e-10, err_msg=name)


@given(st.lists(st.integers(1, 5), min_size=4, max_size=4), st.integers(0, 2**32 - 1))
def test_one_product_of_concatenated_operands_is_the_sum_of_two(
    sizes: list[int], seed: int
) -> None:
    """[X, H] [W_xh; W_hh] = X W_xh + H W_hh, values and gradients."""
    batch, inputs, hidden, outputs = sizes
    rng = np.random.default_rng(seed)
    shapes = [(batch, inputs), (batch, hidden), (inputs, outputs), (hidden, outputs)]
    X, H, W_xh, W_hh = parts = [
        tg.tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes
    ]
    one = tg.concatenate([X, H], axis=1) @ tg.concatenate([W_xh, W_hh], axis=0)
    two = X @ W_xh + H @ W_hh
    assert_allclose(one.numpy(), two.numpy(), rtol=1e-12, atol=1e-12)
    weight = tg.tensor(rng.standard_normal((batch, outputs)))
    gradients = [tg.grad((product * weight).sum(), parts) for product in (one, two)]
    for left, right in zip(*gradients, strict=True):
        assert_allclose(left.numpy(), right.numpy(), rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------------- against PyTorch


@pytest.mark.oracle
@given(case=cases())
def test_outputs_states_and_every_gradient_equal_pytorch(case: Case) -> None:
    torch = pytest.importorskip("torch")
    loss, inputs = our_loss(case)
    their_loss, their_inputs = torch_loss(torch, case)
    assert list(inputs) == list(their_inputs)
    assert_allclose(loss.item(), their_loss.item(), **EXACT)
    found = tg.grad(loss, list(inputs.values()))
    expected = torch.autograd.grad(their_loss, list(their_inputs.values()))
    for name, ours, theirs in zip(inputs, found, expected, strict=True):
        assert_allclose(ours.numpy(), theirs.numpy(), **EXACT, err_msg=name)


@pytest.mark.oracle
@given(case=cases())
def test_hessian_vector_products_equal_pytorch(case: Case) -> None:
    torch = pytest.importorskip("torch")
    loss, inputs = our_loss(case)
    their_loss, their_inputs = torch_loss(torch, case)
    directions = case.normal(4, *[t.shape for t in inputs.values()])
    found = hessian_vector_product(loss, list(inputs.values()), directions)

    values = list(their_inputs.values())
    gradients = torch.autograd.grad(their_loss, values, create_graph=True)
    along = sum((g * torch.from_numpy(d)).sum() for g, d in zip(gradients, directions, strict=True))
    expected = torch.autograd.grad(along, values, allow_unused=True, materialize_grads=True)
    for name, ours, theirs in zip(inputs, found, expected, strict=True):
        assert_allclose(ours.numpy(), theirs.numpy(), **EXACT, err_msg=name)


@pytest.mark.oracle
@given(case=cases())
def test_checkpoints_travel_both_ways(case: Case) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch_layer(torch, case)
    arrays = {name: w.numpy() for name, w in theirs.state_dict().items()}
    assert list(make_layer(case).state_dict()) == list(arrays)
    ours = make_layer(case)
    ours.load_state_dict(arrays)
    back = {name: torch.from_numpy(array) for name, array in ours.state_dict().items()}
    theirs.load_state_dict(back)  # strict: every name and shape


# ------------------------------------------------------------------------------------ other ways in


@given(case=cases())
def test_no_state_is_a_state_of_zeros(case: Case) -> None:
    layer, x = make_layer(case), tg.tensor(case.x())
    zeros = tensors([np.zeros(shape) for shape in case.state_shapes])
    given_zeros = layer(x, zeros, lengths=case.lengths)
    assert_same(layer(x, lengths=case.lengths), given_zeros, rtol=1e-12, atol=1e-12)


@given(case=cases())
def test_a_ragged_batch_is_each_sequence_alone(case: Case) -> None:
    assume(case.lengths is not None)
    layer, x, state = make_layer(case), tg.tensor(case.x()), tensors(case.state())
    output, final = layer(x, state, lengths=case.lengths)
    for b, length in enumerate(case.lengths or ()):
        alone_state = None
        if state is not None:
            alone_state = tuple(element[:, b] for element in elements(state))
            alone_state = alone_state if len(alone_state) > 1 else alone_state[0]
        alone, alone_final = layer(x[:length, b], alone_state)  # unbatched
        assert_allclose(output[:length, b].numpy(), alone.numpy(), **EXACT)
        assert (output[length:, b].numpy() == 0.0).all()
        for element, expected in zip(elements(final), elements(alone_final), strict=True):
            assert_allclose(element[:, b].numpy(), expected.numpy(), **EXACT)


@given(case=cases(), padding=st.sampled_from([1e3, np.nan]))
def test_what_lies_past_the_end_of_a_sequence_changes_nothing(case: Case, padding: float) -> None:
    assume(case.lengths is not None)
    layer, clean, dirty = make_layer(case), case.x(), case.x()
    for b, length in enumerate(case.lengths or ()):
        dirty[length:, b] = padding
    gradients = []
    results = []
    for array in (clean, dirty):
        x = tg.tensor(array, requires_grad=True)
        output, final = layer(x, tensors(case.state()), lengths=case.lengths)
        results.append((output, final))
        weights = [tg.tensor(w) for w in loss_weights(case)]
        loss = weighted(output, elements(final), weights)
        gradients.append(tg.grad(loss, [x, *layer.parameters()]))
    assert_same(*results, rtol=1e-12, atol=1e-12)
    for one, other in zip(*gradients, strict=True):
        assert_allclose(one.numpy(), other.numpy(), rtol=1e-12, atol=1e-12)
    for b, length in enumerate(case.lengths or ()):
        assert (gradients[1][0].numpy()[length:, b] == 0.0).all()


class Singular(tg.nn.Cell):
    """Infinite wherever a step has another input or state than one of a real sequence.

    The first feature is the time. The step takes the logarithm of 1 where the time is one apart
    from that of the step before, or where none was before, and of 0 or less everywhere else.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, 1, 1)
        self.W = tg.nn.Linear(input_size, hidden_size, dtype=tg.float64, rng=input_size)
        self.U = tg.nn.Linear(hidden_size, hidden_size, dtype=tg.float64, rng=1)

    def project(self, x: Any) -> Any:
        return tg.concatenate([self.W(tg.log(x) + tg.sqrt(x)), x[..., :1]], axis=-1)

    def step(self, z: Any, state: Any) -> Any:
        h, last, started = state
        z, time = z[:, :-1], z[:, -1:]
        apart = (time - last) ** 2 * started + (1 - started)  # 1, if all is well
        h = tg.softplus(self.U(h) + z + tg.log(1 - (apart - 1) ** 2)) + 0.1
        return tg.concatenate([time, h[:, 1:]], axis=-1), time, tg.ones_like(started)


@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    more=st.integers(0, 2),
    layers=st.integers(1, 2),
    both=st.booleans(),
    strategy=st.sampled_from([None, tg.bptt.Full(checkpoint=True), tg.bptt.Truncated(2)]),
    seed=st.integers(0, 2**32 - 1),
)
@example(lengths=[5, 2, 0, 4], more=1, layers=2, both=True, strategy=tg.bptt.Truncated(2), seed=0)
@example(lengths=[0, 0], more=2, layers=2, both=True, strategy=None, seed=0)
def test_padded_steps_take_part_in_no_derivative(
    lengths: list[int], more: int, layers: int, both: bool, strategy: Any, seed: int
) -> None:
    """Values and gradients are those of each sequence alone, whatever stands in the padding."""
    layer = tg.nn.Recurrent(Singular, 3, 2, num_layers=layers, bidirectional=both, bptt=strategy)
    rng = np.random.default_rng(seed)
    steps, batch, cells = max(1, *lengths) + more, len(lengths), layers * (1 + both)
    inputs = rng.uniform(0.5, 2.0, (steps, batch, 3))
    inputs[:, :, 0] = np.arange(1, steps + 1).reshape(-1, 1)
    starts = rng.uniform(0.5, 2.0, (cells, batch, 2))
    weights = [
        rng.standard_normal(s)
        for s in ((steps, batch, 2 * (1 + both)), starts.shape, (cells, batch, 1))
    ]

    def run(x: Array, h: Array, weights: Sequence[Array], lengths: Any = None) -> list[Array]:
        first, sequence = (tg.tensor(a, requires_grad=True) for a in (h, x))
        zeros = tg.zeros((*h.shape[:-1], 1), dtype=tg.float64)
        output, state = layer(sequence, (first, zeros, zeros), lengths=lengths)
        R, S_h, S_time = (tg.tensor(w) for w in weights)
        loss = (output * R).sum() + (state[0] * S_h).sum() + (state[1] * S_time).sum()
        gradients = tg.grad(loss, [first, sequence, *layer.parameters()])
        return [t.numpy() for t in (output, state[0], *gradients)]

    expected = run(inputs, starts, weights)  # for the shapes
    expected = [np.zeros(a.shape) for a in expected]
    expected[1] += starts
    expected[2] += weights[1]  # of an empty sequence: the initial state is the final one
    for b, length in enumerate(lengths):
        if length:
            own = [weights[0][:length, b], weights[1][:, b], weights[2][:, b]]
            output, final, first, sequence, *rest = run(inputs[:length, b], starts[:, b], own)
            expected[0][:length, b], expected[1][:, b] = output, final
            expected[2][:, b], expected[3][:length, b] = first, sequence
            for total, one in zip(expected[4:], rest, strict=True):
                total += one
        inputs[length:, b] = rng.choice([0.0, np.nan, np.inf, -1.0])
    for found, wanted in zip(run(inputs, starts, weights, lengths), expected, strict=True):
        assert_allclose(found, wanted, rtol=1e-7, atol=1e-9 * (1 + abs(wanted).max()))
        assert (found[wanted == 0] == 0).all()  # past every end: nothing at all


@given(case=cases(), form=st.sampled_from([list, np.array]))
def test_lengths_may_be_a_list_or_an_array(case: Case, form: Callable[[Any], Any]) -> None:
    assume(case.lengths is not None)
    layer, x = make_layer(case), tg.tensor(case.x())
    expected = layer(x, lengths=case.lengths)
    assert_same(layer(x, lengths=form(case.lengths)), expected, rtol=0, atol=0)


@given(case=cases())
def test_full_lengths_are_no_lengths(case: Case) -> None:
    layer, x = make_layer(case), tg.tensor(case.x())
    assert_same(layer(x, lengths=[case.steps] * case.batch), layer(x), rtol=1e-12, atol=1e-12)


@given(case=cases())
def test_batch_first_swaps_the_first_two_axes_and_no_state(case: Case) -> None:
    x, state = tg.tensor(case.x()), tensors(case.state())
    output, final = make_layer(case)(x, state, lengths=case.lengths)
    swapped, same = make_layer(case, batch_first=True)(
        x.swapaxes(0, 1), state, lengths=case.lengths
    )
    assert_same((swapped, same), (output.swapaxes(0, 1), final), rtol=1e-12, atol=1e-12)


@given(case=cases(), batch_first=st.booleans())
def test_an_unbatched_sequence_is_a_batch_of_one(case: Case, batch_first: bool) -> None:
    case = dataclasses.replace(case, batch=1, lengths=None)
    x, state = tg.tensor(case.x()), case.state()
    output, final = make_layer(case)(x, tensors(state))
    unbatched_state = None if state is None else tensors([element[:, 0] for element in state])
    alone, alone_final = make_layer(case, batch_first=batch_first)(x[:, 0], unbatched_state)
    assert_allclose(alone.numpy(), output[:, 0].numpy(), **EXACT)
    for element, expected in zip(elements(alone_final), elements(final), strict=True):
        assert_allclose(element.numpy(), expected[:, 0].numpy(), **EXACT)


@given(case=cases(), cut=st.integers(0, 6))
def test_a_state_carries_a_sequence_on(case: Case, cut: int) -> None:
    """Two windows, the state handed from one to the next, are one run; gradients go through it."""
    case = dataclasses.replace(case, bidirectional=False, lengths=None)
    assume(0 < cut < case.steps)
    layer = make_layer(case)
    parameters = list(layer.parameters())
    weights = [tg.tensor(w) for w in loss_weights(case)]
    x, state = tg.tensor(case.x()), tensors(case.state())
    whole = layer(x, state)
    first, carried = layer(x[:cut], state)
    second, final = layer(x[cut:], carried)
    pieces = (tg.concatenate([first, second], axis=0), final)
    assert_same(pieces, whole)
    gradients = [
        tg.grad(weighted(output, elements(state), weights), parameters)
        for output, state in (whole, pieces)
    ]
    for one, other in zip(*gradients, strict=True):
        assert_allclose(one.numpy(), other.numpy(), **EXACT)


@given(case=cases())
def test_the_reverse_direction_is_a_forward_run_of_the_flipped_sequence(case: Case) -> None:
    case = dataclasses.replace(case, bidirectional=True, num_layers=1, lengths=None)
    both = make_layer(case)
    one_way = make_layer(dataclasses.replace(case, bidirectional=False))
    one_way.load_state_dict(
        {
            name.removesuffix("_reverse"): w
            for name, w in case.weights().items()
            if name.endswith("_reverse")
        }
    )
    x = tg.tensor(case.x())
    output, final = both(x)
    flipped, flipped_final = one_way(x.flip(0))
    width = flipped.shape[2]
    assert_allclose(output[:, :, width:].numpy(), flipped.flip(0).numpy(), **EXACT)
    for element, expected in zip(elements(final), elements(flipped_final), strict=True):
        assert_allclose(element[1:].numpy(), expected.numpy(), **EXACT)


@given(case=cases())
def test_layers_in_a_stack_are_layers_in_a_row(case: Case) -> None:
    x, state = tg.tensor(case.x()), case.state()
    output, final = make_layer(case)(x, tensors(state), lengths=case.lengths)
    width = output.shape[2]
    directions = 1 + case.bidirectional
    finals = []
    for k in range(case.num_layers):
        input_size = width if k else case.input_size
        single = dataclasses.replace(case, num_layers=1, input_size=input_size)
        layer = make_layer(single)
        weights = case.weights().items()
        layer.load_state_dict(
            {name.replace(f"_l{k}", "_l0"): w for name, w in weights if f"_l{k}" in name}
        )
        rows = slice(k * directions, (k + 1) * directions)
        part = None if state is None else tensors([element[rows] for element in state])
        x, last = layer(x, part, lengths=case.lengths)
        finals.append(elements(last))
    assert_allclose(output.numpy(), x.numpy(), **EXACT)
    for element, parts in zip(elements(final), zip(*finals, strict=True), strict=True):
        assert_allclose(element.numpy(), tg.concatenate(list(parts), axis=0).numpy(), **EXACT)


@given(case=cases())
def test_a_cell_called_once_a_step_is_the_layer(case: Case) -> None:
    case = dataclasses.replace(case, num_layers=1, bidirectional=False, proj_size=0, lengths=None)
    more = {"nonlinearity": case.kind.removeprefix("rnn_")} if "rnn" in case.kind else {}
    cell = CELLS[case.kind](
        case.input_size, case.hidden_size, bias=case.bias, dtype=tg.float64, **more
    )
    cell.load_state_dict({name.removesuffix("_l0"): w for name, w in case.weights().items()})
    x, state = tg.tensor(case.x()), case.state()
    expected = make_layer(case)(x, tensors(state))
    h = None if state is None else tensors([element[0] for element in state])
    outputs = []
    for x_t in x:
        h = cell(x_t, h)
        outputs.append(elements(h)[0])
    found = tg.stack(outputs), tuple(tg.expand_dims(element, 0) for element in elements(h))
    assert_same(found, (expected[0], elements(expected[1])))


@pytest.mark.parametrize("cell_class", CELL_CLASSES)
def test_a_cell_takes_one_sequence_without_a_batch(cell_class: Any) -> None:
    cell = cell_class(3, 5, dtype=tg.float64)
    x = tg.tensor(np.random.default_rng(0).standard_normal((2, 3)))
    h = cell(x)
    for state, alone_state in [(None, None), (h, tensors([e[1].numpy() for e in elements(h)]))]:
        batched, alone = elements(cell(x, state)), elements(cell(x[1], alone_state))
        for one, many in zip(alone, batched, strict=True):
            assert one.shape == many.shape[1:]
            assert_allclose(one.numpy(), many[1].numpy(), **EXACT)


def test_the_state_of_one_sequence_may_be_a_list() -> None:
    cell = tg.nn.LSTMCell(3, 5)
    x, state = tg.randn(3, rng=0), (tg.randn(5, rng=1), tg.randn(5, rng=2))
    for one, other in zip(cell(x, list(state)), cell(x, state), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("kind", reference.KINDS)
def test_weights_are_attributes_too(kind: str) -> None:
    layer = CLASSES[kind](2, 3, num_layers=2, bidirectional=True)
    for name, parameter in layer.named_parameters():
        assert getattr(layer, name) is parameter
    with pytest.raises(AttributeError, match="weight_ih_l2"):
        _ = layer.weight_ih_l2


# ---------------------------------------------------------------- parts that a user puts on a layer


class Extended(tg.nn.GRU):
    """A layer with parts of every sort beside its cells."""

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.h0 = tg.nn.Parameter(tg.randn(self.directions, 1, hidden_size, rng=0))
        self.norm = tg.nn.LayerNorm(hidden_size * self.directions)
        self.inner = tg.nn.LSTM(hidden_size * self.directions, 2)
        self.tables = {"a": [tg.nn.Parameter(tg.zeros(2))]}
        self.register_buffer("mean", tg.zeros(input_size))
        self.cells[0].register_buffer("seen", tg.zeros(1))
        self.cells.extra = tg.nn.Parameter(tg.zeros(3))
        self.scale_x = tg.nn.Parameter(tg.ones(1))

    def forward(self, x: Any, *args: Any, **options: Any) -> Any:
        h0 = self.h0.broadcast_to(self.directions, x.shape[1], self.h0.shape[-1])
        output, _ = super().forward((x - self.mean) * self.scale_x, h0)
        return self.inner(self.norm(output))


EXTRA = ["h0", "scale_x", "tables.a.0", "cells.extra", "norm.weight", "norm.bias"]


@pytest.mark.parametrize("both", [False, True])
def test_parts_on_a_layer_keep_their_names_and_the_cells_pytorchs(both: bool) -> None:
    layer = Extended(3, 4, bidirectional=both)
    inner = [f"inner.{name}" for name in tg.nn.LSTM(2, 2).state_dict()]
    plain = list(tg.nn.GRU(3, 4, bidirectional=both).state_dict())
    named = dict(layer.named_parameters())
    assert sorted(named) == sorted([*EXTRA, *inner, *plain])
    assert sorted(layer.state_dict()) == sorted([*named, "mean", "seen_l0"])
    for name in plain:
        assert getattr(layer, name) is named[name]
    assert "norm: LayerNorm" in repr(layer) and "h0" in repr(layer)

    layer(tg.randn(5, 2, 3, rng=0))[0].sum().backward()
    assert [n for n, p in named.items() if p.grad is None] == ["tables.a.0", "cells.extra"]
    rule = tg.optim.SGD(layer.parameters(), lr=1.0)
    before = layer.state_dict()
    rule.step()
    moved = [n for n, array in layer.state_dict().items() if (array != before[n]).any()]
    assert {"h0", "norm.weight", "weight_hh_l0", "inner.weight_hh_l0"} <= set(moved)
    layer.zero_grad()
    assert all(p.grad is None for p in layer.parameters())

    for twin in (copy.deepcopy(layer), Extended(3, 4, bidirectional=both)):
        twin.load_state_dict(layer.state_dict())
        x = tg.randn(5, 2, 3, rng=1)
        assert_same(twin(x), layer(x), rtol=0, atol=0)
        assert all(p.dtype == np.float64 for p in twin.to(tg.float64).parameters())
        assert twin.mean.dtype == np.float64 and twin.seen_l0.dtype == np.float64
    whole = tg.nn.Sequential(layer)
    assert list(whole.state_dict()) == [f"0.{name}" for name in layer.state_dict()]


def test_a_part_of_another_dtype_does_not_change_the_dtype_of_the_layer() -> None:
    layer = tg.nn.GRU(3, 4)
    layer.scale = tg.nn.Parameter(np.ones(1))
    assert layer(tg.zeros(2, 1, 3))[0].dtype == np.float32


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["GRU", "LSTM", "RNN"])
def test_tied_weights_are_one_as_in_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    options = {"num_layers": 2, "bidirectional": True}
    ours = getattr(tg.nn, name)(4, 2, **options, dtype=tg.float64)  # D · H = I: layers may be tied
    theirs = getattr(torch.nn, name)(4, 2, **options, dtype=torch.float64)
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict().items()})
    pairs = [
        ("weight_ih_l0_reverse", "weight_ih_l0"),
        ("weight_hh_l1", "weight_hh_l0"),
        ("bias_hh_l1_reverse", "bias_ih_l1"),
    ]
    for layer in (ours, theirs):
        for one, other in pairs:
            setattr(layer, one, getattr(layer, other))
            assert getattr(layer, one) is getattr(layer, other)
    x = np.random.default_rng(0).standard_normal((5, 3, 4))
    (ours(tg.tensor(x))[0] ** 2).sum().backward()
    (theirs(torch.from_numpy(x))[0] ** 2).sum().backward()
    gradients = {n: p.grad.numpy() for n, p in theirs.named_parameters()}
    assert {n for n, _ in ours.named_parameters()} == set(gradients)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for n, p in ours.named_parameters():
        assert_allclose(p.grad.numpy(), gradients[n], **EXACT, err_msg=n)

    twin = copy.deepcopy(ours)
    for one, other in pairs:
        assert getattr(twin, one) is getattr(twin, other) is not getattr(ours, one)
    state = {n: a + 1 for n, a in ours.state_dict().items()}
    twin.load_state_dict(state)
    assert_allclose(twin.weight_hh_l1.numpy(), state["weight_hh_l0"], rtol=0)
    state["weight_hh_l1"] = state["weight_hh_l1"] + 1
    with pytest.raises(ValueError, match="weight_hh_l1 and weight_hh_l0 are one tensor"):
        twin.load_state_dict(state)
    assert twin.to(tg.float32).weight_ih_l0 is twin.weight_ih_l0_reverse


@pytest.mark.parametrize("layer_class", LAYERS)
def test_weights_are_assigned_and_deleted_under_their_names_on_the_layer(layer_class: Any) -> None:
    layer, x = layer_class(3, 4, num_layers=2, bidirectional=True), tg.randn(5, 2, 3, rng=0)
    other = layer_class(3, 4, num_layers=2, bidirectional=True)
    names = list(layer.state_dict())
    for name in names:
        setattr(layer, name, getattr(other, name))
        assert name not in vars(layer)
    assert list(layer.state_dict()) == names
    assert_same(layer(x), other(x), rtol=0, atol=0)
    for name in names:
        held = getattr(layer, name)
        delattr(layer, name)
        assert not hasattr(layer, name)
        with pytest.raises(AttributeError, match=name.partition("_l")[0]):
            layer(x)
        setattr(layer, name, held)
    assert sorted(layer.state_dict()) == sorted(names)
    assert_same(layer(x), other(x), rtol=0, atol=0)
    with pytest.raises(AttributeError):
        del layer.weight_hh_l2
    layer.weight_hh_l0 = tg.nn.Parameter(tg.zeros(2, 2))  # as of any module, its use says so
    with pytest.raises(tg.errors.ShapeError, match=r"\(2, 2\)"):
        layer(x)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_each_bias_can_be_left_out_by_itself(layer_class: Any) -> None:
    x = tg.randn(5, 2, 3, rng=0)
    for missing in (["bias_ih_l0"], ["bias_hh_l0"], ["bias_ih_l0", "bias_hh_l0"]):
        layer, zeroed = layer_class(3, 4, rng=0), layer_class(3, 4, rng=0)
        for name in missing:
            setattr(layer, name, None)
            getattr(zeroed, name).data = np.zeros(zeroed.bias_ih_l0.shape)
        assert not set(missing) & set(layer.state_dict())
        assert_same(layer(x), zeroed(x), rtol=1e-5, atol=1e-6)
        for name in missing:
            setattr(layer, name, getattr(zeroed, name))
        assert_same(layer(x), zeroed(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell_class", CELL_CLASSES)
def test_a_value_in_a_weights_place_is_refused_with_a_cell_that_computes_it(
    cell_class: Any,
) -> None:
    layers = {tg.nn.RNNCell: tg.nn.RNN, tg.nn.GRUCell: tg.nn.GRU, tg.nn.LSTMCell: tg.nn.LSTM}
    layer, x = layers[cell_class](3, 4, num_layers=2), tg.randn(5, 2, 3, rng=0)
    before = layer(x)
    for value in (tg.zeros(4, 4), layer.weight_hh_l1 * 2, np.zeros((4, 4)), 0.0):
        with pytest.raises(ValueError, match="weight_hh_l1 is a Parameter") as raised:
            layer.weight_hh_l1 = value
    assert "weight_hh_l1" not in vars(layer)
    assert_same(layer(x), before, rtol=0, atol=0)

    names = {cell_class.__name__: cell_class, "tinygrad_rnn": tg}
    exec(str(raised.value).split(":\n", 1)[1].replace("  class", "class", 1), names)
    dropped = tg.nn.Recurrent(names["Own"], 3, 4, num_layers=2, dtype=tg.float64)
    assert sorted(dropped.state_dict()) == sorted(
        name.replace("weight_hh", "raw") for name in layer.state_dict()
    )
    dropped.load_state_dict(
        {n.replace("weight_hh", "raw"): a.astype(float) for n, a in layer.state_dict().items()}
    )
    assert_same(dropped.eval()(x.astype(tg.float64)), before, rtol=1e-5, atol=1e-6)
    tg.manual_seed(0)
    output, _ = dropped.train()(x.astype(tg.float64))
    output.sum().backward()
    used = [cell.weight_hh.numpy() for cell in dropped.cells]
    plain = layers[cell_class](3, 4, num_layers=2, dtype=tg.float64)
    state = dropped.state_dict()
    state |= {f"weight_hh_l{i}": weight for i, weight in enumerate(used)}
    plain.load_state_dict({n: state[n] for n in plain.state_dict()})
    expected, _ = plain(x.astype(tg.float64))
    expected.sum().backward()
    assert_allclose(output.numpy(), expected.numpy(), rtol=1e-12)
    for i, weight in enumerate(used):
        raw, whole = getattr(dropped, f"raw_l{i}"), getattr(plain, f"weight_hh_l{i}")
        assert 0 < (weight == 0).mean() < 1
        assert_allclose(raw.grad.numpy(), whole.grad.numpy() * 2 * (weight != 0), rtol=1e-9)


@pytest.mark.parametrize("kind", reference.KINDS)
def test_the_repr_shows_sizes_and_the_number_of_parameters(kind: str) -> None:
    layer = CLASSES[kind](2, 3, num_layers=7, bidirectional=True, dropout=0.25)
    count = sum(p.size for p in layer.parameters())
    shown = repr(layer)
    for part in ["2, 3", "num_layers=7", "dropout=0.25", "bidirectional=True", f"{count:,}"]:
        assert part in shown


def test_float32_stays_float32_and_is_near() -> None:
    for kind in reference.KINDS:
        case = Case(kind, 3, 4, 2, True, True, 0, 6, 3, (6, 2, 4), True, 0)
        layer = make_layer(case).to(tg.float32)
        x = tg.tensor(case.x(), dtype=tg.float32)
        state = tensors(case.state(), dtype=tg.float32)
        output, final = layer(x, state, lengths=case.lengths)
        assert {t.dtype for t in (output, *elements(final))} == {np.dtype(np.float32)}
        assert_same((output, final), case.reference(), rtol=1e-4, atol=1e-5)
        assert layer(x)[0].dtype == np.float32


# ------------------------------------------------------------------------------ a cell of one's own


class OwnLSTM(tg.nn.Cell):
    """An LSTM as a user would write it, with the book's right-hand products."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = (hidden_size, hidden_size)
        rng = np.random.default_rng([input_size, hidden_size])
        draw = lambda *shape: tg.nn.Parameter(tg.tensor(rng.standard_normal(shape)))  # noqa: E731
        self.W_x = draw(input_size, 4 * hidden_size)
        self.W_h = draw(hidden_size, 4 * hidden_size)
        self.b = draw(4 * hidden_size)

    def project(self, x: Any) -> Any:
        return x @ self.W_x + self.b

    def step(self, z: Any, state: Any) -> Any:
        h, c = state
        i, f, g, o = (z + h @ self.W_h).split(4, axis=-1)
        c = tg.sigmoid(f) * c + tg.sigmoid(i) * tg.tanh(g)
        return tg.sigmoid(o) * tg.tanh(c), c


class OwnRNN(tg.nn.Cell):
    """The least that a cell can be: no projection, one tensor for a state."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        rng = np.random.default_rng([input_size, hidden_size])
        self.W = tg.nn.Parameter(
            tg.tensor(rng.standard_normal((input_size + hidden_size, hidden_size)))
        )

    def step(self, x: Any, h: Any) -> Any:
        return tg.tanh(tg.concatenate([x, h], axis=-1) @ self.W)


def own_layer(case: Case) -> tuple[Any, Any]:
    """Return a Recurrent of the user's cell, and the built-in layer with the same weights."""
    classes = {"lstm": OwnLSTM, "rnn_tanh": OwnRNN}
    own = tg.nn.Recurrent(
        classes[case.kind],
        case.input_size,
        case.hidden_size,
        num_layers=case.num_layers,
        bidirectional=case.bidirectional,
    )
    built_in = make_layer(case)
    cells = [module for module in own.modules() if isinstance(module, classes[case.kind])]
    suffixes = itertools.chain(*reference.layer_suffixes(built_in.state_dict()))
    weights = {}
    for cell, suffix in zip(cells, suffixes, strict=True):
        if case.kind == "lstm":
            W_x, W_h, b = (p.numpy() for p in (cell.W_x, cell.W_h, cell.b))
            weights |= {"bias_ih" + suffix: b, "bias_hh" + suffix: np.zeros_like(b)}
        else:
            W_x, W_h = np.split(cell.W.numpy(), [len(cell.W) - case.hidden_size])
        weights |= {"weight_ih" + suffix: W_x.T.copy(), "weight_hh" + suffix: W_h.T.copy()}
    built_in.load_state_dict(weights)
    return own, built_in


@given(case=cases("lstm") | cases("rnn_tanh"))
def test_a_users_cell_gets_what_a_built_in_layer_has(case: Case) -> None:
    """Layers, directions, states, lengths and gradients; only the cell is the user's."""
    case = dataclasses.replace(case, proj_size=0, bias=case.kind == "lstm")
    own, built_in = own_layer(case)
    results, gradients = [], []
    for layer in (own, built_in):
        x = tg.tensor(case.x(), requires_grad=True)
        state = tensors(case.state(), requires_grad=True)
        output, final = layer(x, state, lengths=case.lengths)
        results.append((output, final))
        loss = weighted(output, elements(final), [tg.tensor(w) for w in loss_weights(case)])
        gradients.append(tg.grad(loss, [x, *(() if state is None else elements(state))]))
    assert_same(*results)
    for ours, theirs in zip(*gradients, strict=True):
        assert_allclose(ours.numpy(), theirs.numpy(), **EXACT)


def test_a_users_cell_works_alone() -> None:
    cell = OwnLSTM(3, 2)
    x = tg.tensor(np.ones((5, 3)))
    state = tg.tensor(np.ones((5, 2))), tg.tensor(np.zeros((5, 2)))
    for alone, inside in zip(cell(x, state), cell.step(cell.project(x), state), strict=True):
        assert (alone.numpy() == inside.numpy()).all()
    for missing, zeros in zip(cell(x), cell(x, tensors([np.zeros((5, 2))] * 2)), strict=True):
        assert (missing.numpy() == zeros.numpy()).all()


class Updated(OwnRNN):
    """A cell that says ``h += z``, of a state and an input that it was given."""

    def step(self, z: Any, h: Any) -> Any:
        h *= 0.5
        z += 1
        h += z @ self.W[: z.shape[1]]
        return h


class Renamed(Updated):
    """The same in new names."""

    def step(self, z: Any, h: Any) -> Any:
        return h * 0.5 + (z + 1) @ self.W[: z.shape[1]]


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("stateful", [True, False])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}])
def test_a_cell_that_updates_its_arguments_writes_to_nothing_of_the_caller(
    options: dict[str, Any], stateful: bool, recorded: bool
) -> None:
    rng = np.random.default_rng(0)
    given_x, given_h = rng.standard_normal((4, 2, 3)), rng.standard_normal((2, 2, 3))
    x, h = tg.tensor(given_x), tg.tensor(given_h[: 1 + bool(options)])
    state = h if stateful else None
    for lengths in (None, [4, 2]):
        results = []
        for cell in (Updated, Renamed):
            layer = tg.nn.Recurrent(cell, 3, 3, **options)
            with contextlib.nullcontext() if recorded else tg.no_grad():
                results.append(layer(x, state, lengths=lengths))
        assert_same(*results, rtol=0, atol=0)
    alone, renamed = Updated(3, 3), Renamed(3, 3)
    with contextlib.nullcontext() if recorded else tg.no_grad():
        first = last = alone(x[0], h[0] if stateful else None)
        expected = renamed(x[0], h[0] if stateful else None)
        last = alone(x[1], last)
        assert_allclose(first.numpy(), expected.numpy(), **EXACT)
        assert_allclose(last.numpy(), renamed(x[1], expected).numpy(), **EXACT)
    assert (x.numpy() == given_x).all()
    assert (h.numpy() == given_h[: len(h)]).all()


def test_a_users_cell_may_start_from_a_state_of_its_own() -> None:
    class Started(OwnRNN):
        def initial_state(self, batch: int, dtype: Any, device: str) -> Any:
            return tg.ones((batch, self.hidden_size), dtype=dtype, device=device)

    x = tg.tensor(np.random.default_rng(0).standard_normal((4, 2, 3)))
    layer = tg.nn.Recurrent(Started, 3, 5)
    assert_same(layer(x), layer(x, tg.ones((1, 2, 5), dtype=tg.float64)), rtol=0, atol=0)


def test_recurrent_takes_instances_one_for_each_layer_and_direction() -> None:
    x = tg.tensor(np.random.default_rng(0).standard_normal((4, 2, 3)))
    classes = tg.nn.Recurrent(OwnRNN, 3, 5, num_layers=2)
    instances = tg.nn.Recurrent([OwnRNN(3, 5), OwnRNN(5, 5)], 3, 5, num_layers=2)
    assert_same(instances(x), classes(x), rtol=0, atol=0)
    cell = OwnRNN(5, 5)
    with pytest.raises((ValueError, TypeError)):
        tg.nn.Recurrent([cell, cell], 5, 5, num_layers=2)
    with pytest.raises((ValueError, TypeError)):
        tg.nn.Recurrent(cell, 5, 5, num_layers=2)


# What a cell of 3 features and 4 units returns in place of its state of one or of two elements.
WRONG_STEPS: list[tuple[Any, Any, Any, str]] = [
    (4, lambda h: (h, h), tg.errors.ArgumentError, "is one Tensor, .* got 2 in a tuple"),
    (4, lambda h: (h,), tg.errors.ArgumentError, "is one Tensor, .* got 1 in a tuple"),
    (4, lambda h: [h], tg.errors.ArgumentError, "is one Tensor, .* got 1 in a list"),
    (4, lambda h: None, tg.errors.ArgumentError, "a NoneType as the state, a Tensor is needed"),
    (4, lambda h: h.numpy(), tg.errors.ArgumentError, "a ndarray as the state"),
    (4, lambda h: h[:, :3], tg.errors.ShapeError, r"\(2, 3\), \(2, 4\) is needed"),
    (4, lambda h: h[0], tg.errors.ShapeError, r"\(4,\), \(2, 4\) is needed"),
    (4, lambda h: h[:1], tg.errors.ShapeError, r"\(1, 4\), \(2, 4\) is needed"),
    (4, lambda h: h.astype("float64"), tg.errors.DTypeError, "float64, it took float32: use .as"),
    ((4, 4), lambda s: s[0], tg.errors.ArgumentError, "a tuple of 2 Tensors, .* got Tensor"),
    ((4, 4), lambda s: (*s, s[0]), tg.errors.ArgumentError, "tuple of 2 .* got 3 in a tuple"),
    ((4, 4), lambda s: list(s), tg.errors.ArgumentError, "a tuple of 2 .* got 2 in a list"),
    ((4, 4), lambda s: (s[0], 1.0), tg.errors.ArgumentError, "a float as element 1 of the state"),
    ((4, 6), lambda s: (s[0], s[0]), tg.errors.ShapeError, r"element 1 .*\(2, 4\), \(2, 6\) is"),
]


@pytest.mark.parametrize(("hidden_size", "returned", "error", "message"), WRONG_STEPS)
@pytest.mark.parametrize("both", [False, True])
def test_a_step_returns_a_state_like_the_one_that_it_took(
    hidden_size: Any, returned: Any, error: Any, message: str, both: bool
) -> None:
    class Wrong(tg.nn.Cell):
        def __init__(self, *sizes: int) -> None:
            super().__init__()
            self.hidden_size = hidden_size

        def step(self, z: Any, state: Any) -> Any:
            return returned(state)

    layer = tg.nn.Recurrent(Wrong, 3, 4, bidirectional=both)
    for run in (
        lambda: layer(tg.zeros(5, 2, 3)),
        lambda: layer(tg.zeros(5, 2, 3), lengths=[5, 3]),
        lambda: layer(tg.zeros(5, 2, 3), bptt=tg.bptt.Full(checkpoint=True)),
        lambda: Wrong()(tg.zeros(2, 3)),
    ):
        with pytest.raises(error, match=rf"(?s)Wrong\.step returned .*{message}"):
            run()


@pytest.mark.parametrize(("hidden_size", "returned", "error", "message"), WRONG_STEPS)
def test_a_later_step_returns_a_state_like_the_one_that_it_took(
    hidden_size: Any, returned: Any, error: Any, message: str
) -> None:
    class WrongLater(tg.nn.Cell):
        def __init__(self, *sizes: int) -> None:
            super().__init__()
            self.hidden_size = hidden_size

        def step(self, z: Any, state: Any) -> Any:
            return returned(state) if (z > 2).data.all() else state

    layer, x = tg.nn.Recurrent(WrongLater, 3, 4), tg.arange(5.0).reshape(5, 1, 1) * tg.ones(2, 3)
    with pytest.raises(error, match=rf"(?s)WrongLater\.step returned .*{message}"):
        layer(x)


def test_an_error_for_a_dtype_names_the_one_to_convert_to() -> None:
    for call in (
        lambda: tg.nn.GRU(3, 4)(tg.zeros(5, 2, 3, dtype="float64")),
        lambda: tg.nn.GRU(3, 4)(tg.zeros(5, 2, 3), tg.zeros(1, 2, 4, dtype="float64")),
        lambda: tg.nn.GRUCell(3, 4)(tg.zeros(2, 3, dtype="float64")),
    ):
        with pytest.raises(tg.errors.DTypeError, match=r"is float64, .*astype\('float32'\)"):
            call()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: x.sum(0), r"\(5, 2, ·\) is needed"),
        (lambda x: x[1:], r"\(4, 2, 3\) .*\(5, 2, ·\)"),
        (lambda x: x.swapaxes(0, 1), r"\(2, 5, 3\) .*\(5, 2, ·\)"),
        (lambda x: (x, x), "a tuple, one Tensor is needed"),
        (lambda x: x.numpy(), "a ndarray, one Tensor is needed"),
    ],
)
def test_a_projection_has_the_steps_and_sequences_of_its_input(returned: Any, message: str) -> None:
    class Wrong(OwnRNN):
        def project(self, x: Any) -> Any:
            return returned(x)

    with pytest.raises(ValueError, match=rf"Wrong\.project returned .*{message}"):
        tg.nn.Recurrent(Wrong, 3, 4)(tg.zeros(5, 2, 3, dtype=tg.float64))


def test_an_initial_state_is_checked_before_it_is_used() -> None:
    class Wrong(OwnRNN):
        def initial_state(self, batch: int, dtype: Any, device: str) -> Any:
            return self.first

    x = tg.zeros(5, 2, 3, dtype=tg.float64)
    for first in (tg.zeros(1, 4, dtype=tg.float64), tg.zeros(2, 4), (tg.zeros(2, 4),), None):
        cell = Wrong(3, 4)
        cell.first = first
        for run in (lambda c=cell: tg.nn.Recurrent([c], 3, 4)(x), lambda c=cell: c(x[0])):
            with pytest.raises((ValueError, TypeError), match=r"Wrong\.initial_state: "):
                run()


CELLS_THAT_DO_NOT_FIT: list[tuple[Any, str]] = [
    (lambda: tg.nn.Recurrent([tg.nn.GRUCell(3, 5)], 3, 99), "hidden_size = 99, .* = 5"),
    (lambda: tg.nn.Recurrent([tg.nn.LSTMCell(3, 5)], 3, 6), r"hidden_size = 6, .*\(5, 5\)"),
    (
        lambda: tg.nn.Recurrent([tg.nn.GRUCell(3, 5), tg.nn.GRUCell(5, 6)], 3, 5, 2),
        "cell 1, GRUCell, has hidden_size = 6, cell 0, GRUCell, 5: .*one after another",
    ),
    (
        lambda: tg.nn.Recurrent([tg.nn.LSTMCell(3, 5), tg.nn.GRUCell(5, 5)], 3, 5, 2),
        r"cell 1, GRUCell, has hidden_size = 5, cell 0, LSTMCell, \(5, 5\)",
    ),
    (
        lambda: tg.nn.Recurrent(
            [tg.nn.GRUCell(3, 5), tg.nn.LSTMCell(3, 5)], 3, 5, bidirectional=True
        ),
        "cell 1, LSTMCell",
    ),
    (
        lambda: tg.nn.Recurrent([tg.nn.GRUCell(3, 5), tg.nn.GRUCell(3, 5)], 3, 5, 2),
        "cell 1, GRUCell, has input_size = 3, and gets 5 features, the outputs below it",
    ),
    (
        lambda: tg.nn.Recurrent([tg.nn.GRUCell(3, 5)], 4, 5),
        "cell 0, GRUCell, has input_size = 3, and gets 4 features, the input_size of the layer",
    ),
    (lambda: tg.nn.Recurrent([tg.nn.GRUCell(3, 5)], 3, 5, bias=False), "bias: arguments of a cell"),
]


@pytest.mark.parametrize(("make", "message"), CELLS_THAT_DO_NOT_FIT)
def test_cells_that_do_not_fit_one_another_are_refused_when_a_layer_is_made(
    make: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"Recurrent: {message}"):
        make()


@pytest.mark.parametrize("hidden_size", [None, (), [4, 4], 0, (4, -1), 2.5, "4"])
def test_a_cell_without_sizes_is_refused_when_a_layer_is_made(hidden_size: Any) -> None:
    class Sizeless(tg.nn.Cell):
        def __init__(self, *sizes: int) -> None:
            super().__init__()
            if hidden_size is not None:
                self.hidden_size = hidden_size

    for cell in (Sizeless, [Sizeless()]):
        with pytest.raises(ValueError, match=r"Sizeless: hidden_size .*tuple"):
            tg.nn.Recurrent(cell, 3, 4)


@pytest.mark.parametrize("sizes", [np.int64(4), (np.int32(4),)])
def test_the_sizes_of_a_cell_may_be_numpys_integers(sizes: Any) -> None:
    cell = OwnRNN(3, 4)
    cell.hidden_size = sizes
    if isinstance(sizes, tuple):
        cell.step = lambda z, state: (OwnRNN.step(cell, z, state[0]),)  # type: ignore[method-assign]
    output, _ = tg.nn.Recurrent(cell, 3, 4)(tg.zeros(5, 2, 3, dtype="float64"))
    assert output.shape == (5, 2, 4)


def test_cells_whose_states_are_alike_may_be_of_different_classes() -> None:
    cells = [tg.nn.GRUCell(3, 4), tg.nn.RNNCell(4, 4), tg.nn.GRUCell(4, 4)]
    layer, x = tg.nn.Recurrent(cells, 3, np.int64(4), num_layers=3), tg.randn(6, 2, 3, rng=0)
    output, state = layer(x)
    first, carried = layer(x[:2])
    second, final = layer(x[2:], carried)
    assert_same((tg.concatenate([first, second]), final), (output, state), rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------- initialisation, dropout


@pytest.mark.parametrize("kind", reference.KINDS)
def test_weights_start_uniform_within_one_over_the_root_of_the_width(kind: str) -> None:
    more = {"proj_size": 30} if kind == "lstm" else {}
    layer = CLASSES[kind](50, 100, num_layers=2, bidirectional=True, **more)
    for name, parameter in layer.named_parameters():
        values = parameter.numpy()
        assert values.dtype == np.float32, name
        assert abs(values).max() <= 0.1, name
        assert values.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.2), name


@pytest.mark.parametrize("layer_class", LAYERS)
def test_weights_are_drawn_again_from_the_same_seed(layer_class: Any) -> None:
    states = []
    for seed in (3, 3, 4):
        tg.manual_seed(seed)
        states.append(layer_class(2, 3).state_dict())
    for name, array in states[0].items():
        assert (array == states[1][name]).all()
        assert (array != states[2][name]).any()


def dropout_case() -> tuple[Any, Any, Array]:
    """Return a relu RNN whose second layer copies its input, an input, and layer one's output."""
    tg.manual_seed(0)
    layer = tg.nn.RNN(1, 40, num_layers=2, nonlinearity="relu", dropout=0.25, dtype=tg.float64)
    weights = {name: np.zeros(w.shape) for name, w in layer.state_dict().items()}
    weights["weight_ih_l0"] += np.linspace(1.0, 2.0, 40).reshape(40, 1)
    weights["weight_ih_l1"] += np.eye(40)
    layer.load_state_dict(weights)
    x = np.random.default_rng(0).uniform(1.0, 2.0, (20, 6, 1))
    return layer, tg.tensor(x), x * weights["weight_ih_l0"].T


def test_dropout_acts_between_layers_and_keeps_the_mean() -> None:
    layer, x, first = dropout_case()
    output = layer(x)[0].numpy()
    kept = output != 0.0
    assert_allclose(output[kept], (first / 0.75)[kept], rtol=1e-12)
    assert kept.mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / kept.size))
    for axis in range(3):  # a mask of its own for every step, sequence and element
        assert (kept.any(axis) & ~kept.all(axis)).any()


def test_dropout_is_off_in_eval_and_after_the_last_layer() -> None:
    layer, x, first = dropout_case()
    assert_allclose(layer.eval()(x)[0].numpy(), first, rtol=1e-12)
    state = layer.train()(x)[1]
    assert_allclose(state[0].numpy(), first[-1], rtol=1e-12)  # layer one's own is whole


@pytest.mark.parametrize("layer_class", LAYERS)
def test_dropout_that_has_nothing_to_act_on_is_told(layer_class: Any) -> None:
    with pytest.warns(UserWarning, match=rf"{layer_class.__name__}: dropout=0.5 .*one layer") as w:
        layer_class(3, 4, dropout=0.5)
    with pytest.warns(UserWarning, match=r"Recurrent: dropout=0.5 .*one layer") as v:
        tg.nn.Recurrent(tg.nn.GRUCell, 3, 4, dropout=0.5, bidirectional=True)
    assert w[0].filename == v[0].filename == __file__
    layer_class(3, 4, dropout=0.0)
    layer_class(3, 4, num_layers=2, dropout=0.5)


def test_dropout_is_drawn_again_from_the_same_seed() -> None:
    layer, x, _ = dropout_case()
    outputs = []
    for seed in (5, 5, 6):
        tg.manual_seed(seed)
        outputs.append(layer(x)[0].numpy())
    assert (outputs[0] == outputs[1]).all()
    assert (outputs[0] != outputs[2]).any()


# ------------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("shape", [(4, 2, 7), (4, 7)])
def test_a_wrong_input_size_is_named_with_the_right_one(layer_class: Any, shape: Any) -> None:
    with pytest.raises(ValueError, match=r"(?s)(?=.*\b7\b)(?=.*\b3\b)") as raised:
        layer_class(3, 5)(tg.zeros(shape))
    assert isinstance(raised.value, tg.errors.ShapeError)


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("shape", [(3,), (1, 4, 2, 3)])
def test_a_wrong_number_of_axes_is_named(layer_class: Any, shape: Any) -> None:
    with pytest.raises(tg.errors.ShapeError, match=re.escape(str(shape))):
        layer_class(3, 5)(tg.zeros(shape))


@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_wrong_dtype_is_named_with_the_right_one(layer_class: Any) -> None:
    layer = layer_class(3, 5)
    for dtype in (tg.float64, tg.int64):
        with pytest.raises(tg.errors.DTypeError, match=f"(?s)(?=.*{np.dtype(dtype)})(?=.*float32)"):
            layer(tg.zeros((4, 2, 3), dtype=dtype))
    state = tg.zeros((1, 2, 5), dtype=tg.float64)
    state = (state, state) if layer_class is tg.nn.LSTM else state
    with pytest.raises(tg.errors.DTypeError, match=r"(?s)(?=.*float64)(?=.*float32)"):
        layer(tg.zeros((4, 2, 3)), state)


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("shape", [(1, 2, 6), (1, 7, 5), (9, 2, 5), (2, 5)])
def test_a_wrong_state_is_named_with_the_right_shape(layer_class: Any, shape: Any) -> None:
    state = tg.zeros(shape)
    state = (state, state) if layer_class is tg.nn.LSTM else state
    wanted = rf"(?s)(?=.*\(1, 2, 5\))(?=.*{re.escape(str(shape))})"
    with pytest.raises(tg.errors.ShapeError, match=wanted):
        layer_class(3, 5)(tg.zeros((4, 2, 3)), state)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_no_time_step_is_refused_and_no_sequence_is_not(layer_class: Any) -> None:
    layer = layer_class(3, 5, bidirectional=True)
    with pytest.raises(tg.errors.ShapeError, match="time step"):
        layer(tg.zeros((0, 2, 3)))
    output, state = layer(tg.zeros((4, 0, 3)))
    assert output.shape == (4, 0, 10)
    assert {element.shape for element in elements(state)} == {(2, 0, 5)}


def test_a_state_of_the_wrong_kind_is_refused() -> None:
    x, h = tg.zeros((4, 2, 3)), tg.zeros((1, 2, 5))
    for layer, state in [
        (tg.nn.LSTM(3, 5), h),
        (tg.nn.LSTM(3, 5), (h,)),
        (tg.nn.LSTM(3, 5), (h, h, h)),
        (tg.nn.GRU(3, 5), (h, h)),
        (tg.nn.RNN(3, 5), (h, h)),
    ]:
        with pytest.raises((ValueError, TypeError), match="state"):
            layer(x, state)


@pytest.mark.parametrize("cell_class", CELL_CLASSES)
def test_a_cell_names_what_does_not_fit(cell_class: Any) -> None:
    cell = cell_class(3, 5)
    with pytest.raises(tg.errors.ShapeError, match=r"(?s)(?=.*\b7\b)(?=.*\b3\b)"):
        cell(tg.zeros((2, 7)))
    with pytest.raises(tg.errors.ShapeError, match=r"\(4, 2, 3\)"):
        cell(tg.zeros((4, 2, 3)))
    with pytest.raises(tg.errors.DTypeError, match=r"(?s)(?=.*float64)(?=.*float32)"):
        cell(tg.zeros((2, 3), dtype=tg.float64))
    for shape in [(1, 5), (2, 4), (5,)]:  # the first would broadcast
        state = tg.zeros(shape)
        state = (state, state) if cell_class is tg.nn.LSTMCell else state
        with pytest.raises(tg.errors.ShapeError, match=re.escape(str(shape))):
            cell(tg.zeros((2, 3)), state)
    state = tg.zeros((2, 5), dtype=tg.float64)
    state = (state, state) if cell_class is tg.nn.LSTMCell else state
    with pytest.raises(tg.errors.DTypeError, match=r"(?s)(?=.*float64)(?=.*float32)"):
        cell(tg.zeros((2, 3)), state)
    with pytest.raises(ValueError, match="input_size"):
        cell_class(0, 5)
    with pytest.raises(ValueError, match="hidden_size"):
        cell_class(3, 0)


@pytest.mark.parametrize("cell_class", [tg.nn.RNNCell, tg.nn.GRUCell])
def test_only_the_lstm_is_projected(cell_class: Any) -> None:
    for make in (cell_class, lambda *sizes, **more: tg.nn.Recurrent(cell_class, *sizes, **more)):
        with pytest.raises(TypeError, match=f"{cell_class.__name__} has no argument 'proj_size'"):
            make(3, 5, proj_size=2)
    for size in (np.int64(2), np.int8(2)):
        layer = tg.nn.LSTM(3, np.int64(5), proj_size=size)
        assert layer.cells[0].hidden_size == (2, 5)
        assert layer(tg.zeros(4, 1, 3))[0].shape == (4, 1, 2)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_layer_knows_its_sizes(layer_class: Any) -> None:
    layer = layer_class(3, np.int64(5), num_layers=2)
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (3, 5, 2)
    assert tg.nn.LSTM(3, 5, proj_size=2).hidden_size == 5


def test_a_cell_without_a_step_says_so() -> None:
    class Forgetful(tg.nn.Cell):
        hidden_size = 5

    with pytest.raises(NotImplementedError, match=r"Forgetful must define step"):
        Forgetful()(tg.zeros((2, 3)))


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("lengths", [[4], [4, 4, 4], [4, 5], [-1, 4], [2.5, 4.0], [[4, 4]]])
def test_wrong_lengths_are_refused(layer_class: Any, lengths: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="lengths"):
        layer_class(3, 5)(tg.zeros((4, 2, 3)), lengths=lengths)


@pytest.mark.parametrize(
    ("layer_class", "options"),
    [
        (tg.nn.RNN, {"nonlinearity": "sigmoid"}),
        (tg.nn.LSTM, {"proj_size": 5}),
        (tg.nn.LSTM, {"proj_size": -1}),
        (tg.nn.LSTM, {"proj_size": True}),
        (tg.nn.LSTM, {"proj_size": 2.0}),
        *((layer_class, {"dropout": 1.5}) for layer_class in LAYERS),
        *((layer_class, {"dropout": -0.1}) for layer_class in LAYERS),
        *((layer_class, {"num_layers": 0}) for layer_class in LAYERS),
        *((layer_class, {"hidden_size": 0}) for layer_class in LAYERS),
    ],
)
def test_wrong_options_are_refused_by_name(layer_class: Any, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        layer_class(**{"input_size": 3, "hidden_size": 5, "num_layers": 2} | options)


class AddsInPlace(tg.nn.Cell):
    """A cell whose step writes to what it is given."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size

    def step(self, z, h):
        h += z
        z *= 2
        return h


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", [tg.nn.RNNCell, tg.nn.GRUCell, tg.nn.LSTMCell, AddsInPlace])
def test_a_single_step_without_a_graph(cell, batch_first, layers):
    """It is computed without a loop; the results are those of other calls, in their own memory."""
    dropout = 0.5 * (layers > 1)
    layer = tg.nn.Recurrent(cell, 3, 3, layers, batch_first, dropout).eval()
    x = tg.randn(2, 1, 3, rng=0) if batch_first else tg.randn(1, 2, 3, rng=0)
    _, state = layer(x)
    state = state if isinstance(state, tuple) else (state,)
    state = tuple(tg.randn(*s.shape, rng=1) for s in state)
    kept = [value.numpy() for value in (x, *state)]
    given = state if len(state) > 1 else state[0]
    expected_y, expected = layer(x, given)
    with tg.no_grad():
        y, new = layer(x, given)
        assert layer(x, given, output=False)[0] is None
        [report, *_] = layer.explain(x, given)
    assert report.reason == "it is a single step"
    for value, before in zip((x, *state), kept, strict=True):
        np.testing.assert_array_equal(value.numpy(), before)
    pairs = [(y, expected_y)]
    pairs += list(zip(new, expected, strict=True)) if isinstance(new, tuple) else [(new, expected)]
    for found, other in pairs:
        np.testing.assert_array_equal(found.numpy(), other.numpy())
    assert not any(
        np.shares_memory(y._data, s._data) for s in (new if isinstance(new, tuple) else [new])
    )


class Delay(tg.nn.Cell):
    """A cell whose projection mixes time steps."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size

    def project(self, x):
        _, batch, width = x.shape
        return tg.concatenate([tg.zeros(1, batch, width), x[:-1]], axis=0)

    def step(self, z, h):
        return z


def test_a_single_step_is_projected_with_its_time_axis():
    layer, x = tg.nn.Recurrent(Delay, 2, 2), tg.ones(1, 3, 2)
    assert not layer(x)[0].numpy().any()
    with tg.no_grad():
        assert not layer(x)[0].numpy().any()
        [report] = layer.explain(x)
        assert report.reason == "it is a single step"
        with tg.eager():
            [report] = layer.explain(x)
    assert report.reason == "eager() runs every operation separately"
