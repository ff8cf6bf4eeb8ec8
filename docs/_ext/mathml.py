"""Formulas as MathML, which browsers render without a script, a style sheet or a font."""

from __future__ import annotations

import html
import re
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)


# A space follows a function's name, unless its argument is in brackets: log P, log(P).
APPLIED = re.compile(
    r"(?<!<msup>)(?<!<msub>)(?<!<msubsup>)(<mi>[a-z]{2,}</mi>|<msup><mi>[a-z]{2,}</mi>"
    r"(?:<mn>\d+</mn>|<mrow>(?:(?!mrow).)*</mrow>)</msup>)(?=<(?:mi|mn|msub|msup|msubsup|mfrac)>)"
)


def mathml(latex: str, display: str, node: nodes.Node) -> str:
    """Return LaTeX as MathML, and warn about an unknown command."""
    latex = latex.replace(r"\|", r"\Vert ").replace("{aligned}", "{align*}").strip()
    if display == "block" and (r"\\" in latex or "&" in latex) and r"\begin" not in latex:
        latex = rf"\begin{{split}}{latex}\end{{split}}"
    try:
        result = convert(latex, display=display).replace(r"\Vert", "‖")
        ElementTree.fromstring(result)
    except Exception as error:
        log.warning("no MathML of %r: %r", latex, error, location=node)
        return f"<code>{html.escape(latex)}</code>"
    if "\\" in result:  # latex2mathml copies an unknown command
        log.warning("a command in %r has no MathML", latex, location=node)
    result = result.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # \sim
    result = APPLIED.sub(r'\1<mspace width="0.17em" />', result)
    label = html.escape(latex, quote=True)
    return result.replace("<math ", f'<math alttext="{label}" ', 1)


def inline(translator: Any, node: nodes.math) -> None:
    """Write a formula inside a line."""
    translator.body.append(mathml(node.astext(), "inline", node))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own."""
    translator.body.append(f'<div class="math">{mathml(node.astext(), "block", node)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
