"""Looking inside: graphs as text and drawings, gradients through time, spectra, pictures."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, GraphError, MissingExtraError, ShapeError
from tinygrad_rnn.viz.graph_layout import columns, rows

SEEDS = st.integers(0, 2**32 - 1)
LAYERS = [tg.nn.RNN, tg.nn.GRU, tg.nn.LSTM]
SVG = "{http://www.w3.org/2000/svg}"


class Leaky(tg.nn.Cell):
    """A user's cell, which projects nothing and has a state of two parts of different sizes."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = (hidden_size, 2)
        self.W = tg.nn.Linear(input_size + hidden_size + 2, hidden_size + 2, dtype=tg.float64)

    def step(self, x, state):
        h, m = state
        new = tg.tanh(self.W(tg.concatenate([x, h, m], axis=-1)))
        size = self.hidden_size[0]
        return new[..., :size], 0.7 * m + new[..., size:]


def layer_of(kind, num_layers=1, **options):
    if kind is Leaky:
        return tg.nn.Recurrent(Leaky, 2, 3, num_layers, **options)
    return kind(2, 3, num_layers, dtype=tg.float64, rng=num_layers, **options)


def sequence(steps=7, batch=2, seed=0):
    return tg.tensor(np.random.default_rng(seed).normal(size=(steps, batch, 2)))


# --------------------------------------------------------------------------------------- the graph


def parsed(dot):
    """Return the attributes of each node, the clusters' members and the edges of a DOT text.

    A parser of the grammar at graphviz.org/doc/info/lang.html, as far as it is used.
    """
    pattern = r'\s*(->|[{}\[\]=,;]|"(?:[^"\\]|\\.)*"|\w+)'
    tokens, place = [], 0
    while dot[place:].strip():
        match = re.compile(pattern, re.S).match(dot, place)
        assert match, f"no token at {dot[place : place + 30]!r}"
        tokens.append(match[1])
        place = match.end()
    nodes, clusters, edges = {}, {}, []

    def statements(inside):
        while tokens[0] != "}":
            name = tokens.pop(0)
            if name == "subgraph":
                clusters[tokens.pop(0)] = members = []
                assert tokens.pop(0) == "{"
                statements(members)
                continue
            if tokens[0] == "=":
                del tokens[:2]
                continue
            if tokens[0] == "->":
                edges.append((name, tokens[1]))
                del tokens[:2]
                continue
            attributes = {}
            assert tokens.pop(0) == "["
            while tokens[0] != "]":
                key, equals, value = tokens[:3]
                assert equals == "="
                attributes[key] = value
                del tokens[:3]
                if tokens[0] == ",":
                    tokens.pop(0)
            tokens.pop(0)
            if name != "node":
                assert name not in nodes
                nodes[name] = attributes
                inside.append(name)
        tokens.pop(0)

    assert tokens[:2] == ["digraph", "{"]
    del tokens[:2]
    statements([])
    assert not tokens
    return nodes, clusters, edges


def walked(*outputs):
    """Return the nodes and edges that hang on some outputs, by a walk of its own."""
    found, edges, stack = {}, [], [y._node for y in outputs]
    while stack:
        node = stack.pop()
        if id(node) not in found:
            found[id(node)] = node
            parents = [p for p in node.parents if p is not None]
            edges += [(id(p), id(node)) for p in parents]
            stack += parents
    return found, edges


@st.composite
def computations(draw):
    """Draw a tensor that was computed somehow from a few leaves."""
    made = [tg.ones(2, requires_grad=True) for _ in range(draw(st.integers(1, 3)))]
    for choice in draw(st.lists(st.tuples(*[st.integers(0, 9)] * 3), max_size=12)):
        a, b = (made[k % len(made)] for k in choice[1:])
        made.append(
            [lambda a, b: a * b, lambda a, b: a.tanh(), lambda a, b: a + 1 - b][choice[0] % 3](a, b)
        )
    made.append(made[-1] * 1)
    return made[-1]


@given(computations())
def test_every_node_and_edge_is_there_once(y):
    nodes, edges = walked(y)
    graph = tg.viz.graph(y)
    assert (len(graph.nodes), len(graph.edges)) == (len(nodes), len(edges))
    order = sorted(nodes.values(), key=lambda node: node.order)
    number = {id(node): i for i, node in enumerate(order)}
    expected = Counter((number[i], number[k]) for i, k in edges)
    assert [n.label for n in graph.nodes] == [node.name for node in order]
    assert Counter(graph.edges) == expected

    dot_nodes, clusters, dot_edges = parsed(graph.dot())
    assert (list(dot_nodes), clusters) == ([f"n{i}" for i in range(len(nodes))], {})
    assert Counter(dot_edges) == {(f"n{i}", f"n{k}"): n for (i, k), n in expected.items()}

    drawing = ElementTree.fromstring(graph.svg())
    boxes = [g for g in drawing.iter(f"{SVG}g") if g.get("class").startswith("node")]
    curves = [p for p in drawing.iter(f"{SVG}path") if p.get("class").startswith("edge")]
    assert (len(boxes), len(curves)) == (len(nodes), len(edges))


@given(computations())
def test_a_drawing_goes_from_left_to_right_and_no_box_hides_another(y):
    graph = tg.viz.graph(y)
    drawing = ElementTree.fromstring(graph.svg(1e6))
    places = [
        tuple(float(v) for v in re.findall(r"[-\d.]+", g.get("transform")))
        for g in drawing.iter(f"{SVG}g")
    ]
    assert all(places[i][0] + 96 < places[k][0] for i, k in graph.edges)
    for i, (x, y_) in enumerate(places):
        for other_x, other_y in places[:i]:
            assert abs(x - other_x) > 96 or abs(y_ - other_y) > 34
    width, height = float(drawing.get("width")), float(drawing.get("height"))
    assert all(0 < x < width - 96 and 0 < y_ < height - 34 for x, y_ in places)
    paths = [p.get("d").rsplit("M", 1)[0] for p in drawing.iter(f"{SVG}path")]  # no arrow heads
    for (i, k), path in zip(graph.edges, paths, strict=True):
        assert path.split("C")[0] == f"M{places[i][0] + 96:g} {places[i][1] + 17:g}"
        assert path.split()[-2:] == [f"{places[k][0]:g}", f"{places[k][1] + 17:g}"]


@given(st.integers(0, 10**6), st.integers(1, 15))
def test_an_edge_passes_no_box(seed, count):
    """Where an edge passes a column by, there is no node, and no edge from another node."""
    rng = np.random.default_rng(seed)
    edges = [(int(rng.integers(k)), k) for k in range(1, count) for _ in range(rng.integers(1, 3))]
    groups = np.sort(rng.integers(0, 3, count)).tolist()
    column = columns(edges, groups)
    height, lanes = rows(edges, column, groups)
    assert {(i, c) for i, k in edges for c in range(column[i] + 1, column[k])} == set(lanes)
    taken = [(c, h) for c, h in zip(column, height, strict=True)]
    taken += [(c, h) for (_, c), h in lanes.items()]
    for at, (c, h) in enumerate(taken):
        assert all(abs(h - other) > 0.2 for d, other in taken[:at] if d == c)
    assert all(column[i] < column[k] for i, k in edges)
    assert all(column[i] < column[k] for i in range(count) for k in range(count)
               if groups[i] < groups[k])  # fmt: skip


def test_labels_of_any_characters_stay_text():
    x = tg.ones(2, requires_grad=True)
    for name in ('a "b" \\', "x\\n", "<&>", "\x00\x1b\ud800", "多" * 40, "two\nlines", "]}"):
        graph = tg.viz.graph(x * 2, names={name: x})
        nodes, _, edges = parsed(graph.dot())
        assert (len(nodes), len(edges)) == (2, 1)
        written = re.sub(
            r"\\(.)",
            lambda m: "\n" if m[1] == "n" else m[1],
            nodes["n0"]["label"][1:-1],
            flags=re.S,
        )
        assert written == f"{name}\n(2,) float32"
        drawing = ElementTree.fromstring(graph.svg().encode("utf-8", "strict"))
        title = next(drawing.iter(f"{SVG}g")).find(f"{SVG}title").text
        printable = "".join(c if c.isprintable() else "\ufffd" for c in name)
        assert title == f"{printable} (2,) float32"


def test_names_of_leaves_and_results():
    x, w = tg.ones(2, requires_grad=True), tg.ones(2, requires_grad=True)
    h = tg.tanh(x * w)
    graph = tg.viz.graph(h.sum(), names={"x": x, "h": h, "elsewhere": tg.ones(1)})
    assert [n.label for n in graph.nodes] == ["x", "leaf", "multiply", "h = tanh", "sum"]
    assert [n.leaf for n in graph.nodes] == [True, True, False, False, False]
    assert graph.nodes[0] == ("x", (2,), "float32", True, None)
    layer = tg.nn.Linear(2, 3)
    labels = [n.label for n in tg.viz.graph(layer(x), names=layer).nodes]
    assert {"weight", "bias"} < set(labels)


def test_the_graph_outlives_the_backward_pass_and_several_outputs_share_it():
    x = tg.ones(2, requires_grad=True)
    y, z = x.exp(), x.sin()
    before = tg.viz.graph([y, z], names={"x": x})
    (y + z).sum().backward()
    assert before.dot() == tg.viz.graph([y, z], names={"x": x}).dot()
    assert [n.label for n in before.nodes] == ["x", "exp", "sin"]


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", [*LAYERS, Leaky])
def test_time_steps_are_told_apart(kind, num_layers):
    layer = layer_of(kind, num_layers)
    output, states = tg.viz.unroll(layer, sequence(5))
    graph = tg.viz.graph(output[-1].sum(), names=layer, steps=states)
    steps = [n.step for n in graph.nodes]
    assert set(steps) == {None, 0, 1, 2, 3, 4}
    counts = Counter(steps)
    assert counts[1] == counts[2] == counts[3]
    inside = [Counter(n.label for n in graph.nodes if n.step == t) for t in range(5)]
    assert inside[1] == inside[2] == inside[3]
    assert not any(n.leaf for n in graph.nodes if n.step is not None)
    assert steps[-1] is None, "what follows the last step belongs to none"
    for i, k in graph.edges:
        if steps[i] is not None and steps[k] is not None:
            assert steps[i] <= steps[k] <= steps[i] + 1
    _, clusters, _ = parsed(graph.dot())
    assert {name: len(members) for name, members in clusters.items()} == {
        f"cluster_{t}": counts[t] for t in range(5)
    }
    drawing = ElementTree.fromstring(graph.svg(1e6))
    between = [p for p in drawing.iter(f"{SVG}path") if "through-time" in p.get("class")]
    assert len(between) == sum(
        None not in (steps[i], steps[k]) and steps[i] != steps[k] for i, k in graph.edges
    )
    left, right = {}, {}
    for node, g in zip(graph.nodes, drawing.iter(f"{SVG}g"), strict=True):
        x = float(re.search(r"translate\(([-\d.]+)", g.get("transform"))[1])
        left[node.step] = min(x, left.get(node.step, x))
        right[node.step] = max(x, right.get(node.step, x))
    assert all(right[t] < left[t + 1] for t in range(4))


def test_what_a_state_leads_to_stands_after_it():
    """A value of step 0 that steps 1 and 2 read stands in step 1; a weight stands before all."""
    w = tg.tensor([0.5], requires_grad=True)
    first = tg.tanh(w)
    skip = first.exp()
    second = tg.tanh(first * w + skip)
    third = tg.tanh(second * w + skip)
    graph = tg.viz.graph(third.sum(), names={"w": w, "skip": skip}, steps=[first, second, third])
    assert [(n.label, n.step) for n in graph.nodes[:3]] == [
        ("w", None), ("tanh", 0), ("skip = exp", 1),
    ]  # fmt: skip


def test_a_truncated_gradient_is_a_graph_that_ends():
    layer = layer_of(tg.nn.GRU)
    output, states = tg.viz.unroll(layer, sequence(6), bptt=tg.bptt.Truncated(3))
    graph = tg.viz.graph(output[-1].sum(), steps=states)
    reached = {n.step for n in graph.nodes}
    assert reached >= {3, 4, 5}
    crossing = [
        (graph.nodes[i].step, graph.nodes[k].step)
        for i, k in graph.edges
        if graph.nodes[i].step == 2 and graph.nodes[k].step == 3
    ]
    assert crossing == []


def test_a_long_chain_needs_no_recursion():
    y = x = tg.ones(1, requires_grad=True)
    for _ in range(3000):
        y = y * 1
    assert len(tg.viz.graph(y, names={"x": x}).svg()) > 3000


def test_saving(tmp_path: Path):
    graph = tg.viz.graph(tg.ones(2, requires_grad=True).exp(), names={})
    for suffix in ("svg", "SVG"):
        graph.save(tmp_path / f"g.{suffix}")
        ElementTree.parse(tmp_path / f"g.{suffix}")
    for suffix in ("dot", "gv"):
        graph.save(str(tmp_path / f"g.{suffix}"))
        assert (tmp_path / f"g.{suffix}").read_text() == graph.dot() + "\n"
    with pytest.raises(ArgumentError, match=r"\.svg, \.dot or \.gv.*g\.png"):
        graph.save(tmp_path / "g.png")
    assert graph._repr_svg_() == graph.svg()
    x = tg.ones(2, requires_grad=True)
    tg.viz.graph(x * 2, names={"\ud800": x}).save(tmp_path / "g.dot")
    assert "?" in (tmp_path / "g.dot").read_text()


@pytest.mark.parametrize("how", ["freed", "changed"])
def test_a_loop_whose_values_are_gone_is_not_opened(how):
    layer = tg.nn.GRU(2, 3)
    output, _ = layer(tg.ones(4, 1, 2))
    if how == "freed":
        output.sum().backward()
    else:
        with tg.no_grad():
            layer.weight_hh_l0 *= 2
    assert tg.viz.graph(output).nodes
    with pytest.raises(GraphError, match=r"open_scans.*draw the graph before"):
        tg.viz.graph(output, open_scans=True)


def test_what_is_no_graph_is_refused():
    x = tg.ones(2, requires_grad=True)
    with pytest.raises(GraphError, match="no graph"):
        tg.viz.graph(tg.ones(2))
    with pytest.raises(GraphError, match="no graph"):
        tg.viz.graph([])
    with pytest.raises(ArgumentError, match=r"outputs.*Tensor.*float"):
        tg.viz.graph(1.0)
    with pytest.raises(ArgumentError, match=r"names\['x'\].*ndarray"):
        tg.viz.graph(x * 2, names={"x": np.ones(2)})
    with pytest.raises(ArgumentError, match=r"steps\[0\]"):
        tg.viz.graph(x * 2, steps=[3])


# ------------------------------------------------------------------------------------ through time


def by_hand(layer, x, loss, weights=None):
    """Return the norms from a loop over cells and `tg.grad` by the states of the loop."""
    states = [cell.initial_state(x.shape[1], x.dtype, x.device) for cell in layer.cells]
    elements = []
    for t, x_t in enumerate(x):
        if weights:
            states = tg.bptt.scale_gradient(states, weights[t])
        for level, cell in enumerate(layer.cells):
            new = cell(x_t, states[level])
            # Nodes of their own: c of an LSTM is a state, and what its own h is computed from.
            states[level] = tuple(e + 0 for e in new) if isinstance(new, tuple) else new + 0
            x_t = states[level][0] if isinstance(states[level], tuple) else states[level]
        elements.append([list(s) if isinstance(s, tuple) else [s] for s in states])
    flat = [e for step in elements for state in step for e in state]
    gradients = iter(tg.grad(loss(x_t), flat, allow_unused=True))
    squares = np.zeros((len(layer.cells), len(x)))
    for t, step in enumerate(elements):
        for level, state in enumerate(step):
            for _ in state:
                g = next(gradients)
                squares[level, len(x) - 1 - t] += 0 if g is None else (g.numpy() ** 2).sum()
    return np.sqrt(squares)


def some_loss(last):
    return (last**2).sum() + last[0, 0]


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("kind", [*LAYERS, Leaky])
def test_norms_equal_direct_computation(kind, num_layers):
    layer, x = layer_of(kind, num_layers), sequence()
    norms = tg.viz.gradient_norms(layer, x, some_loss)
    assert norms.shape == (num_layers, 7)
    np.testing.assert_allclose(norms, by_hand(layer, x, some_loss), rtol=1e-10)
    assert (norms[-1] > 0).all()
    assert all(p.grad is None for p in layer.parameters())


@pytest.mark.parametrize("kind", LAYERS)
def test_norms_under_each_strategy(kind):
    layer, x = layer_of(kind, 2), sequence(9)
    full = tg.viz.gradient_norms(layer, x, some_loss)

    def under(strategy):
        return tg.viz.gradient_norms(layer, x, some_loss, bptt=strategy)

    np.testing.assert_allclose(under(tg.bptt.Full(checkpoint=True)), full, rtol=1e-12)
    cut = under(tg.bptt.Truncated(4))  # 9 = 4 + 4 + 1
    np.testing.assert_allclose(cut[:, 0], full[:, 0], rtol=1e-12)
    assert (cut[:, 1:] == 0).all()
    reaching = under(tg.bptt.Truncated(4, stride=2))
    # Steps 6, 7 and 8: the last block would end with step 9, and the reach counts from there.
    np.testing.assert_allclose(reaching[:, :3], full[:, :3], rtol=1e-12)
    assert (reaching[:, 3:] == 0).all()
    for seed in range(4):
        weights = tg.bptt.Randomized(0.8, rng=seed).weights(9)
        found = under(tg.bptt.Randomized(0.8, rng=seed))
        np.testing.assert_allclose(found, by_hand(layer, x, some_loss, weights), rtol=1e-10)
    layer.bptt = tg.bptt.Truncated(4)
    np.testing.assert_array_equal(tg.viz.gradient_norms(layer, x, some_loss), cut)


@given(SEEDS)
def test_norms_are_products_of_step_jacobians(seed):
    """For the plain network, whose step Jacobian is diag(1 - h²) W by hand."""
    rng = np.random.default_rng(seed)
    layer = tg.nn.RNN(2, 3, dtype=tg.float64, rng=rng)
    x = rng.normal(size=(6, 1, 2))
    h = layer(tg.tensor(x))[0].numpy()[:, 0]
    W, gradient, expected = layer.weight_hh_l0.numpy(), np.ones(3), []
    for t in reversed(range(6)):
        expected.append(np.linalg.norm(gradient))
        gradient = gradient * (1 - h[t] ** 2) @ W
    np.testing.assert_allclose(tg.viz.gradient_norms(layer, tg.tensor(x))[0], expected)


def test_layouts_states_and_modes():
    layer, x = layer_of(tg.nn.LSTM, 2, dropout=0.5, batch_first=True), sequence(5)
    turned = x.swapaxes(0, 1)
    layer.eval()
    state = tuple(tg.tensor(np.random.default_rng(2).normal(size=(2, 2, 3))) for _ in range(2))
    for start in (None, state):
        expected, final = layer(turned, start)
        output, states = tg.viz.unroll(layer, turned, start)
        np.testing.assert_allclose(output.swapaxes(0, 1).numpy(), expected.numpy(), rtol=1e-12)
        np.testing.assert_allclose(states[-1][1].numpy(), final[1].numpy()[1], rtol=1e-12)
        np.testing.assert_allclose(states[-1][2].numpy(), final[0].numpy()[0], rtol=1e-12)
    with tg.no_grad():
        norms = tg.viz.gradient_norms(layer, turned, state=state)
        np.testing.assert_array_equal(norms, tg.viz.gradient_norms(layer, turned, state=state))
    assert not layer.training
    assert not any(cell.training for cell in layer.cells)
    layer.train()
    tg.manual_seed(0)
    assert (tg.viz.gradient_norms(layer, turned) != tg.viz.gradient_norms(layer, turned)).any()
    assert all(cell.training for cell in layer.cells)
    single = tg.viz.gradient_norms(layer_of(tg.nn.GRU), x[:, 0])
    np.testing.assert_array_equal(single, tg.viz.gradient_norms(layer_of(tg.nn.GRU), x[:, :1]))


@pytest.mark.parametrize("name", ["gradient_norms", "unroll", "activations"])
def test_what_cannot_be_unrolled_is_refused(name):
    function = getattr(tg.viz, name)
    with pytest.raises(ArgumentError, match=r"two ways"):
        function(tg.nn.GRU(2, 3, bidirectional=True), tg.zeros(4, 1, 2))
    with pytest.raises(ArgumentError, match=r"recurrent layer.*got Linear"):
        function(tg.nn.Linear(2, 3), tg.zeros(4, 1, 2))
    for shape in ((4, 1, 3), (2,)):
        with pytest.raises(ShapeError, match=rf"{name}: input of shape.*input_size = 2"):
            function(tg.nn.GRU(2, 3), tg.zeros(shape))
    with pytest.raises(ShapeError, match=rf"{name}: input of shape.*no time step"):
        function(tg.nn.GRU(2, 3), tg.zeros(0, 1, 2))
    with pytest.raises(ShapeError, match=r"state of shape"):
        function(tg.nn.GRU(2, 3), tg.zeros(4, 1, 2), state=tg.zeros(1, 1, 4))


def test_a_loss_that_is_no_number_is_refused():
    layer, x = tg.nn.GRU(2, 3), tg.zeros(4, 1, 2)
    with pytest.raises(ArgumentError, match=r"one number, got shape \(1, 3\)"):
        tg.viz.gradient_norms(layer, x, loss=lambda last: last)
    with pytest.raises(ArgumentError, match="one number, got float"):
        tg.viz.gradient_norms(layer, x, loss=lambda last: last.sum().item())
    with pytest.raises(ArgumentError, match=r"Truncated\(3, stride=1\) computes some steps more"):
        tg.viz.unroll(layer, x, bptt=tg.bptt.Truncated(3, stride=1))


# --------------------------------------------------------------------------------- spectral radius


@given(SEEDS, st.integers(1, 12), st.integers(0, 12))
def test_the_spectral_radius_is_that_of_the_eigenvalues(seed, size, rank):
    rng = np.random.default_rng(seed)
    W = tg.tensor(rng.normal(size=(size, rank)) @ rng.normal(size=(rank, size)))
    h = tg.tensor(rng.normal(size=(1, size)))

    def step(h):
        return tg.tanh(h @ W / size + 0.1)

    jacobian = tg.jacobian(step, h).numpy().reshape(size, size)
    expected = np.abs(np.linalg.eigvals(jacobian)).max()
    found = tg.viz.spectral_radius(step, h, rng=seed)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [tg.nn.RNNCell, tg.nn.GRUCell, tg.nn.LSTMCell])
@given(SEEDS)
def test_the_spectral_radius_of_cells(kind, seed):
    cell = kind(2, 4, dtype=tg.float64, rng=seed)
    rng = np.random.default_rng(seed)
    x = tg.tensor(rng.normal(size=(1, 2)))
    count = 2 if kind is tg.nn.LSTMCell else 1
    state = [tg.tensor(rng.normal(size=(1, 4))) for _ in range(count)]

    def step(*state):
        return cell(x, state if count == 2 else state[0])

    blocks = tg.jacobian(step, state)
    blocks = blocks if count == 2 else (blocks,)
    whole = np.block([[b.numpy().reshape(4, 4) for b in row] for row in blocks])
    expected = np.abs(np.linalg.eigvals(whole)).max()
    found = tg.viz.spectral_radius(step, state)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


BIG = np.random.default_rng(0).normal(size=(80, 80)) / 9
POWERLESS = {  # matrices on which the plain power iteration fails, with their spectral radius
    "a turn": (np.array([[1.2, -1.6], [1.6, 1.2]]), 2.0),
    "two signs": (np.diag([1.5, -1.5, 0.3]), 1.5),
    "defective": (np.eye(6) * 0.5 + np.eye(6, k=1), 0.5),
    "nilpotent": (np.eye(5, k=1), 0.0),
    "zero": (np.zeros((4, 4)), 0.0),
    "one number": (np.array([[-3.0]]), 3.0),
    "identity": (np.eye(100), 1.0),
    "larger than what is kept": (BIG, None),
}


@pytest.mark.parametrize("name", POWERLESS)
def test_matrices_on_which_the_power_alone_fails(name):
    A, radius = POWERLESS[name]
    W, h = tg.tensor(A), tg.tensor(np.ones((1, len(A))))
    found = tg.viz.spectral_radius(lambda h: h @ W, h)
    expected = np.abs(np.linalg.eigvals(A)).max() if radius is None else radius
    loose = 3e-3 if name in ("defective", "nilpotent") else 0  # where eigenvalues are like eps^1/n
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=loose)


def test_a_spectrum_that_does_not_settle_says_so():
    W, h = tg.tensor(BIG), tg.tensor(np.ones((1, len(BIG))))
    with pytest.raises(ArgumentError, match=r"after 5 products.*raise products, or tol"):
        tg.viz.spectral_radius(lambda h: h @ W, h, products=5)
    with pytest.raises(ArgumentError, match="nan or infinity"):
        tg.viz.spectral_radius(lambda h: h * float("nan"), h)
    with pytest.raises(ShapeError):
        tg.viz.spectral_radius(lambda h: h[:, :3], h)
    for options in ({"tol": 0}, {"products": 0}):
        with pytest.raises(ArgumentError, match=f"viz.spectral_radius: {next(iter(options))}"):
            tg.viz.spectral_radius(lambda h: h, h, **options)


# --------------------------------------------------------------------------- activations and curves


@pytest.mark.parametrize("kind", [*LAYERS, Leaky])
def test_activations_are_the_states(kind):
    layer, x = layer_of(kind, 2), sequence(6)
    layer.eval()
    output, _ = layer(x)
    np.testing.assert_allclose(tg.viz.activations(layer, x), output.numpy(), rtol=1e-12)
    for depth in range(2):
        for element in range(len(layer.cells[0].state_sizes)):
            held = tg.viz.activations(layer, x, depth=depth, element=element)
            _, final = layer(x)
            final = final if isinstance(final, tuple) else (final,)
            np.testing.assert_allclose(held[-1], final[element].numpy()[depth], rtol=1e-12)
            alone = tg.viz.activations(layer, x[:, 1], depth=depth - 2, element=element)
            np.testing.assert_allclose(alone, held[:, 1], rtol=1e-10)


def test_activations_refuse_what_is_not_there():
    layer, x = tg.nn.GRU(2, 3), tg.zeros(4, 1, 2)
    with pytest.raises(ArgumentError, match="one of 1 layers, got 1"):
        tg.viz.activations(layer, x, depth=1)
    with pytest.raises(ArgumentError, match="one of 1 of the state, from 0, got 1"):
        tg.viz.activations(layer, x, element=1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80), st.integers(1, 90))
def test_a_curve_keeps_the_mean_and_the_range(losses, points):
    curve = tg.viz.learning_curve(losses, points=points)
    count = min(points, len(losses))
    assert all(part.shape == (count,) for part in curve)
    assert curve.at[-1] == len(losses)
    sizes = np.diff(curve.at, prepend=0)
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_allclose((sizes * curve.mean).sum(), sum(losses), rtol=1e-9, atol=1e-6)
    assert (curve.low <= curve.high).all()
    assert curve.low.min() >= min(losses) - 1e-6
    if points >= len(losses):
        for part in curve[1:]:
            np.testing.assert_array_equal(part, losses)


def test_a_curve_over_seconds_and_its_errors():
    spread = tg.viz.learning_curve(range(11), points=1)
    assert (spread.low.tolist(), spread.high.tolist()) == ([1.0], [9.0])
    curve = tg.viz.learning_curve([3, 1, 2], at=[0.5, 0.7, 1.5], points=2)
    assert (curve.at.tolist(), curve.mean.tolist()) == ([0.7, 1.5], [2.0, 2.0])
    for losses in ([], [[1.0]], 3.0):
        with pytest.raises(ArgumentError, match="sequence of losses"):
            tg.viz.learning_curve(losses)
    with pytest.raises(ArgumentError, match="points"):
        tg.viz.learning_curve([1.0], points=0)
    with pytest.raises(ShapeError, match="each of 2 losses, got shape"):
        tg.viz.learning_curve([1.0, 2.0], at=[1.0])
    with pytest.raises(ArgumentError, match="must not decrease"):
        tg.viz.learning_curve([1.0, 2.0], at=[2.0, 1.0])


# ---------------------------------------------------------------------------------------- pictures


def drawn(figure, form="png"):
    """Return a figure's file. Warnings are errors: matplotlib warns of missing glyphs."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = io.BytesIO()
        figure.savefig(file, format=form)
    return file.getvalue()


def test_pictures_of_numbers():
    norms = {"RNN": np.array([[1.0, 0.1, 0.0]]), "two": np.ones((2, 3))}
    figure = tg.viz.plot_gradient_norms(norms, title="vanishing")
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["RNN", "two, layer 0", "two, layer 1"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1.0, 0.1, np.nan])
    assert axes.get_title() == "vanishing"
    assert len(drawn(figure)) > 1000

    curve = tg.viz.learning_curve(np.linspace(3, 1, 500), points=10)
    figure = tg.viz.plot_learning_curve({"training": curve, "held out": [3.0, 2.0]})
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), curve.mean)
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == list(
        ("training", "held out")
    )
    assert tg.viz.plot_learning_curve(curve).axes[0].get_legend() is None
    assert drawn(figure, "svg").startswith(b"<?xml")


def test_a_picture_of_a_unit():
    text = "to be\tor\nnot to be $x^2$ \\ \x00"
    values = np.sin(np.arange(len(text)))
    figure = tg.viz.plot_activations(values, text, width=10, title="a unit")
    axes = figure.axes[0]
    assert "".join(t.get_text() for t in axes.texts) == "to be→or↵not to be $x^2$ \\ ·"
    grid = axes.images[0].get_array()
    np.testing.assert_array_equal(grid.compressed(), values)
    assert grid.shape == (3, 10)
    assert drawn(figure)
    with pytest.raises(ShapeError, match=r"values of shape \(3,\) for 2 characters"):
        tg.viz.plot_activations([1, 2, 3], "ab")
    with pytest.raises(ArgumentError, match="empty"):
        tg.viz.plot_activations([], "")
    with pytest.raises(ArgumentError, match="width"):
        tg.viz.plot_activations([1.0], "a", width=0)
    with pytest.raises(ArgumentError, match="limit"):
        tg.viz.plot_activations([1.0], "a", limit=0)
    assert drawn(tg.viz.plot_activations([0.0], "a"))


def test_nothing_to_draw_is_refused():
    for function in (tg.viz.plot_gradient_norms, tg.viz.plot_learning_curve):
        with pytest.raises(ArgumentError, match=f"{function.__name__}: there is nothing"):
            function({})


@pytest.fixture
def font(tmp_path):
    """Return the file of a font that has 中 and 文, and its name."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((50, 0))
    for corner in ((50, 800), (850, 800), (850, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", "zhong", "wen"]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord("中"): "zhong", ord("文"): "wen"})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 50)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Two Characters", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    builder.setupPost()
    builder.save(tmp_path / "two.ttf")
    return tmp_path / "two.ttf", "Two Characters"


def test_the_configured_fonts_are_used(monkeypatch, font):
    import matplotlib
    from matplotlib.font_manager import fontManager

    file, name = font
    monkeypatch.setattr(fontManager, "ttflist", [*fontManager.ttflist])
    fontManager.addfont(file)
    with matplotlib.rc_context({"font.family": [name]}):
        figure = tg.viz.plot_learning_curve({"中": [2.0, 1.0]}, title="文 x", xlabel="中文习")
        text = tg.viz.plot_activations([0.1, 0.2], "中a")
    axes = figure.axes[0]
    assert (axes.get_title(), axes.get_xlabel()) == ("文 x", "中文□")
    assert [t.get_text() for t in text.axes[0].texts] == ["中", "a"]
    labels = [axes.title, axes.xaxis.label, *axes.get_legend().get_texts(), *text.axes[0].texts]
    assert all(label.get_fontfamily()[0] == name for label in labels)
    assert drawn(figure)
    assert drawn(text)


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_characters_without_a_glyph_are_drawn_as_boxes_and_no_warning_is_raised(form):
    """Matplotlib warns of them at each drawing, which is an error where warnings are errors."""
    import matplotlib

    with matplotlib.rc_context({"font.family": ["DejaVu Sans"]}):
        title = "学 🙂\n\ud800\x00\t\u200d"
        figure = tg.viz.plot_learning_curve({"学习é": [2.0, 1.0]}, title=title, ylabel="習\n→")
        norms = tg.viz.plot_gradient_norms({"学": [1.0, 0.5]}, title="\U00020000")
        text = tg.viz.plot_activations(np.ones(6), "学a𠀀🙂\ud800\n", title="学")
    axes = figure.axes[0]
    assert axes.get_title() == "□ □\n□□□\u200d"
    assert axes.get_ylabel() == "□\n→"
    assert axes.get_legend().get_texts()[0].get_text() == "□□é"
    assert norms.axes[0].get_title() == "□"
    assert "".join(t.get_text() for t in text.axes[0].texts) == "□a□□·↵"
    for picture in (figure, norms, text):
        assert drawn(picture, form)


def test_pictures_leave_matplotlib_as_it_was():
    """No pyplot, no backend, no settings: what a server without a screen needs."""
    code = """
        import matplotlib
        before = list(dict.items(matplotlib.rcParams))  # dict() would choose a backend
        import tinygrad_rnn as tg
        tg.viz.plot_gradient_norms([1.0, 0.5]).savefig("/dev/null", format="png")
        tg.viz.plot_activations([1.0, 0.5], "ab").savefig("/dev/null", format="png")
        import sys
        assert "matplotlib.pyplot" not in sys.modules
        assert list(dict.items(matplotlib.rcParams)) == before
    """
    lines = "\n".join(line.strip() for line in code.splitlines())
    root = Path(tg.__file__).parents[1]
    subprocess.run([sys.executable, "-W", "error", "-c", lines], check=True, cwd=root)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    for name in ("matplotlib", "matplotlib.font_manager", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"tinygrad-rnn\[plot\]"):
        tg.viz.plot_gradient_norms([1.0])
    assert tg.viz.learning_curve([1.0]).mean == 1.0


def test_steps_in_a_chain_stand_one_after_another():
    edges = list(pairwise(range(5)))
    assert columns(edges, [0] * 5) == [0, 1, 2, 3, 4]
    assert rows(edges, range(5), [0] * 5) == ([0.0] * 5, {})


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda h, m: (h, m[0]), "of shape"),
        (lambda h, m: h, "another state"),
        (lambda h, m: (h, 3), "a int"),
    ],
)
def test_unroll_checks_the_state_that_a_step_returns(returned, message):
    class Wrong(Leaky):
        def step(self, x, state):
            return returned(*state)

    with pytest.raises((ArgumentError, ShapeError), match=rf"Wrong\.step returned .*{message}"):
        tg.viz.unroll(tg.nn.Recurrent(Wrong, 2, 3), sequence(5))


def test_a_primitive_is_labelled_by_the_name_it_was_given():
    @tg.primitive(name="half of x", x=lambda F, g: F._half_of_a_label(g))
    def _half_of_a_label(xp, x):
        return x / 2

    y = _half_of_a_label(tg.tensor([2.0], requires_grad=True))
    assert "half of x" in {node.label for node in tg.viz.graph(y).nodes}
