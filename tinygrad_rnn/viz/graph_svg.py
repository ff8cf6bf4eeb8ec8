"""A graph as an SVG document, from the positions of its nodes: boxes, curves, shaded time steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from .graph_node import GraphNode

WIDTH, HEIGHT = 96, 34  # of a box
ACROSS, DOWN = 132, 48  # from box to box
MARGIN = 28
CHARACTERS = 15  # of a label that fit into a box; the title of the box has the whole label

STYLE = (
    "text{font:11px system-ui,sans-serif;text-anchor:middle;fill:#1b1f24}"
    ".shape,.time{font-size:9px;fill:#59636e}"
    ".box{fill:#fff;stroke:#8c959f}"
    ".leaf .box{fill:#dbe9f6;stroke:#4a7fb0}"
    ".step{fill:#f3f4f6}"
    ".edge{fill:none;stroke:#8c959f}"
    ".shared{stroke:#a9c4dd}"
    ".through-time{stroke:#c4342d;stroke-width:1.8}"
)


def svg_document(
    nodes: Sequence[GraphNode],
    edges: Sequence[tuple[int, int]],
    column: Sequence[int],
    row: Sequence[float],
    lanes: Mapping[tuple[int, int], float],
) -> str:
    """Return the SVG document of a graph.

    Parameters
    ----------
    nodes : sequence of GraphNode
    edges : sequence of pairs of int
    column, row : sequence
        The position of each node, in units of boxes.
    lanes : mapping of (node, column) to float
        The row at which the edges from a node cross a column.

    Returns
    -------
    str
        One ``<g class="node">`` for each node and one ``<path class="edge …">`` for each edge. The
        background is white, so that the drawing is readable on any page.
    """
    top, bottom = (pick([*row, *lanes.values()]) for pick in (min, max))

    def left_of(column: int) -> float:
        return MARGIN + ACROSS * column

    def top_of(row: float) -> float:
        return 2 * MARGIN + DOWN * (row - top)

    width, height = left_of(max(column)) + WIDTH + MARGIN, top_of(bottom) + HEIGHT + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}">',
        f"<title>The graph of a computation, {len(nodes)} nodes</title>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    boxes: dict[int, list[float]] = {}  # of each time step: their left edges
    for node, own_column in zip(nodes, column, strict=True):
        if node.step is not None:
            boxes.setdefault(node.step, []).append(left_of(own_column))
    for step, lefts in sorted(boxes.items()):
        left, right = min(lefts) - 12, max(lefts) + WIDTH + 12
        lines.append(
            f'<rect class="step" x="{left:g}" y="{MARGIN - 18:g}" width="{right - left:g}" '
            f'height="{height - MARGIN + 8:g}" rx="8"/>'
            f'<text class="time" x="{(left + right) / 2:g}" y="{MARGIN:g}">t = {step}</text>'
        )
    for i, k in edges:
        y, gap = top_of(row[i]) + HEIGHT / 2, ACROSS - WIDTH
        curve = f"M{left_of(column[i]) + WIDTH:g} {y:g}"
        for crossed in range(column[i] + 1, column[k] + 1):
            x, last = left_of(crossed), y
            y = top_of(row[k] if crossed == column[k] else lanes[i, crossed]) + HEIGHT / 2
            curve += f"C{x - gap / 2:g} {last:g} {x - gap / 2:g} {y:g} {x:g} {y:g}"
            curve += f"H{x + WIDTH:g}" if crossed < column[k] else ""
        between = nodes[i].step is not None and nodes[k].step not in (None, nodes[i].step)
        kind = " through-time" if between else " shared" if nodes[i].leaf else ""
        lines.append(f'<path class="edge{kind}" d="{curve}"/>')
    for node, own_column, own_row in zip(nodes, column, row, strict=True):
        shape = "×".join(map(str, node.shape)) or "number"
        x, y = left_of(own_column), top_of(own_row)
        lines.append(
            f'<g class="node{" leaf" * node.leaf}" transform="translate({x:g} {y:g})">'
            f"<title>{_escape_xml(node.label)} {node.shape} {node.dtype}</title>"
            f'<rect class="box" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
            f'<text x="{WIDTH / 2:g}" y="15">{_escape_xml(_shortened(node.label))}</text>'
            f'<text class="shape" x="{WIDTH / 2:g}" y="27">{_shortened(shape)}</text></g>'
        )
    return "\n".join([*lines, "</svg>"])


def _shortened(label: str) -> str:
    return label if len(label) <= CHARACTERS else label[: CHARACTERS - 1] + "…"


def _escape_xml(label: str) -> str:
    """Escape text for XML; control characters, which XML forbids even escaped, are replaced."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in label))
