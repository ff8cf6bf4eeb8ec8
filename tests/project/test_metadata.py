"""The package's metadata: links of the README on an index page, project URLs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
assert SPEC is not None and SPEC.loader is not None
hatch_build: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hatch_build)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def relative(text: str) -> list[str]:
    """Return the targets of links that lead to files of the repository."""
    return re.findall(r"\]\((?![a-z]+:|#)([^)]*)\)", text)


def test_every_relative_link_leads_to_a_file() -> None:
    assert len(relative(README)) > 5
    assert [path for path in relative(README) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("source", ["", "https://example.org/x/blob/main", "https://a.b/"])
def test_no_relative_link_is_left(source: str) -> None:
    text = hatch_build.with_addresses(README, source)
    assert relative(text) == []
    assert text.count(f"]({source.rstrip('/')}/") == (len(relative(README)) if source else 0)
    assert "```python" in text and "layer.explain(x)[0]" in text, "code is not changed"


def test_links_without_an_address_keep_their_path() -> None:
    text = (
        "See [the map](docs/map.md), [CHANGELOG.md](CHANGELOG.md), [a](https://a.b), ![c](d.svg)."
    )
    expected = "See the map (docs/map.md), CHANGELOG.md, [a](https://a.b), ."
    assert hatch_build.with_addresses(text, "") == expected


def test_only_urls_that_are_known_are_named() -> None:
    assert hatch_build.urls("", "") == {}
    assert hatch_build.urls("https://a.b/main", "https://c.d") == {
        "Documentation": "https://c.d",
        "Source": "https://a.b/main",
        "Changelog": "https://a.b/main/CHANGELOG.md",
    }
