"""The addresses in the metadata of the package: project URLs, and the links of the README.

An index page shows the README alone, where links to files of the repository lead nowhere.
``SOURCE_ADDRESS`` makes them absolute: the address of a file without its path, such as
``https://example.org/tinygrad_rnn/blob/main``. Without it a link becomes its text and its path. A
build with ``SITE_ADDRESS``, which ``docs/conf.py`` reads too, names the site.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ImportError:  # a test that reads this file; a build has hatchling
    MetadataHookInterface = object


def with_addresses(text: str, source: str) -> str:
    """Return Markdown whose relative links are absolute; without an address they are text."""
    link = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)]*)\)")

    def replacement(found: re.Match[str]) -> str:
        image, shown, path = found.groups()
        if source:
            raw = "?raw=true" * bool(image)
            return f"{image}[{shown}]({source.rstrip('/')}/{path}{raw})"
        if image:
            return ""
        return shown if shown.rstrip("/") in path else f"{shown} ({path})"

    return link.sub(replacement, text)


def urls(source: str, site: str) -> dict[str, str]:
    """Return the project URLs that are known."""
    found = {"Documentation": site, "Source": source}
    found["Changelog"] = source and f"{source.rstrip('/')}/CHANGELOG.md"
    return {name: address for name, address in found.items() if address}


class MetadataHook(MetadataHookInterface):  # type: ignore[misc]
    """Called by hatchling."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the fields that pyproject.toml lists as dynamic."""
        source, site = (os.environ.get(f"{name}_ADDRESS", "") for name in ("SOURCE", "SITE"))
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = with_addresses(text, source)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = urls(source, site)
