"""Figures in the colours and the font of the page, in the light and in the dark theme.

A page imports this once, in a hidden cell. Matplotlib's figures are then inlined as SVG: axes have
the colour of the text, and lines have the colours of ``site.css``.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import re

import matplotlib.pyplot as plt
from IPython import get_ipython
from matplotlib.figure import Figure

from tinygrad_rnn.viz import Graph

INK, FAINT = "#010203", "#040506"
LINES = [f"#0a0b{number:02x}" for number in range(1, 7)]
COLOURS = {INK: "currentColor", FAINT: "var(--figure-faint)"} | {
    colour: f"var(--figure-{number})" for number, colour in enumerate(LINES, start=1)
}
STYLE = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": plt.cycler(color=LINES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "figure.figsize": (5.4, 3.2),
    "font.size": 9,
    "grid.color": FAINT,
    "legend.frameon": False,
    "patch.edgecolor": INK,
    "savefig.bbox": "tight",
    "svg.fonttype": "none",  # text stays text
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
numbers = itertools.count()


def inline_svg(figure: Figure) -> str:
    """Return a figure as inline SVG."""
    buffer = io.StringIO()
    with plt.rc_context({"svg.hashsalt": f"figure {next(numbers)}"}):  # ids are unique on a page
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, ours in COLOURS.items():
        svg = svg.replace(colour, ours)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    label = html.escape("; ".join(titles) or "figure", quote=True)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    broad = " broad" if figure.get_figwidth() > 6 else ""
    return f'<figure class="drawn{broad}" tabindex="0">{svg}</figure>'


def scrolled(graph: Graph) -> str:
    """Return the drawing of a graph at its full size; it is wide, so it scrolls."""
    data = base64.b64encode(graph.svg().encode()).decode()
    label = html.escape(repr(graph), quote=True)
    image = f'<img alt="{label}" src="data:image/svg+xml;base64,{data}">'
    return f'<figure class="drawn wide" tabindex="0">{image}</figure>'


shell = get_ipython()
if shell is not None:
    shell.run_line_magic("matplotlib", "inline")
    plt.rcParams.update(STYLE)
    shell.run_line_magic("config", "InlineBackend.figure_formats = set()")
    shell.display_formatter.formatters["text/html"].for_type(Figure, inline_svg)
    shell.display_formatter.formatters["text/html"].for_type(Graph, scrolled)
