"""The directive ``pages``: a list of pages with one line each, found by pattern.

The line of a page is the description in its front matter (``myst: html_meta: description``), or
else a line of the directive, or else the page's first sentence. Pages are in the order of the
patterns, and of their names within a pattern; a page that is listed once is not listed again::

    ```{pages} tutorials/* how_to/*
    :caption: Tutorials

    01_a_tensor: Automatic differentiation in one file.
    ```
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.MULTILINE | re.DOTALL)
BLOCKS = re.compile(
    r"^(`{3,}|:{3,}).*?^\1\s*$|^\$\$.*?\$\$|^\([\w-]+\)=$", re.MULTILINE | re.DOTALL
)
SENTENCE = re.compile(r".*?[.?!](?=\s|$)", re.DOTALL)


def title_and_line(file: Path, lines: Mapping[str, str]) -> tuple[str, str]:
    """Return a page's title and the line that describes it; `lines` has lines by file name."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".rst":
        title, _, rest = text.strip().split("\n", 2)
        return title, SENTENCE.match(rest.strip())[0]  # type: ignore[index]
    front: dict[str, Any] = {}
    if match := FRONT_MATTER.match(text):
        front = yaml.safe_load(match[1]) or {}
        text = text[match.end() :]
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", BLOCKS.sub("", text).strip())]
    title = next(part for part in paragraphs if part.startswith("# "))
    body = next(part for part in paragraphs if part and not part.startswith(("#", "%", "<!--")))
    given = front.get("myst", {}).get("html_meta", {}).get("description")
    sentence = SENTENCE.match(body)
    line = given or lines.get(file.stem) or (sentence[0] if sentence else body)
    if "{doc}`" in line:  # of a link that is relative to the page
        raise ExtensionError(f"pages: {file.name}: a line without {{doc}} is needed: {line:.60}")
    return title.removeprefix("# ").split("\n")[0], " ".join(line.split())


class Pages(SphinxDirective):
    """Lists pages, and adds them to the navigation."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar[Any] = {"caption": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Return a definition list and a hidden toctree."""
        self.env.note_reread()
        source = Path(self.env.srcdir)
        listed = self.env.temp_data.setdefault("pages", {self.env.docname})
        names = []
        for pattern in self.arguments[0].split():
            for file in sorted(source.glob(f"{pattern}.*")):
                name = file.relative_to(source).with_suffix("").as_posix()
                if name in self.env.found_docs and name not in listed:
                    listed.add(name)
                    names.append(name)
                    self.env.note_dependency(str(file))
        given = dict(line.split(": ", 1) for line in self.content if line.strip())
        lines = []
        for name in names:
            file = Path(self.env.doc2path(name))
            title, line = title_and_line(file, given)
            lines += [f"[{title}](/{name}{file.suffix})", f": {line}", ""]
        caption = self.options.get("caption")
        lines += ["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else [])]
        lines += ["", *(f"/{name}" for name in names), "```"]
        container = nodes.Element()
        self.state.nested_parse(StringList(lines, self.env.docname), self.content_offset, container)
        return container.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("pages", Pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
