"""A graph as an SVG drawing, from the positions of its nodes: boxes, curves, shaded time steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .drawing import Canvas, arrow_head, escape_xml, text_width
from .graph_node import GraphNode

WIDTH, HEIGHT = 96, 34  # of a box
MARGIN = 28
ROOM = WIDTH - 6  # for a label; the title of the box has the whole label
SIZE = 11  # of a label
EQUATION = 15
NAME = re.compile(r"[^\W\d]_(\w{1,2}|\{[^}]*\})(?!\w)")  # h_1: a subscript; weight_ih_l0: none


class Layout(NamedTuple):
    """The positions of the nodes of a graph in units of boxes, and of its edges.

    Attributes
    ----------
    column, row : sequence
        The position of each node.
    lanes : mapping of (node, column) to float
        The row at which the edges from a node cross a column.
    """

    column: Sequence[int]
    row: Sequence[float]
    lanes: Mapping[tuple[int, int], float]


class _Directed:
    """Places in px for a drawing from left to right, or downwards if `down`.

    Along is the direction of the columns, and across that of the rows.
    """

    def __init__(self, layout: Layout, down: bool, labelled: bool) -> None:
        self.layout, self.down = layout, down
        self.length, self.breadth = (HEIGHT, WIDTH) if down else (WIDTH, HEIGHT)
        self.pitch, self.row_pitch = (62, WIDTH + 14) if down else (132, 48)
        rows = [*layout.row, *layout.lanes.values()]
        self.first, self.last = min(rows), max(rows)
        self.edge = 2 * MARGIN if labelled else MARGIN  # for the labels of time steps
        # The outermost lane is a line, not a box.
        if layout.row and min(layout.row) > self.first:
            self.first += (self.breadth - 24) / 2 / self.row_pitch
        if layout.row and max(layout.row) < self.last:
            self.last -= (self.breadth - 24) / 2 / self.row_pitch

    def along(self, column: int) -> float:
        return MARGIN + self.pitch * column

    def across(self, row: float) -> float:
        return self.edge + self.row_pitch * (row - self.first)

    def point(self, along: float, across: float) -> tuple[float, float]:
        return (across, along) if self.down else (along, across)

    def corner(self, i: int) -> tuple[float, float]:
        """Return the top left corner of a node."""
        return self.point(self.along(self.layout.column[i]), self.across(self.layout.row[i]))

    def size(self) -> tuple[float, float]:
        """Return the width and the height of the drawing without its margins."""
        along = self.along(max(self.layout.column)) + self.length
        return self.point(along, self.across(self.last) + self.breadth)

    def curve(self, i: int, k: int) -> str:
        """Return the path of the edge from node i to node k."""
        column, row = self.layout.column, self.layout.row
        across, gap = self.across(row[i]) + self.breadth / 2, self.pitch - self.length
        path = "M{:g} {:g}".format(*self.point(self.along(column[i]) + self.length, across))
        for crossed in range(column[i] + 1, column[k] + 1):
            along, last = self.along(crossed), across
            arrived = crossed == column[k]
            across = self.across(row[k] if arrived else self.layout.lanes[i, crossed])
            across += self.breadth / 2
            path += "C{:g} {:g} {:g} {:g} {:g} {:g}".format(
                *self.point(along - gap / 2, last),
                *self.point(along - gap / 2, across),
                *self.point(along, across),
            )
            if not arrived:
                path += "L{:g} {:g}".format(*self.point(along + self.length, across))
        return path + arrow_head(self.point(along - gap, across), self.point(along, across))


def graph_canvas(
    nodes: Sequence[GraphNode],
    edges: Sequence[tuple[int, int]],
    layout: Layout,
    room: float,
    equations: Sequence[str],
) -> Canvas:
    """Return the drawing of a graph: from left to right if there is room for it, else downwards.

    Parameters
    ----------
    nodes : sequence of GraphNode
    edges : sequence of pairs of int
    layout : Layout
    room : float
        The width, in px.
    equations : sequence of str
        Those of one time step, written next to each step of a drawing downwards.

    Returns
    -------
    Canvas
        One ``<g class="node">`` for each node and one ``<path class="edge …">`` for each edge.
    """
    steps: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        if node.step is not None:
            steps.setdefault(node.step, []).append(i)
    places = _Directed(layout, False, bool(steps))
    width, height = places.size()
    if equations or width + MARGIN > room:
        places = _Directed(layout, True, bool(steps))
        width, height = places.size()
    canvas = Canvas()
    if equations:
        start = width + 28
        for step in steps:
            for line in equations:
                width = max(width, start + text_width(at_step(line, step), EQUATION, formula=True))
    if equations:
        width += 4
    for step, members in sorted(steps.items()):
        _shade(canvas, step, [places.corner(i) for i in members], (width, height), places.down)
    crossing = False
    for i, k in edges:
        between = nodes[i].step is not None and nodes[k].step not in (None, nodes[i].step)
        kind = " through-time strong red" if between else " shared blue" if nodes[i].leaf else ""
        canvas.elements.append(f'<path class="edge{kind or " line"}" d="{places.curve(i, k)}"/>')
        crossing |= between
    for i, node in enumerate(nodes):
        _box(canvas, node, *places.corner(i), shapes=any(node.shape for node in nodes))
    for step, members in sorted(steps.items()) if equations else ():
        tops = sorted(places.corner(i)[1] for i in members)
        if len(tops) == len(equations):
            heights = [top + HEIGHT / 2 for top in tops]
        else:
            middle = (tops[0] + tops[-1] + HEIGHT) / 2
            heights = [middle + 24 * (n - (len(equations) - 1) / 2) for n in range(len(equations))]
        for line, y in zip(equations, heights, strict=True):
            canvas.text(start, y, at_step(line, step), EQUATION, anchor="start", formula=True)
    canvas.width, canvas.height = width + MARGIN, height + MARGIN
    if crossing:
        legend = "red: gradients through time"
        canvas.width = max(canvas.width, text_width(legend, SIZE) + MARGIN)
        canvas.height += 6
        canvas.text(MARGIN / 2, canvas.height - 12, legend, SIZE, "red", "start")
    return canvas


def at_step(equation: str, step: int) -> str:
    """Return the equation of a time step: the subscripts t, t-1 and t+1 become numbers."""

    def number(match: re.Match[str]) -> str:
        return f"_{{{step + int((match[1] or '0').replace(' ', ''))}}}"

    return re.sub(r"_(?:\{t\s*([+-]\s*\d+)?\}|t(?!\w))", number, equation)


def _shade(
    canvas: Canvas,
    step: int,
    corners: Sequence[tuple[float, float]],
    size: tuple[float, float],
    down: bool,
) -> None:
    """Draw the block of a time step, with its number."""
    left, top = (min(values) for values in zip(*corners, strict=True))
    right, bottom = (max(values) for values in zip(*corners, strict=True))
    if down:
        box = (10.0, top - 9, size[0] - 2 + MARGIN / 2, bottom - top + HEIGHT + 18)
        canvas.box(*box, "ink step", "wash", 8)
        canvas.text(18, top + 4, f"t = {step}", SIZE, "faint", "start")
    else:
        box = (left - 12, 10.0, right - left + WIDTH + 24, size[1] + 8)
        canvas.box(*box, "ink step", "wash", 8)
        canvas.text(box[0] + box[2] / 2, 24, f"t = {step}", SIZE, "faint")


def _box(canvas: Canvas, node: GraphNode, x: float, y: float, shapes: bool) -> None:
    """Draw a node: its label, and its shape if some node of the graph has one."""
    shape = "×".join(map(str, node.shape)) or "number"
    title = f"{escape_xml(node.label)} {node.shape} {node.dtype}"
    canvas.elements.append(
        f'<g class="node{" leaf" * node.leaf}" transform="translate({x:g} {y:g})">'
        f"<title>{title}</title>"
    )
    colour, kind = ("blue", "tint") if node.leaf else ("line", "outline")
    canvas.box(0, 0, WIDTH, HEIGHT, colour, kind, 6)
    formula = NAME.match(node.label) is not None
    largest = SIZE if shapes else SIZE + 2
    fitting = largest * ROOM / text_width(node.label or " ", largest, formula)
    size = max(SIZE, min(largest, fitting))
    label = node.label if formula else _shortened(node.label, size)
    canvas.text(WIDTH / 2, 11.5 if shapes else HEIGHT / 2, label, size, formula=formula)
    if shapes:
        canvas.text(WIDTH / 2, 24.5, _shortened(shape, 9), 9, "faint")
    canvas.elements.append("</g>")


def _shortened(label: str, size: float) -> str:
    """Return as much of a label as fits into a box."""
    if text_width(label, size) <= ROOM:
        return label
    while text_width(label + "…", size) > ROOM:
        label = label[:-1]
    return label + "…"
