"""Drawings: places, colours and alternative texts of all; the numbers that each of them shows."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.font_manager import findfont, get_font

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError
from tinygrad_rnn.viz.cell_diagram import CELLS, _boxed, _lines
from tinygrad_rnn.viz.drawing import COLOURS, _formula, plain, text_width

SVG = "{http://www.w3.org/2000/svg}"
WORDS = "the time traveller for so it will be convenient to speak of him".split()
EQUATIONS = ["a_t = w h_{t-1}", "s_t = x_t + a_t", "h_t = tanh(s_t)"]
Box = tuple[float, float, float, float]


def recurrence(steps=3, **options):
    w, h, states = tg.tensor(0.9, requires_grad=True), tg.tensor(0.0), []
    for t in range(steps):
        h = tg.tanh(0.1 * t + w * h)
        states.append(h)
    names = {"w": w, **{f"h_{t}": state for t, state in enumerate(states, 1)}}
    return tg.viz.graph(h, names, steps=states, **options)


def strategies():
    bptt = tg.bptt
    return [bptt.Full(), bptt.Truncated(4), bptt.Randomized(0.7, rng=1), bptt.Truncated(4, 1)]


FIGURES = {
    "unrolled": lambda: tg.viz.unrolled("machin", "achine", losses=[3.1, 2.5, 2, 1.4, 0.9, 0.45]),
    "unrolled words": lambda: tg.viz.unrolled(
        WORDS[:-1], WORDS[1:], outputs=WORDS[1:], losses=[123.456] * 12, title="A word model"
    ),
    "unrolled without targets": lambda: tg.viz.unrolled("machine learning by time"),
    "unrolled without losses": lambda: tg.viz.unrolled("ab", "bc", "cc"),
    "graph": lambda: recurrence(equations=EQUATIONS, start=1),
    "graph, one equation": lambda: recurrence(equations=["h_t = tanh(x_t + w h_{t-1})"]),
    "graph, many steps": lambda: recurrence(12),
    "truncation": lambda: tg.viz.truncation(
        WORDS, strategies(), {"bias²": [0, 0.00125, 0, 1e-7], "variance": [0, 0, 0.25, 0]}
    ),
    "truncation of characters": lambda: tg.viz.truncation(
        "the time machine", {"a name of its own": tg.bptt.Truncated(1)}, title="Cut everywhere"
    ),
    "rnn": lambda: tg.viz.cell("rnn"),
    "gru": lambda: tg.viz.cell("gru"),
    "lstm": lambda: tg.viz.cell("lstm"),
    "partition": lambda: tg.viz.partition("the time traveller for so it will be", 2, 5),
    "partition of words": lambda: tg.viz.partition(WORDS, 2, 3, orders="random"),
    "partition, many": lambda: tg.viz.partition("the time traveller for so it " * 3, 3, 4, rng=5),
}

# ---------------------------------------------------------------------------- reading a drawing


def width_of(text: str, size: float) -> float:
    """Return the width of a text in a real font, DejaVu Sans, which is broader than most."""
    return sum(map(advance, text)) * size


@functools.cache
def advance(character: str) -> float:
    font = get_font(findfont("DejaVu Sans"))
    font.set_size(100, 72)
    return font.load_char(ord(character)).linearHoriAdvance / 65536 / 100


def numbers(text: str) -> list[float]:
    return [float(v) for v in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]


def shapes(drawing: str) -> Iterator[tuple[str, set[str], Any, str]]:
    """Yield (kind, classes, box or points, text) of each element of a drawing."""

    def walk(element: ElementTree.Element, x: float, y: float) -> Iterator[Any]:
        kind, own = element.tag.removeprefix(SVG), set(element.get("class", "").split())
        value = {k: float(v) for k, v in element.attrib.items() if re.fullmatch(r"-?[\d.]+", v)}
        if kind == "g":
            dx, dy = numbers(element.get("transform"))
            for child in element:
                yield from walk(child, x + dx, y + dy)
        elif kind == "rect" and "paper" not in own:
            left, top = x + value["x"], y + value["y"]
            yield kind, own, (left, top, left + value["width"], top + value["height"]), ""
        elif kind == "circle":
            cx, cy, r = value["cx"], value["cy"], value["r"]
            yield kind, own, (cx - r, cy - r, cx + r, cy + r), ""
        elif kind == "path":
            yield kind, own, points_of(element.get("d")), ""
        elif kind == "text":
            size, text = value["font-size"], "".join(element.itertext())
            wide = width_of(element.text or "", size) if element.text else 0.0
            for part in element:
                own_size = 0.75 if "0.75em" in part.get("style", "") else 1.0
                wide += width_of(part.text, size * own_size) + width_of(part.tail or "", size)
            left = (
                x
                + value["x"]
                - wide * {"start": 0, "middle": 0.5, "end": 1}[element.get("text-anchor")]
            )
            base = y + value["y"]
            yield kind, own, (left, base - 0.75 * size, left + wide, base + 0.22 * size), text

    for element in ElementTree.fromstring(drawing):
        yield from walk(element, 0.0, 0.0)


def points_of(path: str) -> list[tuple[float, float]]:
    """Return the points of a path, those that control curves included."""
    points: list[tuple[float, float]] = []
    for command, rest in re.findall(r"([MLCHVhvz])([^MLCHVhvz]*)", path):
        values = numbers(rest)
        if command in "MLC":
            points += zip(values[::2], values[1::2], strict=True)
        elif command in "hv":
            (x, y), (step,) = points[-1], values
            points.append((x + step, y) if command == "h" else (x, y + step))
        else:
            assert command == "z"
    return points


def overlap(a: Box, b: Box, slack: float = 0.0) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack


def check(drawing: str) -> None:
    """Nothing is outside of the view box, and no label is on a label, on a line or on a border."""
    root = ElementTree.fromstring(drawing)
    left, top, width, height = numbers(root.get("viewBox"))
    assert (left, top) == (0, 0)
    assert (root.get("width"), root.get("height")) == (f"{width:g}", f"{height:g}")
    labels: list[tuple[Box, str]] = []
    boxes: list[Box] = []
    segments: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for kind, classes, place, text in shapes(drawing):
        points = place if kind == "path" else [place[:2], place[2:]]
        for x, y in points:
            assert -0.01 <= x <= width + 0.01 and -0.01 <= y <= height + 0.01, (kind, text, place)
        if kind == "text":
            labels.append((place, text))
        elif kind in ("rect", "circle") and classes & {"outline", "tint"}:
            boxes.append(place)
        elif kind == "path" and "cells" not in classes and "shared" not in classes:
            segments += pairwise(points)
    assert labels
    for i, (place, text) in enumerate(labels):
        for other, other_text in labels[:i]:
            assert not overlap(place, other, 0.5), (text, other_text)
        for box in boxes:
            if not overlap(place, box, 0.5):
                continue
            inside = box[0] <= place[0] and place[2] <= box[2]
            assert inside, f"{text!r} at {place} leaves its box {box}"
        for (x0, y0), (x1, y1) in segments:
            line = (min(x0, x1), min(y0, y1), max(x0, x1) + 0.1, max(y0, y1) + 0.1)
            if x0 == x1 or y0 == y1:
                assert not overlap(place, line, 0.05), (text, line)
    for i, box in enumerate(boxes):
        assert not any(overlap(box, other, 0.5) for other in boxes[:i])


@pytest.mark.parametrize("width", [720, 360])
@pytest.mark.parametrize("name", FIGURES)
def test_everything_is_inside_and_no_labels_overlap(name: str, width: int) -> None:
    check(FIGURES[name]().svg(width))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_fit_a_column_and_a_phone(name: str) -> None:
    figure = FIGURES[name]()
    for room, most in ((720, 720), (360, 440)):
        width = numbers(ElementTree.fromstring(figure.svg(room)).get("viewBox"))[2]
        assert width <= most, "text would be too small after the drawing is shrunk"
        for element in ElementTree.fromstring(figure.svg(room)).iter(f"{SVG}text"):
            size = float(element.get("font-size"))
            assert size * min(1, (room - 2) / width) >= 9


@st.composite
def words(draw: Any) -> list[str]:
    word = st.text("abcdefghijklmnopqrstuvwxyzWM ,.éÉЖщΩ多", min_size=1, max_size=9)
    return draw(st.lists(word, min_size=1, max_size=15))


@settings(max_examples=max(5, settings.default.max_examples // 2))
@given(words(), st.integers(320, 900), st.data())
def test_any_words_in_any_width_are_drawn_well(tokens: list[str], room: int, data: Any) -> None:
    losses = data.draw(st.lists(st.floats(0, 1000), min_size=len(tokens), max_size=len(tokens)))
    targets = data.draw(st.permutations(tokens))
    figures = [
        tg.viz.unrolled(tokens, targets, losses=losses),
        tg.viz.truncation(tokens, [tg.bptt.Randomized(0.6, rng=3), tg.bptt.Full()]),
    ]
    if len(tokens) > 4:
        figures.append(tg.viz.partition(tokens, 2, 1 + len(tokens) // 6))
    for figure in figures:
        check(figure.svg(room).replace("多", "W"))  # DejaVu Sans lacks it


def test_the_line_of_a_state_is_inside_where_a_table_is_broader_than_the_room() -> None:
    check(tg.viz.partition(["W" * 9] * 15, 2, 3).svg(320))


# ------------------------------------------------------------------------------ colours and texts


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(a: str, b: str) -> float:
    dark, light = sorted([luminance(a), luminance(b)])
    return (light + 0.05) / (dark + 0.05)


def blended(colour: str, paper: str, opacity: float) -> str:
    mixed = [
        round(int(a[i : i + 2], 16) * w + int(b[i : i + 2], 16) * (1 - w))
        for a, b, w in [(colour, paper, opacity)]
        for i in (1, 3, 5)
    ]
    return "#" + "".join(f"{value:02x}" for value in mixed)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_and_lines_have_contrast_in_both_schemes(scheme: int) -> None:
    paper, ink = COLOURS["paper"][scheme], COLOURS["ink"][scheme]
    for name, pair in COLOURS.items():
        if name != "paper":
            assert contrast(pair[scheme], paper) >= (3 if name == "line" else 4.5), name
            assert contrast(ink, blended(pair[scheme], paper, 0.15)) >= 4.5, name


@pytest.mark.parametrize("name", FIGURES)
def test_every_colour_is_that_of_a_scheme(name: str) -> None:
    """An element has a class and no colour, so that it changes with the page."""
    svg = FIGURES[name]().svg()
    body = svg[svg.index("</style>") :]
    assert not re.search(r'(fill|stroke|color)="|#[0-9a-f]{3,6}\b', body)
    used = {c for found in re.findall(r'class="([^"]*)"', body) for c in found.split()}
    shapes = {"outline", "tint", "wash", "solid", "edge", "strong", "dashed", "cells"}
    graphs = {"node", "leaf", "shared", "through-time", "step"}
    assert used <= shapes | graphs | set(COLOURS)
    style = svg[svg.index("<style>") : svg.index("</style>")]
    for colour, (light, dark) in COLOURS.items():
        for prefix, value in (("", light), ("body[data-theme=light] ", light),
                              ("body[data-theme=dark] ", dark)):  # fmt: skip
            assert f"{prefix}.tgv .{colour}{{color:{value}}}" in style
        scheme = re.search(r"@media\(prefers-color-scheme:dark\)\{(.*?)\}\}", style)[1]
        assert f".tgv .{colour}{{color:{dark}" in scheme


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_an_image_with_a_title_and_an_alternative_text(name: str) -> None:
    figure = FIGURES[name]()
    root = ElementTree.fromstring(figure.svg())
    title, text = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {text.get('id')}"
    assert title.text and text.text == figure.alt and len(text.text) > len(title.text)
    assert figure.svg() == figure._repr_svg_() and figure.svg() == figure.svg()


def test_alternative_texts_have_the_numbers() -> None:
    alt = {name: make().alt for name, make in FIGURES.items()}
    assert "m a c h i n. The targets: a c h i n e." in alt["unrolled"]
    assert "The losses: 3.1, 2.5, 2, 1.4, 0.9, 0.45; mean 1.725." in alt["unrolled"]
    assert "A word model" in alt["unrolled words"] and "The outputs: time" in alt["unrolled words"]
    assert "10 nodes and 11 edges" in alt["graph"] and "2 edges between" in alt["graph"]
    assert "Time steps 1 to 3" in alt["graph"] and "h_3 = tanh(s_3)" in alt["graph"]
    assert "Truncated(4): the time traveller for | so it will be | " in alt["truncation"]
    assert "31 of 91 pairs" in alt["truncation"] and "bias² 0.00125" in alt["truncation"]
    assert "multiplies by 1.43" in alt["truncation"] and "variance 0.25" in alt["truncation"]
    assert "t|h|e" in alt["truncation of characters"].replace(" | ", "|")
    assert "minibatch 1: the t | ler f; minibatch 2: ime t | or so" in alt["partition"]
    assert "h' = (1 - z) ⊙ n + z ⊙ h" in alt["gru"] and "c' is + of fc and ig" in alt["lstm"]


def test_visible_text_is_that_of_the_arguments() -> None:
    texts = [text for *_, text in shapes(FIGURES["unrolled"]().svg())]
    for loss in (
        "3.10",
        "2.50",
        "2.00",
        "1.40",
        "0.90",
        "0.45",
        "L = 1.725, the mean of the losses",
    ):
        assert loss in texts
    texts = [text for *_, text in shapes(FIGURES["graph"]().svg())]
    for line in ("a1 = w h0", "s2 = x2 + a2", "h3 = tanh(s3)", "t = 1", "h2 = tanh", "multiply"):
        assert line in texts
    texts = [text for *_, text in shapes(FIGURES["truncation"]().svg())]
    assert "bias² 0.00125, variance 0" in texts and "convenient" in texts


def test_widths_of_texts_are_upper_bounds_and_near() -> None:
    blocks = [(0x20, 0x7F), (0xA1, 0x100), (0x3B1, 0x3CA), (0x410, 0x450)]
    printable = [chr(c) for block in blocks for c in range(*block)]
    for character in [*printable, *"←→⊙−ℓ␣↵⇥…²"]:
        assert text_width(character, 1) >= 0.999 * advance(character), character
    for text in ("the time traveller for so it will be convenient", "h_t = tanh(x_t + w h_{t-1})"):
        assert width_of(text, 1) <= text_width(text, 1) <= 1.2 * width_of(text, 1)


def test_formulas_have_subscripts_superscripts_and_italic_names() -> None:
    spans = ElementTree.fromstring(f"<text>{_formula('W_{xh} x^2 - tanh(h_{t-1})_')}</text>")
    assert "".join(spans.itertext()) == "Wxh x2 − tanh(ht−1)_"
    italic = [span.text for span in spans if span.get("font-style")]
    assert italic == ["W", "xh", "x", "h", "t"]
    small = [span.text for span in spans if span.get("style")]
    assert small == ["xh", "2", "t", "−1"]
    drops = [
        float(span.get("dy", "0em")[:-2]) * (0.75 if span.get("style") else 1) for span in spans
    ]
    assert abs(sum(drops)) < 0.01, "the text ends on its own line"
    assert plain("h_{t-1} = x^2") == "h_t-1 = x^2"
    assert text_width("h_{t-1}", 14, formula=True) < text_width("h_{t-1}", 14)


# ---------------------------------------------------------------------------------- each figure


def test_a_graph_is_numbered_from_start_and_drawn_downwards_next_to_equations() -> None:
    graph = recurrence(equations=EQUATIONS, start=1)
    assert {n.step for n in graph.nodes} == {None, 1, 2, 3}
    assert re.findall(r"cluster_(\d)", graph.dot()) == ["1", "2", "3"]
    drawing = graph.svg()
    nodes = [numbers(g.get("transform")) for g in ElementTree.fromstring(drawing).iter(f"{SVG}g")]
    assert all(nodes[i][1] + 34 < nodes[k][1] for i, k in graph.edges)
    # Each equation is at the height of its node.
    heights = {text: (place[1] + place[3]) / 2 for kind, _, place, text in shapes(drawing) if text}
    tanh = [
        y for (_, y), node in zip(nodes, graph.nodes, strict=True) if node.label.endswith("tanh")
    ]
    for t, y in enumerate(tanh, 1):
        assert abs(heights[f"h{t} = tanh(s{t})"] - (y + 17)) < 3
    one = recurrence(equations="h_t = tanh(x_t + w h_{t-1})")
    assert [text for *_, text in shapes(one.svg()) if text.startswith("h1 = tanh(")] == [
        "h1 = tanh(x1 + w h0)"
    ]


def test_a_graph_too_broad_for_the_room_is_drawn_downwards() -> None:
    graph = recurrence()
    for room, down in ((720, True), (5000, False)):
        root = ElementTree.fromstring(graph.svg(room))
        width, height = (float(root.get(side)) for side in ("width", "height"))
        assert (height > width) == down
        assert width <= room


def test_the_readmes_figure_is_the_drawing() -> None:
    root = Path(__file__).parents[2]
    sys.path.insert(0, str(root / "tools"))
    try:
        import readme_figure
    finally:
        sys.path.pop(0)
    written = readme_figure.FILE.read_text(encoding="utf-8")
    assert written == readme_figure.figure().svg() + "\n", "run: python tools/readme_figure.py"


def reference(weights: list[float]) -> np.ndarray:
    """The product of the weights of the edges from s to t."""
    T = len(weights)
    return np.array(
        [[np.prod(weights[s + 1 : t + 1]) if s <= t else 0.0 for s in range(T)] for t in range(T)]
    )


@given(st.integers(1, 12), st.integers(0, 99), st.integers(1, 14), st.floats(0.1, 1))
def test_masks_are_products_of_the_strategys_weights(
    T: int, seed: int, k: int, keep: float
) -> None:
    tokens = [str(t) for t in range(T)]
    drawn = tg.viz.truncation(
        tokens,
        {
            "full": tg.bptt.Full(),
            "checkpointed": tg.bptt.Full(checkpoint=True),
            "cut": tg.bptt.Truncated(k),
            "random": tg.bptt.Randomized(keep, rng=seed),
            "window": tg.bptt.Truncated(k, stride=1),
        },
    ).data
    t, s = np.indices((T, T))
    assert np.array_equal(drawn["full"], t >= s) and np.array_equal(drawn["checkpointed"], t >= s)
    assert np.array_equal(drawn["cut"], (t >= s) & (t // k == s // k))
    weights = tg.bptt.Randomized(keep, rng=seed).weights(T)
    assert np.allclose(drawn["random"], reference(weights), rtol=1e-12)
    assert np.array_equal(drawn["window"], (t >= s) & (t - s < k))


def test_cells_of_a_triangle_are_the_mask() -> None:
    figure = FIGURES["truncation"]()
    for room in (720, 360):
        groups = [p for kind, own, p, _ in shapes(figure.svg(room)) if "cells" in own]
        count = sum(len(points) // 4 for points in groups)
        assert count == len(figure.data) * len(WORDS) * (len(WORDS) + 1) // 2
        blue = [p for kind, own, p, _ in shapes(figure.svg(room)) if {"cells", "blue"} <= own]
        reached = sum(np.count_nonzero(mask) for mask in figure.data.values())
        assert sum(len(points) // 4 for points in blue) == reached


def test_masks_need_no_graph_mode() -> None:
    with tg.no_grad():
        drawn = tg.viz.truncation("abc", [tg.bptt.Truncated(2)]).data["Truncated(2)"]
    assert drawn.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


@given(st.integers(8, 60), st.integers(1, 3), st.integers(1, 5), st.integers(0, 99))
def test_partitions_are_those_of_the_functions(n: int, B: int, T: int, seed: int) -> None:
    if n < T - 1 + B * T + 1:
        return
    data = tg.viz.partition(["w"] * n, B, T, rng=seed).data
    for name in ("sequential", "random"):
        positions = [i for batch in data[name] for i in batch.ravel()]
        assert len(positions) == len(set(positions)) and all(b.shape == (B, T) for b in data[name])
        assert all((np.diff(batch, axis=1) == 1).all() for batch in data[name])
    ids = np.arange(n)
    for (x, _), batch in zip(tg.data.text.random(ids, B, T, rng=seed), data["random"], strict=True):
        assert np.array_equal(x.numpy().T, batch)
    for before, after in pairwise(data["sequential"]):
        assert np.array_equal(before[:, -1] + 1, after[:, 0])


def test_states_are_carried_in_sequential_minibatches_only() -> None:
    for order, count in (("sequential", 4), ("random", 0)):
        drawing = tg.viz.partition("the time traveller for so it", 2, 4, orders=order)
        batches = len(drawing.data[order])
        assert batches == 3
        red = [own for kind, own, *_ in shapes(drawing.svg()) if "red" in own and kind == "path"]
        assert len(red) == count


def evaluated(kind: str, cell: Any, x: np.ndarray, states: dict[str, np.ndarray]) -> dict[str, Any]:
    """Compute the values of the diagram of a cell, in which only σ, tanh and W have weights."""
    weights = {name: p.numpy() for name, p in cell.named_parameters()}
    order = {"rnn": ["h'"], "gru": ["r", "z", "n"], "lstm": ["i", "f", "g", "o"]}[kind]
    H = len(states["h"])

    def part(name: str, gate: str) -> np.ndarray:
        start = order.index(gate) * H
        return weights[name][start : start + H]

    functions = {"σ": lambda v: 1 / (1 + np.exp(-v)), "tanh": np.tanh}
    values: dict[str, Any] = {"x": x, **states}
    for name, operation, arguments in tg.viz.cell(kind).data["nodes"]:
        inputs = [values[a] for a in arguments]
        if operation == "input":
            assert name in values
        elif operation == "W":  # m of the GRU
            values[name] = part("weight_hh", "n") @ values["h"] + part("bias_hh", "n")
        elif operation in functions and set(arguments) & {"x"}:
            total = part("weight_ih", name) @ x + part("bias_ih", name)
            if "h" in arguments:
                total = total + part("weight_hh", name) @ values["h"] + part("bias_hh", name)
            total = total + sum(values[a] for a in arguments if a not in ("x", "h"))
            values[name] = functions[operation](total)
        elif operation in functions:
            values[name] = functions[operation](*inputs)
        elif operation == "1−":
            values[name] = 1 - inputs[0]
        else:
            values[name] = inputs[0] * inputs[1] if operation == "×" else inputs[0] + inputs[1]
    return values


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_a_diagram_computes_the_step_of_the_cell(kind: str) -> None:
    rng = np.random.default_rng(7)
    make = {"rnn": tg.nn.RNNCell, "gru": tg.nn.GRUCell, "lstm": tg.nn.LSTMCell}[kind]
    cell = make(3, 4, dtype=tg.float64, rng=1)
    x, h, c = rng.normal(size=3), rng.normal(size=4), rng.normal(size=4)
    given = {"h": h, "c": c} if kind == "lstm" else {"h": h}
    state = tuple(tg.tensor(v[None]) for v in given.values())
    new = cell(tg.tensor(x[None]), state if kind == "lstm" else state[0])
    values = evaluated(kind, cell, x, given)
    for element, name in zip(new if kind == "lstm" else [new], ("h'", "c'"), strict=False):
        assert np.allclose(element.numpy()[0], values[name], rtol=1e-12)


@pytest.mark.parametrize("kind", CELLS)
def test_the_lines_of_a_diagram_lead_from_node_to_node(kind: str) -> None:
    spec = CELLS[kind]
    at = {node.name: node for node in spec.nodes}

    def near(point: tuple[float, float], node: Any) -> bool:
        half = (27, 16) if _boxed(node) else (13, 13)
        gaps = [abs(point[0] - node.x) - half[0], abs(point[1] - node.y) - half[1]]
        return max(gaps) <= 1e-9 and max(gaps) >= -1.01

    lines = _lines(spec)
    ends = [(name, node) for node in spec.nodes for name, _ in node.arguments]
    assert len(lines) == len(ends) + len({"h'", "c'"} & set(at))
    for (name, line), (source, target) in zip(lines, ends, strict=False):
        assert name == source and near(line[0], at[source]) and near(line[-1], target)
        assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(line))
        for node in spec.nodes:  # a line passes no other node
            for a, b in pairwise(line):
                box = (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]) + 1, max(a[1], b[1]) + 1)
                half = (26, 15) if _boxed(node) else (12, 12)
                own = (node.x - half[0], node.y - half[1], node.x + half[0], node.y + half[1])
                assert (
                    not overlap(box, own, 1)
                    or node.name == source == "x"
                    or (node.operation == "input")
                )


def test_saving_a_drawing(tmp_path: Path) -> None:
    figure = tg.viz.cell("rnn")
    figure.save(tmp_path / "cell.svg")
    assert (tmp_path / "cell.svg").read_text(encoding="utf-8") == figure.svg() + "\n"
    with pytest.raises(ArgumentError, match=r"ends in \.svg is expected, got '.*cell\.png'"):
        figure.save(tmp_path / "cell.png")


WRONG = {
    "no token": (lambda: tg.viz.unrolled(""), r"unrolled: inputs is a string.*not empty"),
    "no strings": (lambda: tg.viz.unrolled([1, 2]), r"inputs is a string.*got \[1, 2\]"),
    "lengths": (lambda: tg.viz.unrolled("abc", "ab"), "targets has 2 elements and inputs has 3"),
    "outputs": (lambda: tg.viz.unrolled("abc", "bcd", "x"), "outputs has 1 .*one for each step"),
    "losses": (lambda: tg.viz.unrolled("a", "b", losses=[1, 2]), "losses has 2 elements"),
    "no target": (lambda: tg.viz.unrolled("a", losses=[1]), "pass targets too"),
    "no steps": (
        lambda: tg.viz.graph(tg.ones(2, requires_grad=True).exp(), equations=["h_t = 1"]),
        "equations are drawn next to time steps: pass the states .* as steps",
    ),
    "no strategy": (lambda: tg.viz.truncation("ab", []), r"no strategy: pass \[tg.bptt.Full"),
    "not a strategy": (lambda: tg.viz.truncation("ab", ["Full"]), "bptt is a strategy, such as"),
    "twice": (
        lambda: tg.viz.truncation("ab", [tg.bptt.Full(), tg.bptt.Full()]),
        "two strategies have the same name: pass a dict",
    ),
    "numbers": (
        lambda: tg.viz.truncation("ab", [tg.bptt.Full()], {"bias²": [1, 2]}),
        r"numbers\['bias²'\] has 2 elements: there is one for each of the 1",
    ),
    "cell": (lambda: tg.viz.cell("qrnn"), 'one of "rnn", "gru" and "lstm", got .*tg.viz.graph'),
    "order": (
        lambda: tg.viz.partition("abcdef", 1, 2, orders=["shuffled"]),
        r'orders are "sequential" and "random", got \[\'shuffled\'\]',
    ),
    "short": (lambda: tg.viz.partition("abc", 2, 5), "3 tokens are too few for batch_size=2"),
    "width": (lambda: tg.viz.cell("gru").svg(100), "320 px or more, got 100"),
    "width of a graph": (lambda: recurrence().svg(float("nan")), "320 px or more, got nan"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_error_names_the_cure(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(ArgumentError, match=message):
        make()
