"""Figures in the colours and the font of the page, in the light and in the dark theme.

A page imports this once, in a hidden cell. Figures are then inlined as SVG. Of matplotlib's, axes
have the colour of the text, lines have the colours of ``site.css``, and the alternative text is
written from the data that is drawn; ``figure.set_label("…")`` replaces it. The drawings of `tg.viz`
are broken for a column of text, and again for a phone.
"""

from __future__ import annotations

import html
import io
import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from tinygrad_rnn.viz import Drawing, Graph

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
    label = html.escape(alternative(figure), quote=True)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    broad = " broad" if figure.get_figwidth() > 6 else ""
    return f'<figure class="drawn{broad}" tabindex="0">{svg}</figure>'


def alternative(figure: Figure) -> str:
    """Return the alternative text of a figure: its label, or else its axes with their numbers."""
    return figure.get_label() or " ".join(map(described, figure.axes)) or "An empty figure."


def described(axes: Axes) -> str:
    """Return sentences about axes: title, labels, and the ends of each line or the bars."""
    names = [axes.get_title() or "A plot"]
    for axis, scale in (
        (axes.get_ylabel(), axes.get_yscale()),
        (axes.get_xlabel(), axes.get_xscale()),
    ):
        if axis:
            names.append(axis + " (logarithmic)" * (scale == "log"))
    parts = [names[0] + (": " + " against ".join(names[1:]) if names[1:] else "")]
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 1]
    named = [line for line in lines if not str(line.get_label()).startswith("_")]
    for line in (named or lines)[:8]:
        y = np.asarray(line.get_ydata(), float)
        y = y[np.isfinite(y)]
        name = str(line.get_label()) if named else "a line"
        if len(y):
            parts.append(
                f"{name} from {y[0]:.3g} to {y[-1]:.3g}, between {y.min():.3g} and {y.max():.3g}"
            )
    for bars in axes.containers:
        if isinstance(bars, BarContainer):
            sideways = bars.orientation == "horizontal"
            lengths = [bar.get_width() if sideways else bar.get_height() for bar in bars]
            name = str(bars.get_label())
            ticks = axes.get_yticklabels() if sideways else axes.get_xticklabels()
            ticks = [tick.get_text() for tick in ticks]
            values = [f"{length:.3g}" for length in lengths[:20]]
            if len(ticks) == len(lengths) and all(ticks):
                values = [f"{tick} {value}" for tick, value in zip(ticks, values, strict=False)]
            parts.append(f"{'bars' if name.startswith('_') else name}: {', '.join(values)}")
    for points in axes.collections:
        offsets = np.ma.filled(points.get_offsets(), np.nan)
        if len(offsets) > 1 and not str(points.get_label()).startswith("_"):
            parts.append(f"{points.get_label()}: {len(offsets)} points")
    parts += [f"an image of {'×'.join(map(str, image.get_array().shape))}" for image in axes.images]
    return "; ".join(parts) + "."


BROAD, NARROW = 720, 360  # px, the room for a drawing in a column of text and on a phone
READABLE = 520  # px: a broader drawing is not shrunk to a phone, but scrolls
SWITCH = (
    ".for-phone{display:none}"
    "@media(max-width:40rem){.for-phone{display:block}.for-column{display:none}}"
)


def drawn(drawing: Drawing | Graph) -> str:
    """Return a drawing of `tg.viz` as inline SVG, for a column and, if it differs, for a phone."""
    broad, narrow = drawing.svg(BROAD), drawing.svg(NARROW)
    if broad == narrow:
        return f'<figure class="drawn">{fitted(broad)}</figure>'
    return (
        f'<figure class="drawn"><div class="for-column">{fitted(broad)}</div>'
        f'<div class="for-phone">{fitted(narrow)}</div></figure>'
    )


def fitted(svg: str) -> str:
    """Return SVG that is not enlarged, and shrinks with the page while its text is readable."""
    width = float(re.search(r' width="([^"]*)"', svg)[1])
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"\b(title|desc)-([0-9a-f]{8})\b", rf"\1-\2-{next(numbers)}", svg)  # unique ids
    least = f";min-width:{READABLE}px" if width > READABLE else ""
    svg = svg.replace("<svg", f'<svg style="width:100%;max-width:{width:g}px{least}"', 1)
    svg = svg.replace("<style>", f"<style>{SWITCH}", 1)
    if least:
        svg = f'<div style="overflow-x:auto" tabindex="0">{svg}</div>'
    return svg


shell = get_ipython()
if shell is not None:
    shell.run_line_magic("matplotlib", "inline")
    plt.rcParams.update(STYLE)
    shell.run_line_magic("config", "InlineBackend.figure_formats = set()")
    shell.display_formatter.formatters["text/html"].for_type(Figure, inline_svg)
    shell.display_formatter.formatters["text/html"].for_type(Graph, drawn)
    shell.display_formatter.formatters["text/html"].for_type(Drawing, drawn)
