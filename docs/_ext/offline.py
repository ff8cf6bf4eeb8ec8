"""Fail a build whose pages load anything from other hosts; ordinary links are allowed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

OUTSIDE = re.compile(r"\s*(https?:)?//", re.IGNORECASE)
IN_CSS = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)
LOADS = {"src", "srcset", "data", "poster", "background", "xlink:href"}


class _Loads(HTMLParser):
    """Collects the addresses that a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        loads = [value for name, value in given.items() if name in LOADS]
        if tag == "link" and given.get("rel", "") not in {"canonical", "author", "license"}:
            loads.append(given.get("href", ""))
        self.found += [value for value in loads if OUTSIDE.match(value)]
        self.found += IN_CSS.findall(given.get("style", ""))


def loads(file: Path) -> list[str]:
    """Return the addresses on other hosts that a built page or style sheet loads."""
    text = file.read_text(encoding="utf-8")
    found = IN_CSS.findall(text)
    if file.suffix == ".html":
        parser = _Loads()
        parser.feed(text)
        found += parser.found
    return found


def check(app: Sphinx, exception: Exception | None) -> None:
    """Check every page and style sheet of the build."""
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    files = [file for file in out.rglob("*") if file.suffix in {".html", ".css"}]
    outside = [f"{file.relative_to(out)}: {url}" for file in files for url in loads(file)]
    if outside:
        raise ExtensionError("loaded from outside:\n" + "\n".join(outside))


def setup(app: Sphinx) -> dict[str, bool]:
    """Check when the build has finished."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
