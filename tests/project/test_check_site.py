"""The check of the built site finds faults: a page with each of them, and one without.

Needs Chromium, playwright (the extra `browser`) and axe-core, whose path is in the environment
variable AXE; the stage `site` of .ci/run has them.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, AXE = shutil.which("chromium"), os.environ.get("AXE")
TOOL = Path(__file__).parents[2] / "tools" / "check_site.py"
PAGE = """<!doctype html><html lang="en"><head><title>A page</title><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><style>{style}</style></head>
<body><main role="main"><article><h1>A page</h1><p>Text</p>{body}</article></main></body></html>"""
FAULTS = {
    "console": ("", "<script>console.error('a mistake')</script>", "a mistake"),
    "exception": ("", "<script>nosuchname()</script>", "nosuchname is not defined"),
    "request": ("", '<img alt="A picture" src="http://a.invalid/b.png">', "http://a.invalid/b.png"),
    "overflow": ("", '<div style="width: 2000px">wide</div>', "px broad"),
    "image": ("", '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', "no alternative text"),
    "figure": ("", "<figure><svg></svg></figure>", "a figure without an alternative text"),
    "font": ("", "<math><mi>x</mi></math>", "the mathematics font is not loaded"),
    "contrast": ("p { color: #bbb }", "", "axe color-contrast"),
    "dark contrast": (
        "@media (prefers-color-scheme: dark) { p { color: #bbb } }", "", "dark: axe color-contrast",
    ),
    "scroll area": (
        "pre { overflow: auto; width: 5em }", f"<pre>{'long ' * 99}</pre>", "scrollable-region",
    ),
    "source": ("", '<dl class="py function"><dt id="f">f(x)</dt></dl>', "no link to the source: f"),
}  # fmt: skip
pytestmark = pytest.mark.skipif(not (CHROMIUM and AXE), reason="no Chromium, or AXE is not set")


@pytest.fixture(scope="module")
def tool() -> Any:
    pytest.importorskip("playwright")
    spec = importlib.util.spec_from_file_location("check_site", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_page_without_faults_and_every_fault(tool: Any, tmp_path: Path) -> None:
    assert AXE is not None
    good = tmp_path / "good.html"
    good.write_text(PAGE.format(style="", body=""))
    files = [good]
    for name, (style, body, _) in FAULTS.items():
        files.append(tmp_path / f"{name}.html")
        files[-1].write_text(PAGE.format(style=style, body=body))
    axe = Path(AXE).read_text(encoding="utf-8")
    state = random.getstate()  # playwright draws from it
    found = tool.browse(tmp_path, files, axe, CHROMIUM, None)
    random.setstate(state)
    assert found.pop("good.html") == []
    for name, (_, _, said) in FAULTS.items():
        assert any(said in fault for fault in found[f"{name}.html"]), (name, found[f"{name}.html"])
