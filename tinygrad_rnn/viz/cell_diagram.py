"""Drawings of the built-in cells: the data flow of one time step, with its formulas."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from ..errors import ArgumentError
from .drawing import Canvas, Drawing, listed, plain

RADIUS, HALF_WIDTH, HALF_HEIGHT = 13, 27, 16  # of an operation; of a gate
FORMULA, PITCH = 15, 25
CLOSEST = 0.8  # of the normal distances from left to right
Line = list[tuple[float, float]]


class _Node(NamedTuple):
    """A value of the diagram: an input, a gate with weights, an operation, or a new state.

    `name` is that of the formulas; `operation` is drawn, σ, tanh, ×, +, 1− or W; `arguments` are
    names, each with the way of its line.
    """

    name: str
    operation: str
    x: float
    y: float
    arguments: tuple[tuple[str, str], ...] = ()


class _Cell(NamedTuple):
    """A diagram. `height` is that of the part above the formulas."""

    title: str
    width: float
    height: float
    nodes: tuple[_Node, ...]
    formulas: tuple[str, ...]


def _gate(name: str, operation: str, x: float, y: float) -> _Node:
    """Return a gate that reads the input and the state from the two lines at the left."""
    return _Node(name, operation, x, y, (("x", "x bus"), ("h", "h bus")))


CELLS = {
    "rnn": _Cell(
        "One step of an RNN",
        380,
        110,
        (
            _Node("h", "input", 24, 40),
            _Node("x", "input", 24, 90),
            _Node("h'", "tanh", 190, 40, (("x", "up"), ("h", "across"))),
        ),
        ("h' = tanh(W_ih x + b_ih + W_hh h + b_hh)",),
    ),
    "gru": _Cell(
        "One step of a GRU",
        520,
        320,
        (
            _Node("h", "input", 24, 40),
            _Node("x", "input", 24, 296),
            _Node("m", "W", 150, 110, (("h", "h bus"),)),
            _gate("r", "σ", 150, 172),
            _gate("z", "σ", 150, 234),
            _Node("rm", "×", 222, 110, (("m", "across"), ("r", "up"))),
            _Node("n", "tanh", 296, 110, (("x", "up"), ("rm", "across"))),
            _Node("zh", "×", 364, 40, (("h", "across"), ("z", "up"))),
            _Node("1-z", "1−", 436, 172, (("z", "up"),)),
            _Node("kn", "×", 436, 110, (("n", "across"), ("1-z", "up"))),
            _Node("h'", "+", 436, 40, (("zh", "across"), ("kn", "up"))),
        ),
        (
            "r = σ(W_ir x + b_ir + W_hr h + b_hr)",
            "z = σ(W_iz x + b_iz + W_hz h + b_hz)",
            "m = W_hn h + b_hn",
            "n = tanh(W_in x + b_in + r ⊙ m)",
            "h' = (1 - z) ⊙ n + z ⊙ h",
        ),
    ),
    "lstm": _Cell(
        "One step of an LSTM",
        520,
        390,
        (
            _Node("c", "input", 24, 40),
            _Node("h", "input", 24, 330),
            _Node("x", "input", 24, 366),
            _gate("f", "σ", 150, 110),
            _gate("i", "σ", 150, 172),
            _gate("g", "tanh", 150, 234),
            _gate("o", "σ", 150, 296),
            _Node("fc", "×", 222, 40, (("c", "across"), ("f", "up"))),
            _Node("ig", "×", 300, 172, (("i", "across"), ("g", "up"))),
            _Node("c'", "+", 300, 40, (("fc", "across"), ("ig", "up"))),
            _Node("tanh c'", "tanh", 400, 172, (("c'", "down"),)),
            _Node("h'", "×", 400, 296, (("tanh c'", "down"), ("o", "across"))),
        ),
        (
            "i = σ(W_ii x + b_ii + W_hi h + b_hi)",
            "f = σ(W_if x + b_if + W_hf h + b_hf)",
            "g = tanh(W_ig x + b_ig + W_hg h + b_hg)",
            "o = σ(W_io x + b_io + W_ho h + b_ho)",
            "c' = f ⊙ c + i ⊙ g",
            "h' = o ⊙ tanh(c')",
        ),
    ),
}
COLOURS = {"x": "blue", **dict.fromkeys(("h", "h'", "c", "fc", "c'"), "red")}  # of lines
BUS = {"h": 62.0, "x": 84.0}  # the vertical lines from which gates read
TAP = {"h": -7.0, "x": 7.0}  # the heights at which they do


def cell(kind: Literal["rnn", "gru", "lstm"]) -> Drawing:
    """Draw the data flow of one time step of a built-in cell, above its formulas.

    Parameters
    ----------
    kind : {"rnn", "gru", "lstm"}
        `nn.RNN`, `nn.GRU` or `nn.LSTM`; the GRU is PyTorch's, whose reset gate acts after the
        recurrent product.

    Returns
    -------
    Drawing
        Its ``data`` has the ``"formulas"``, and the ``"nodes"``: (name, operation, names of the
        arguments) in the order of computation. The operations ``σ`` and ``tanh`` of x and h have
        weights, those of the formulas.

    Raises
    ------
    ArgumentError
        If `kind` is another name.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> picture = tg.viz.cell("lstm")
    >>> picture.data["formulas"][-2:]
    ["c' = f ⊙ c + i ⊙ g", "h' = o ⊙ tanh(c')"]
    >>> picture.data["nodes"][7]
    ('fc', '×', ('c', 'f'))
    """
    if kind not in CELLS:
        raise ArgumentError(
            f'viz.cell: kind is one of "rnn", "gru" and "lstm", got {kind!r}; for a cell of your '
            "own draw the graph of a step, with tg.viz.graph"
        )
    spec = CELLS[kind]
    nodes = [(n.name, n.operation, tuple(name for name, _ in n.arguments)) for n in spec.nodes]
    flow = "; ".join(
        f"{name} is {operation} of {listed(arguments)}"
        for name, operation, arguments in nodes
        if arguments
    )
    formulas = "; ".join(map(plain, spec.formulas))
    alt = f"{spec.title}. Data flow: {flow}. Formulas: {formulas}."
    data = {"formulas": list(spec.formulas), "nodes": nodes}
    return Drawing(spec.title, alt, data, lambda room: _draw(_compressed(spec, room)))


def _compressed(spec: _Cell, room: float) -> _Cell:
    """Return a diagram for a narrow room, whose nodes are closer to each other."""
    factor = min(1.0, max(CLOSEST, room / spec.width))
    nodes = tuple(node._replace(x=round(node.x * factor, 1)) for node in spec.nodes)
    return spec._replace(nodes=nodes, width=round(spec.width * factor))


def _draw(spec: _Cell) -> Canvas:
    canvas = Canvas(spec.width, spec.height)
    lines = _lines(spec)
    for name, line in lines:
        canvas.line(line, COLOURS.get(name, "line"))
    for x, y in _branches(lines):
        canvas.circle(x, y, 2.5, "ink", "solid")
    for node in spec.nodes:
        _shape(canvas, node)
        if node.name.endswith("'") and node.arguments and " " not in node.name:
            canvas.text(spec.width - 16, node.y, node.name, 16, formula=True)
    y = spec.height + 14
    for formula in spec.formulas:
        canvas.text(24, y, formula, FORMULA, anchor="start", formula=True)
        y += PITCH
    canvas.height = y
    return canvas


def _lines(spec: _Cell) -> list[tuple[str, Line]]:
    """Return the lines from values to nodes, and those of the new states to the right border."""
    at = {node.name: node for node in spec.nodes}
    lines = [(name, _points(at[name], n, way)) for n in spec.nodes for name, way in n.arguments]
    for name in {"h'", "c'"} & set(at):
        start = (_edge_of(at[name], "right"), at[name].y)
        lines.append((name, [start, (spec.width - 30.0, at[name].y)]))
    return lines


def _shape(canvas: Canvas, node: _Node) -> None:
    """Draw a node, with its name if a formula has it."""
    if node.operation == "input":
        canvas.text(node.x, node.y, node.name, 16, formula=True)
    elif _boxed(node):
        box = (node.x - HALF_WIDTH, node.y - HALF_HEIGHT, 2 * HALF_WIDTH, 2 * HALF_HEIGHT)
        canvas.box(*box, "green", "tint")
        canvas.text(node.x, node.y, node.operation, 15, formula=node.operation == "W")
        if len(node.name) == 1:
            canvas.text(node.x + HALF_WIDTH + 10, node.y - 10, node.name, 14, formula=True)
    else:
        canvas.circle(node.x, node.y, RADIUS, "orange", "tint")
        canvas.text(node.x, node.y, node.operation, 15)


def _boxed(node: _Node) -> bool:
    return node.operation in ("σ", "tanh", "W")


def _edge_of(node: _Node, side: str) -> float:
    """Return the coordinate of a side of a node."""
    if node.operation == "input":
        return node.x + 12
    across, down = (HALF_WIDTH, HALF_HEIGHT) if _boxed(node) else (RADIUS, RADIUS)
    return {
        "left": node.x - across,
        "right": node.x + across,
        "top": node.y - down,
        "bottom": node.y + down,
    }[side]


def _points(source: _Node, target: _Node, way: str) -> Line:
    """Return the corners of the line from a node to another one.

    Across: to the left side, at the height of the source. Up: to the right and then up, or up
    alone. Down: likewise. Bus: over the vertical line of the source, to the left side.
    """
    if way.endswith("bus"):
        x, y = BUS[source.name], target.y + (TAP[source.name] if len(target.arguments) > 1 else 0)
        return [(_edge_of(source, "right"), source.y), (x, source.y), (x, y),
                (_edge_of(target, "left"), y)]  # fmt: skip
    if way == "across":
        return [(_edge_of(source, "right"), source.y), (_edge_of(target, "left"), source.y)]
    side, start = ("bottom", "top") if way == "up" else ("top", "bottom")
    end = (target.x, _edge_of(target, side))
    if source.x == target.x:
        return [(source.x, _edge_of(source, start)), end]
    return [(_edge_of(source, "right"), source.y), (target.x, source.y), end]


def _branches(lines: Sequence[tuple[str, Line]]) -> list[tuple[float, float]]:
    """Return the places where lines from one value part."""
    found: dict[tuple[float, float], None] = {}
    for name, line in lines:
        others = [other for source, other in lines if source == name and other is not line]
        for corner in line[1:-1]:
            if any(_passes(other, corner) for other in others):
                found[corner] = None
    return list(found)


def _passes(line: Line, point: tuple[float, float]) -> bool:
    """Return whether a line goes straight through a point."""
    x, y = point
    return any(
        min(x0, x1) <= x <= max(x0, x1)
        and min(y0, y1) <= y <= max(y0, y1)
        and (x, y) not in ((x0, y0), (x1, y1))
        for (x0, y0), (x1, y1) in pairwise(line)
    )
