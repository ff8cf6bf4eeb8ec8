"""The texts that the search shows, in a script: a page opened as a file cannot read others."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from sphinx.application import Sphinx

SKIPPED = {"script", "style", "svg", "button"}
CLOSED = {"img", "br", "hr", "input", "meta", "link", "source", "wbr"}  # tags without an end


class Sections(HTMLParser):
    """Collects the text of a page by section; a described object is a section too."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: dict[str, list[str]] = {}
        self.anchor = ""
        self.inside = self.skipping = 0  # the depths of the article and of a skipped element

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a section, or text that is not shown."""
        given = {name: value or "" for name, value in attrs}
        if given.get("role") == "main":
            self.inside = 1
        elif self.inside and tag not in CLOSED:
            self.inside += 1
        if tag == "section" or (tag == "dt" and "sig" in given.get("class", "")):
            self.anchor = given.get("id", "") or self.anchor
        hidden = tag in SKIPPED or "headerlink" in given.get("class", "")
        if self.skipping or (hidden and self.inside):
            self.skipping += tag not in CLOSED

    def handle_endtag(self, tag: str) -> None:
        """End text that is not shown."""
        if tag not in CLOSED:
            self.inside -= self.inside > 0
            self.skipping -= self.skipping > 0

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        if self.inside and not self.skipping:
            self.sections.setdefault(self.anchor, []).append(data)


def sections(html: str) -> list[tuple[str, str]]:
    """Return the anchors and the texts of a page's sections."""
    parser = Sections()
    parser.feed(html)
    texts = {anchor: " ".join("".join(parts).split()) for anchor, parts in parser.sections.items()}
    return [(anchor, text) for anchor, text in texts.items() if text]


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the sections of every page that the search knows."""
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    found = {
        name: sections((out / f"{name}.html").read_text(encoding="utf-8"))
        for name in sorted(app.env.found_docs)
    }
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    (out / "_static" / "excerpts.js").write_text(f"const EXCERPTS = {text}\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write when the build has finished."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
