"""Names and levels for assistive technology that the theme leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

MISSING = {  # landmarks of one kind need names
    '<aside class="sidebar-drawer"': '<aside aria-label="Pages" class="sidebar-drawer"',
    '<aside class="toc-drawer"': '<aside aria-label="Contents" class="toc-drawer"',
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
}


def complete(app: Sphinx, exception: Exception | None) -> None:
    """Add them to every page of the build."""
    if exception or app.builder.format != "html":
        return
    for file in Path(app.outdir).rglob("*.html"):
        text = before = file.read_text(encoding="utf-8")
        for incomplete, complete in MISSING.items():
            text = text.replace(incomplete, complete)
        if text != before:
            file.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Complete the pages when the build has finished."""
    app.connect("build-finished", complete)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
