"""Tutorials to take along: each as a notebook and as a script, with the library's wheel.

Both are made from the source of the page. Their first cell installs the library, unless it is
installed, from the wheel that the build puts next to them, or from the address of the site
(`site_address` in conf.py). Exercises become cells: the start, the check and the solution.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

from hatchling.builders.wheel import WheelBuilder
from sphinx.application import Sphinx

import tinygrad_rnn as tg

FOLDER = "downloads"
ROOT = Path(tg.__file__).parents[1]
FRONT_MATTER = re.compile(r"\A---\n.*?^---\n", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<kind>[\w-]+)\} *(?P<argument>[^\n]*)\n"
    r"(?P<body>.*?)^(?P=fence) *$\n?",
    re.MULTILINE | re.DOTALL,
)
OPTIONS = re.compile(r"\A(?:---\n(?P<yaml>.*?)^---\n|(?P<colons>(?::[^\n]*\n)+))", re.M | re.S)
INSTALL = """\
# The library, from the wheel {where}, unless it is installed.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("tinygrad_rnn") is None:
    wheel = "{wheel}"
    subprocess.run([sys.executable, "-m", "pip", "install", wheel], check=True)
"""
INLINE = """\
import matplotlib

if "ipykernel" not in sys.modules:
    matplotlib.use("Agg")  # a script computes its figures and does not wait for a window
"""
Cell = tuple[str, str]  # "markdown" or "code", and the text


def is_tutorial(name: str) -> bool:
    """Whether a page is offered for download."""
    return name == "quick_start" or name.startswith("tutorials/")


def cells(source: str) -> list[Cell]:
    """Return the cells of a page."""
    source = FRONT_MATTER.sub("", source)
    found: list[Cell] = []
    start = 0
    for block in BLOCK.finditer(source):
        kind, body = block["kind"], block["body"]
        if kind not in {"code-cell", "exercise"}:
            continue
        found.append(("markdown", markdown(source[start : block.start()])))
        start = block.end()
        if kind == "exercise":
            found += importlib.import_module("exercises").cells(block["argument"].strip())
            continue
        options = OPTIONS.match(body)
        code = body[options.end() :] if options else body
        if options and "remove-cell" in options[0]:
            code = re.sub(r"^import figures\n?", "", code, flags=re.MULTILINE)
        found.append(("code", code))
    found.append(("markdown", markdown(source[start:])))
    return [(kind, text.strip()) for kind, text in found if text.strip()]


def markdown(text: str) -> str:
    """Return the text of a page as plain Markdown: a directive becomes its content."""
    text = re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.MULTILINE)  # the target of a link
    text = BLOCK.sub(lambda block: f"{OPTIONS.sub('', block['body'])}\n", text)
    text = re.sub(r"\{(?:ref|doc|py:\w+|any)\}`~?([^`<]*?)(?: <[^`]*>)?`", r"`\1`", text)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)[^)]*\)", r"\1", text)  # a page of the site


def notebook(found: list[Cell]) -> str:
    """Return cells as a notebook."""
    written = []
    for number, (kind, text) in enumerate(found):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell["source"] = text.splitlines(keepends=True)
        written.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": written, "metadata": {"kernelspec": kernel}, "nbformat": 4}
    return json.dumps(content | {"nbformat_minor": 5}, ensure_ascii=False, indent=1) + "\n"


def script(found: list[Cell]) -> str:
    """Return cells as a script, in the form that editors show as cells.

    The check of an exercise is a comment in it, since the reader's answer is yet to be written.
    """
    parts = []
    for kind, text in found:
        if kind == "markdown":
            lines = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
            parts.append(f"# %% [markdown]\n{lines}\n")
        else:
            text = re.sub(r"^(check\(answer\).*)", r"# \1", text, flags=re.MULTILINE)
            parts.append(f"# %%\n{text}\n")
    return "\n".join(parts)


def first_cell(wheel: str, address: str, rest: list[Cell]) -> Cell:
    """Return the cell that installs the library, with the extras that the other cells need."""
    where = "of the site" if address else "next to this file"
    code = "\n".join(text for kind, text in rest if kind == "code")
    extras = "[plot,test]" if "hypothesis" in code else "[plot]"
    name = f"tinygrad-rnn{extras} @ {address}/{FOLDER}/{wheel}" if address else wheel + extras
    return "code", INSTALL.format(where=where, wheel=name) + "\n" + INLINE


def link(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Put the links below the title of a page."""
    if not is_tutorial(name):
        return
    stem, base = name.rpartition("/")[2], context["pathto"](FOLDER, 1)
    links = (
        '<p class="downloads">Download this page as a '
        f'<a href="{base}/{stem}.ipynb" download>notebook</a> or a '
        f'<a href="{base}/{stem}.py" download>script</a>, with '
        f'<a href="{base}/{app.wheel}" download>the library</a> next to it.</p>'  # type: ignore[attr-defined]
    )
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{links}", 1)


def write(app: Sphinx) -> None:
    """Write the wheel, and each tutorial twice."""
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    app.wheel = Path(built).name  # type: ignore[attr-defined]
    address = app.config.site_address.rstrip("/")
    for name in filter(is_tutorial, sorted(app.project.discover())):
        source = Path(app.env.doc2path(name))
        found = cells(source.read_text(encoding="utf-8"))
        found = [first_cell(app.wheel, address, found), *found]  # type: ignore[attr-defined]
        for suffix, written in ((".ipynb", notebook(found)), (".py", script(found))):
            (folder / (source.stem + suffix)).write_text(written, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write before the pages, which link to the files."""
    app.add_config_value("site_address", "", "html")
    app.connect("builder-inited", write)
    app.connect("html-page-context", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
