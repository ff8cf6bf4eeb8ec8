"""What stays alive and what is computed, by counting objects, bytes and products, never by time."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine import backend, pending
from tinygrad_rnn.engine.ops import kernels
from tinygrad_rnn.errors import GraphError


def leaf(value):
    return tg.tensor(np.asarray(value, dtype=np.float64), requires_grad=True)


@pytest.fixture
def no_collector():
    """Without the cyclic collector: whatever is in a cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def nodes_of(*tensors):
    """All nodes that led to the tensors."""
    seen, stack = set(), [t._node for t in tensors]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += [parent for parent in node.parents if parent is not None]
    return seen


def watch(*tensors):
    """Weak references to all nodes that led to the tensors, and to the arrays that they hold."""
    return [weakref.ref(node) for node in nodes_of(*tensors)]


def alive(references):
    return [node.name for node in (reference() for reference in references) if node is not None]


# -- dropped is freed ------------------------------------------------------------------------------


def network(x, w):
    h = x
    for x_t in tg.stack([x, x * 2, x * 3]):
        h = tg.tanh(h @ w.T + x_t) * tg.sigmoid(h)
    return tg.functional.cross_entropy(h, [0, 1]) + h[:, [0, 0]].sum() + h.max()


@pytest.fixture
def weights():
    return leaf(np.eye(2)), leaf([[0.5, 1.0], [2.0, -0.3]])


def test_a_graph_is_freed_when_it_is_dropped(no_collector, weights):
    loss = network(*weights)
    references = watch(loss)
    assert len(alive(references)) > 20
    del loss
    assert alive(references) == ["leaf", "leaf"]


def test_a_graph_is_freed_after_backward(no_collector, weights):
    loss = network(*weights)
    references = watch(loss)
    loss.backward()
    del loss
    assert alive(references) == ["leaf", "leaf"]


def test_leaves_are_freed_with_their_gradients(no_collector):
    weights = leaf(np.eye(2)), leaf([[0.5, 1.0], [2.0, -0.3]])
    network(*weights).backward()
    references = [weakref.ref(w._node) for w in weights] + [weakref.ref(w.grad) for w in weights]
    references += [weakref.ref(w.data) for w in weights]
    del weights
    assert [r() for r in references] == [None] * 6


def test_the_graph_of_a_gradient_makes_no_cycle(no_collector, weights):
    loss = network(*weights)
    first = tg.grad(loss, weights, create_graph=True)
    second = tg.grad(sum((g * g).sum() for g in first), weights, create_graph=True)
    references = watch(loss, *first, *second)
    assert len(alive(references)) > 100
    del loss, first, second
    assert alive(references) == ["leaf", "leaf"]


def test_a_penalty_through_backward_makes_no_cycle(no_collector, weights):
    loss = network(*weights)
    first = tg.grad(loss, weights, create_graph=True)
    penalty = loss + sum((g * g).sum() for g in first)
    references = watch(penalty)
    penalty.backward()
    del loss, first, penalty
    assert alive(references) == ["leaf", "leaf"]


def test_a_checkpoint_makes_no_cycle(no_collector, weights):
    loss = tg.checkpoint(network, *weights)
    references = watch(loss)
    assert "checkpoint" in alive(references)
    loss.backward()
    del loss
    assert alive(references) == ["leaf", "leaf"]


def test_a_failed_backward_leaves_nothing_behind(no_collector, weights):
    loss = network(*weights)
    references = watch(loss)
    weights[1].data = np.zeros((2, 2))
    with pytest.raises(GraphError, match="changed in place"):
        loss.backward()
    del loss
    assert alive(references) == ["leaf", "leaf"]


def test_the_watch_would_see_a_cycle(no_collector, weights):
    loss = network(*weights)
    references = watch(loss)
    loop = [loss]
    loop.append(loop)
    del loss, loop
    assert len(alive(references)) > 20
    gc.collect()
    assert alive(references) == ["leaf", "leaf"]


def test_saved_arrays_are_freed_by_backward_while_the_result_lives(weights):
    x, _ = weights
    y = tg.exp(x)
    saved = weakref.ref(y._data)
    z = (y * 2).sum()
    del y
    assert saved() is not None
    z.backward()
    assert saved() is None
    assert z.requires_grad


def test_only_what_a_rule_names_is_saved(weights):
    x, _ = weights
    middle = x * 2
    array = weakref.ref(middle._data)
    total = tg.exp(middle + 1).sum()  # adding saves nothing, exp saves its result
    del middle
    assert array() is None
    total.backward()


# -- memory does not grow --------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_truncated_windows(no_collector):
    rng = np.random.default_rng(0)
    w, u = leaf(rng.normal(size=(8, 8)) / 4), leaf(rng.normal(size=(4, 8)) / 4)
    ids = rng.integers(0, 8, (3, 3))
    state = tg.zeros(3, 8, dtype=np.float64)

    def window(state):
        losses = []
        for x_t in u[ids % 4]:
            state = tg.tanh(x_t + state @ w)
            losses.append((state * state).mean())
        tg.stack(losses).mean().backward()
        for p in (w, u):
            p.data = p.data - 0.01 * p.grad.data
            p.grad = None
        return tg.bptt.detach(state)

    tracemalloc.start()
    try:
        for _ in range(2500):  # until the interpreter's free lists are full: they count as used
            state = window(state)
        growth = []
        for _ in range(3):  # a leak grows each time; the interpreter's own lists do not
            before, first_peak = tracemalloc.get_traced_memory()
            for _ in range(1000):
                state = window(state)
            after, peak = tracemalloc.get_traced_memory()
            growth.append((after - before, peak - first_peak))
    finally:
        tracemalloc.stop()
    assert min(used for used, _ in growth) < 4_000
    assert min(peak for _, peak in growth) < 8_000


def test_memory_of_a_pass_does_not_hold_all_gradients():
    """Gradients are dropped as they are used up: a chain needs a few of them at a time."""
    x = leaf(np.ones(10_000))
    y = x
    for _ in range(200):
        y = -y  # saves nothing
    y = y.sum()
    tracemalloc.start()
    try:
        y.backward()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * x.data.nbytes


# -- reading parts is linear -----------------------------------------------------------------------

READERS = {
    "x[t]": lambda x: [x[t] for t in range(len(x))],
    "x[-t]": lambda x: [x[-t] for t in range(1, len(x) + 1)],
    "x[t : t + 1]": lambda x: [x[t : t + 1] for t in range(len(x))],
    "x[t, :, 0]": lambda x: [x[t, :, 0] for t in range(len(x))],
    "x[:, t]": lambda x: [y[:, t] for y in [x.swapaxes(0, 1)] for t in range(y.shape[1])],
    "for x_t in x": lambda x: list(x),
    "unbind": lambda x: x.unbind(),
    "unbind axis 1": lambda x: x.swapaxes(0, 1).unbind(axis=1),
    "split": lambda x: x.split(len(x)),
    "take": lambda x: [x.take(t, axis=0) for t in range(len(x))],
    "windows": lambda x: [x[t : t + 2] for t in range(len(x) - 1)],
    "rows": lambda x: [x[np.array([t, 0])] for t in range(len(x))],
}


@pytest.fixture
def allocated(monkeypatch):
    """Bytes of every array that a scatter makes, one entry each."""
    sizes = []
    for module, name in ((backend, "full"), (kernels, "empty_in_order_of")):
        original = getattr(module, name)

        def counted(*args, original=original, **keywords):
            array = original(*args, **keywords)
            sizes.append(array.nbytes)
            return array

        monkeypatch.setattr(module, name, counted)
    return sizes


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_reading_every_step_costs_as_much_as_the_whole_once(name, create_graph, allocated):
    counts = {}
    for steps in (8, 32):
        x = leaf(np.arange(steps * 6.0).reshape(steps, 3, 2))
        total = sum((part * part).sum() for part in READERS[name](x))
        counts[steps] = len(nodes_of(total))
        allocated.clear()
        gradient = tg.grad(total, x, create_graph=create_graph)
        whole = [size for size in allocated if size >= x.data.nbytes]
        assert len(whole) == 1, "one array of the whole size, whatever the number of steps"
        if create_graph:
            assert len(nodes_of(gradient)) <= counts[steps] + 8 * steps + 10
        expected = np.zeros(x.shape)
        for part, keys in zip(READERS[name](x), READERS[name](index_of(x)), strict=True):
            np.add.at(
                expected.reshape(-1),
                keys.numpy().astype(int).reshape(-1),
                2 * part.numpy().reshape(-1),
            )
        np.testing.assert_allclose(gradient.numpy(), expected)
    assert counts[32] - counts[8] == (counts[8] - overhead(counts)) * 3


def index_of(x):
    """The number of each element of x, for reading it in the same way."""
    return tg.tensor(np.arange(x.size).reshape(x.shape).astype(np.float64))


def overhead(counts):
    """What is left of the number of nodes at 0 steps, if it grows linearly."""
    return counts[8] - (counts[32] - counts[8]) // 3


def test_memory_of_reading_every_step_is_linear():
    peaks = []
    for steps in (50, 200):
        x = leaf(np.ones((steps, 1000)))
        tracemalloc.start()
        try:
            total = sum(x_t.sum() for x_t in x)
            total.backward()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 5 * peaks[0]


def test_repeated_rows_add_up_in_one_scatter(allocated):
    weight = leaf(np.ones((5, 2)))
    total = sum(weight[[0, 3, 3]].sum() * i for i in range(1, 20))
    total.backward()
    assert allocated.count(weight.data.nbytes) == 1
    np.testing.assert_allclose(weight.grad.numpy()[:, 0], [190, 0, 0, 380, 0])


# -- one product for a weight ----------------------------------------------------------------------

STEPS, BATCH, INPUT, HIDDEN = 7, 3, 4, 6


@pytest.fixture
def products(monkeypatch):
    """Shapes of the results of all matrix products, in order."""
    shapes = []
    original = kernels.gemm

    def counted(*args, **keywords):
        out = original(*args, **keywords)
        shapes.append(out.shape)
        return out

    monkeypatch.setattr(kernels, "gemm", counted)
    return shapes


def weight_products(shapes, weight):
    return sum(shape in (weight.shape, weight.shape[::-1]) for shape in shapes)


UNROLLED = {
    "h @ w": ((HIDDEN, HIDDEN), lambda h, w: h @ w),
    "h @ w.T": ((HIDDEN, HIDDEN), lambda h, w: h @ w.T),
    "w @ h": ((HIDDEN, HIDDEN), lambda h, w: (w @ h.T).T),
    "batches of rows": (
        (HIDDEN, HIDDEN),
        lambda h, w: tg.reshape(tg.expand_dims(h, 0) @ w.T, h.shape),
    ),
    "a wide weight": ((2 * HIDDEN, HIDDEN), lambda h, w: (h @ w.T)[:, :HIDDEN]),
}


@pytest.mark.parametrize("name", UNROLLED)
@pytest.mark.parametrize("create_graph", [False, True])
def test_the_gradient_of_a_weight_used_at_every_step_is_one_product(name, create_graph, products):
    shape, step = UNROLLED[name]
    rng = np.random.default_rng(0)
    w = leaf(rng.normal(size=shape) / 3)
    start = tg.tensor(rng.normal(size=(BATCH, HIDDEN)))

    def unrolled(w):
        h = start
        for _ in range(STEPS):
            h = tg.tanh(step(h, w))
        return (h * h).sum()

    loss = unrolled(w)
    products.clear()
    gradient = tg.grad(loss, w, create_graph=create_graph)
    assert weight_products(products, w) == 1
    direction = rng.normal(size=shape)
    h = 1e-5
    up, down = (unrolled(leaf(w.numpy() + s * h * direction)).item() for s in (1, -1))
    np.testing.assert_allclose(
        (gradient.numpy() * direction).sum(), (up - down) / (2 * h), rtol=1e-6
    )


@pytest.mark.parametrize("layer", [tg.nn.RNN, tg.nn.GRU, tg.nn.LSTM])
def test_a_layers_weights_take_one_product_each(layer, products):
    """Or several, of some rows each, if the factors of these are in different arrays (GRU)."""
    layer = layer(INPUT, HIDDEN)
    x = tg.randn(STEPS, BATCH, INPUT, rng=0)
    output, _ = layer(x)
    products.clear()
    (output * output).sum().backward()
    rows = len(layer.weight_ih_l0)
    for columns in (INPUT, HIDDEN):  # of W_ih and W_hh
        found = [r for r, c in products if c == columns and r != BATCH]  # BATCH: of one step
        assert sum(found) == rows and len(found) <= rows // HIDDEN
    for weight in layer.parameters():
        assert weight.grad.shape == weight.shape


def test_factors_are_multiplied_early_when_they_hold_too_much(products, monkeypatch):
    rng = np.random.default_rng(0)
    w = leaf(rng.normal(size=(HIDDEN, HIDDEN)) / 3)

    def gradient():
        h = tg.ones(BATCH, HIDDEN, dtype=np.float64)
        for _ in range(STEPS):
            h = tg.tanh(h @ w)
        products.clear()
        return tg.grad(h.sum(), w)

    whole = gradient()
    assert weight_products(products, w) == 1
    monkeypatch.setattr(pending, "MAX_DEFERRED_BYTES", 500)
    in_pieces = gradient()
    assert 1 < weight_products(products, w) <= STEPS
    np.testing.assert_allclose(in_pieces.numpy(), whole.numpy(), rtol=1e-12)


@pytest.mark.parametrize("limit", [0, 100, 200, 300, 400, 10**6])
def test_factors_multiplied_early_are_added_to_those_of_other_uses(limit, monkeypatch):
    """Also where a weight is used directly, and by several nodes of its transpose."""
    monkeypatch.setattr(pending, "MAX_DEFERRED_BYTES", limit)
    rng = np.random.default_rng(0)
    w, xs = leaf(rng.normal(size=(3, 3))), [tg.tensor(x) for x in rng.normal(size=(6, 4, 3))]
    transposes = w.T, w.T
    uses = [x @ (w if i == 2 else transposes[i % 2]) for i, x in enumerate(xs)]
    gradient = tg.grad(sum(y.sum() for y in uses), w).numpy()
    columns = [x.numpy().sum(axis=0) for x in xs]
    wanted = sum(np.tile(c, (3, 1)) for i, c in enumerate(columns) if i != 2)
    np.testing.assert_allclose(gradient, wanted + columns[2][:, None], rtol=1e-12)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_pending_gradient_has_the_dtype_of_its_argument(create_graph, transposed):
    x, w = leaf(np.ones((4, 3))), tg.ones(3, 3, dtype="float32", requires_grad=True)
    h = tg.tanh(x @ (w.T if transposed else w)) @ w  # float64
    first, second = tg.grad(h.sum(), [x, w], retain_graph=True, create_graph=create_graph)
    assert (first.dtype, second.dtype) == (np.float64, np.float32)
    h.sum().backward()
    assert w.grad.dtype == np.float32
