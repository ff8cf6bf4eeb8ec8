"""Drawings as SVG documents in a light and a dark colour scheme: shapes, text, colours, sizes.

A drawing has no colours of its own elements: every element has the class of a colour, and the style
sheet of the document sets the colours for both schemes. The scheme is that of the viewer
(``prefers-color-scheme``), or, inside a page of the Sphinx theme Furo, that of the page. The
background is painted, so that a file is readable anywhere, except inside such a page.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from ..io.atomic import atomic_write

WIDTH = 720  # px: a column of text on a screen
NARROWEST = 320

# The colour of an element in the light scheme and in the dark one.
COLOURS = {
    "ink": ("#1b1f24", "#e3e6e9"),
    "faint": ("#59636e", "#a4acb5"),
    "line": ("#7d8690", "#8b949e"),
    "paper": ("#ffffff", "#131416"),
    "red": ("#c4342d", "#ff8f86"),
    "blue": ("#2563b0", "#7db2f0"),
    "orange": ("#b04f16", "#f0a06a"),
    "green": ("#2c7a4b", "#74c796"),
    "purple": ("#8a4fa8", "#c99be0"),
    "olive": ("#7d6200", "#d9bf55"),
    "rose": ("#b0335a", "#ee8aa9"),
}
SERIES = ("blue", "orange", "green", "purple", "olive", "rose")
SHAPES = (
    ".tgv text{font-family:system-ui,sans-serif;fill:currentColor}"
    ".tgv .outline{fill:none;stroke:currentColor}"
    ".tgv .tint{fill:currentColor;fill-opacity:.15;stroke:currentColor}"
    ".tgv .wash{fill:currentColor;fill-opacity:.06}"
    ".tgv .solid{fill:currentColor}"
    ".tgv .edge{fill:none;stroke:currentColor;stroke-width:1.3}"
    ".tgv .strong{stroke-width:2}"
    ".tgv .dashed{stroke-dasharray:3 3}"
    "body[data-theme] .tgv .paper{display:none}"
)


def _rules(scheme: int, prefix: str = "") -> str:
    pairs = [("", "ink"), *((f" .{name}", name) for name in COLOURS)]
    return "".join(f"{prefix}.tgv{part}{{color:{COLOURS[c][scheme]}}}" for part, c in pairs)


STYLE = (
    f"{SHAPES}{_rules(0)}@media(prefers-color-scheme:dark){{{_rules(1)}}}"
    f"{_rules(0, 'body[data-theme=light] ')}{_rules(1, 'body[data-theme=dark] ')}"
)

# The advance of characters in DejaVu Sans, one of the broadest fonts of its kind, in em, rounded up
ADVANCES = {
    **dict.fromkeys("ijlI.,:;'| ", 0.34),
    **dict.fromkeys('frt!()[]-/\\·"ı', 0.46),
    **dict.fromkeys("mwMW@%…", 1.0),
    **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ&", 0.79),
    **dict.fromkeys("=+−×→←⊙<>≤≥~#≈φω^", 0.84),
    **dict.fromkeys("αβγδεζηθικλμνξοπρστυχψ²␣", 0.67),
}
BROADEST = 1.1  # of a character that is not in the table
SMALL = 0.75  # the size of a subscript


class Canvas:
    """SVG elements, to be drawn in this order. Coordinates are in px, y growing downwards.

    Parameters
    ----------
    width, height : float
        The size, which may be set until the end. A box, or text after x, that needs more makes
        the drawing wider.
    """

    def __init__(self, width: float = 0.0, height: float = 0.0) -> None:
        self.width, self.height = width, height
        self.elements: list[str] = []

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colour: str = "line",
        kind: str = "outline",
        radius: float = 5,
    ) -> None:
        """Draw a rectangle with rounded corners; x and y are those of its top left corner."""
        self.width = max(self.width, x + width + 8)
        self.elements.append(
            f'<rect class="{kind} {colour}" x="{x:.5g}" y="{y:.5g}" width="{width:.5g}" '
            f'height="{height:.5g}" rx="{radius:g}"/>'
        )

    def circle(
        self, x: float, y: float, radius: float, colour: str = "line", kind: str = "outline"
    ) -> None:
        """Draw a circle around a centre."""
        self.elements.append(
            f'<circle class="{kind} {colour}" cx="{x:.5g}" cy="{y:.5g}" r="{radius:g}"/>'
        )

    def line(
        self,
        points: Sequence[tuple[float, float]],
        colour: str = "line",
        kind: str = "edge",
        head: bool = True,
    ) -> None:
        """Draw straight lines from point to point, with an arrow head at the end."""
        path = "M" + "L".join(f"{x:.5g} {y:.5g}" for x, y in points)
        if head:
            path += arrow_head(points[-2], points[-1])
        self.elements.append(f'<path class="{kind} {colour}" d="{path}"/>')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 14,
        colour: str = "ink",
        anchor: str = "middle",
        formula: bool = False,
        bold: bool = False,
    ) -> None:
        """Write one line of text; y is the middle of its height.

        Of a `formula` the names of one letter are italic, and ``_`` and ``^`` mean sub- and
        superscripts.
        """
        weight = ' font-weight="600"' if bold else ""
        if anchor == "start":
            broad = text_width(text, size, formula) * (1.1 if bold else 1)
            self.width = max(self.width, x + broad + 8)
        content = _formula(text) if formula else escape_xml(text)
        self.elements.append(
            f'<text class="{colour}" x="{x:.5g}" y="{y + 0.35 * size:.5g}" font-size="{size:g}"'
            f'{weight} text-anchor="{anchor}" xml:space="preserve">{content}</text>'
        )

    def document(self, title: str, alt: str) -> str:
        """Return the SVG document with these elements."""
        body = "\n".join(self.elements)
        mark = hashlib.sha256(f"{title}{alt}{body}".encode(errors="replace")).hexdigest()[:8]
        width, height = f"{self.width:.5g}", f"{self.height:.5g}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" class="tgv" '
            f'aria-labelledby="title-{mark} desc-{mark}">\n'
            f'<title id="title-{mark}">{escape_xml(title)}</title>\n'
            f'<desc id="desc-{mark}">{escape_xml(alt)}</desc>\n'
            f"<style>{STYLE}</style>\n"
            f'<rect class="solid paper" width="{width}" height="{height}" rx="6"/>\n'
            f"{body}\n</svg>"
        )


class Drawing:
    """A figure as an SVG document, in a light and a dark colour scheme; a notebook displays it.

    The functions of `tg.viz` make it.

    Parameters
    ----------
    title : str
        A few words.
    alt : str
        The alternative text: the content of the figure, with its numbers.
    data : mapping of str to anything
        The numbers that are drawn.
    draw : callable
        From a width in px to the elements of a drawing that fits into it, if possible.

    Attributes
    ----------
    title, alt, data
        The arguments.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> picture = tg.viz.unrolled("ab", "bc", losses=[1.5, 0.5])
    >>> print(picture)
    A recurrent network, unrolled over 2 steps
    >>> picture.data["losses"]
    [1.5, 0.5]
    """

    def __init__(
        self, title: str, alt: str, data: Mapping[str, Any], draw: Callable[[float], Canvas]
    ) -> None:
        self.title, self.alt, self.data, self._draw = title, alt, dict(data), draw

    def __repr__(self) -> str:
        return self.title

    def svg(self, width: float = WIDTH) -> str:
        """Return the SVG document.

        Parameters
        ----------
        width : float
            The width in px into which the figure is broken, as text into lines: 720 for a column
            of text, 360 for a phone. The drawing can be narrower.

        Returns
        -------
        str
            It has a title and a description, the alternative text.

        Raises
        ------
        ArgumentError
            If `width` is less than 320.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> tg.viz.cell("gru").svg()[:60]
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="'
        """
        return self._draw(checked_width(width)).document(self.title, self.alt)

    def _repr_svg_(self) -> str:
        return self.svg()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the SVG document to a file.

        Parameters
        ----------
        path : str or path
            Ends in ``.svg``. An existing file is replaced atomically.

        Raises
        ------
        ArgumentError
            If `path` has another ending.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import tinygrad_rnn as tg
        >>> path = pathlib.Path(tempfile.mkdtemp(), "lstm.svg")
        >>> tg.viz.cell("lstm").save(path)
        >>> path.read_text(encoding="utf-8")[:4]
        '<svg'
        """
        save_text(path, {".svg": self.svg}, "Drawing.save")


def save_text(
    path: str | os.PathLike[str], forms: Mapping[str, Callable[[], str]], owner: str
) -> None:
    """Write the text for the ending of a file's name, atomically."""
    kind = Path(path).suffix.lower()
    if kind not in forms:
        *first, last = forms
        endings = f"{', '.join(first)} or {last}" if first else last
        raise ArgumentError(
            f"{owner}: a name that ends in {endings} is expected, got {str(path)!r}"
        )
    text = forms[kind]()
    with atomic_write(path) as file:
        file.write(f"{text}\n".encode(errors="replace"))


def checked_width(width: float) -> float:
    """Return a width for a drawing; raise if it is too small for any."""
    if not width >= NARROWEST:
        raise ArgumentError(
            f"svg: width is the room for the figure, {NARROWEST} px or more, got {width!r}"
        )
    return width


def arrow_head(before: tuple[float, float], end: tuple[float, float]) -> str:
    """Return the path of an arrow head at the end of a horizontal or vertical line."""
    (x0, y0), (x, y) = before, end
    if abs(x - x0) > abs(y - y0):
        back = x - 6 if x > x0 else x + 6
        return f"M{back:.5g} {y - 3.5:.5g}L{x:.5g} {y:.5g}L{back:.5g} {y + 3.5:.5g}"
    back = y - 6 if y > y0 else y + 6
    return f"M{x - 3.5:.5g} {back:.5g}L{x:.5g} {y:.5g}L{x + 3.5:.5g} {back:.5g}"


def text_width(text: str, size: float = 14, formula: bool = False) -> float:
    """Return an upper bound of the width of a text, in px."""
    if formula:
        return sum(text_width(part, size * (SMALL if at else 1)) for part, at in _parts(text))
    return size * sum(map(_advance, text))


def _advance(character: str) -> float:
    """Return an upper bound of the advance of a character, in em."""
    base = unicodedata.normalize("NFD", character)[0]  # without accents
    return ADVANCES.get(base) or (0.65 if base.isascii() else BROADEST)


def lines_of(widths: Iterable[float], room: float, gap: float) -> list[list[int]]:
    """Return the numbers of items, line by line: as many in a line as the room allows."""
    lines: list[list[int]] = []
    used = room
    for i, width in enumerate(widths):
        if not lines or used + gap + width > room:
            lines.append([])
            used = -gap
        lines[-1].append(i)
        used += gap + width
    return lines


def tokens_of(tokens: str | Sequence[str], what: str) -> list[str]:
    """Return the characters of a string, or the strings of a sequence; raise if there are none."""
    found = list(tokens)
    if not found or not all(isinstance(token, str) for token in found):
        raise ArgumentError(
            f"{what} is a string, for its characters, or a list of strings, for words, and not "
            f"empty; got {tokens!r:.60}"
        )
    return found


def visible(token: str) -> str:
    """Return a token with marks in place of white space."""
    return {" ": "␣", "\n": "↵", "\t": "⇥"}.get(token, token)


def listed(items: Iterable[str]) -> str:
    """Return items as a list in a sentence: ``a, b and c``."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def escape_xml(text: str) -> str:
    """Escape text for XML; control characters, which XML forbids even escaped, are replaced."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


def plain(formula: str) -> str:
    """Return a formula without the marks of subscripts, for an alternative text."""
    return "".join(f"_{part}" if at < 0 else f"^{part}" if at else part
                   for part, at in _parts(formula))  # fmt: skip


def _parts(formula: str) -> list[tuple[str, int]]:
    """Return the parts of a formula, with -1 for a subscript and 1 for a superscript."""
    parts: list[tuple[str, int]] = []
    for part in re.findall(r"[_^]\{[^}]*\}|[_^]\w+|[^_^]+|[_^]", formula):
        at = {"_": -1, "^": 1}.get(part[0], 0) if len(part) > 1 else 0
        parts.append((part[1:].strip("{}") if at else part, at))
    return parts


def _formula(text: str) -> str:
    """Return a formula as the content of an SVG text element."""
    spans, shift = "", 0.0  # in em of the text's own size
    for part, at in _parts(text):
        longest = 2 if at else 1  # a subscript xh is a list of names
        for run in re.split(r"([^\W\d_]+)", part):
            if not run:
                continue
            name = run.isalpha() and len(run) <= longest
            style = ' font-style="italic"' if name else ""
            wanted = {0: 0.0, -1: 0.22, 1: -0.4}[at]
            scale = SMALL if at else 1.0
            if wanted != shift:
                style += f' dy="{(wanted - shift) / scale:.3g}em"'
                shift = wanted
            if at:
                style += f' style="font-size:{SMALL:g}em"'
            written = escape_xml(run.replace("-", "−"))
            spans += f"<tspan{style}>{written}</tspan>" if style else written
    return spans
