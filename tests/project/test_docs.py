"""The site: what its build must refuse. The pages' own claims are asserted by the pages."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinygrad_rnn as tg

DOCS = Path(__file__).parents[2] / "docs"
pytestmark = pytest.mark.docs


@pytest.fixture
def extension() -> Callable[[str], Any]:
    """Return a function that imports an extension of the site, under a name of its own."""
    pytest.importorskip("sphinx")
    pytest.importorskip("latex2mathml")

    def load(name: str) -> Any:
        path = DOCS / "_ext" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"docs_extension_{name}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


BREAKAGES = {  # the page that must notice, the file, its text, the text with a mistake
    "nothing": ("11_truncated", "engine/ops/gradient.py", "g * xi", "g * xi"),
    "tanh": ("09_bptt", "engine/ops/exponential.py", "g * (1 - out * out)", "g * (1 - out)"),
    "scale_gradient": ("11_truncated", "engine/ops/gradient.py", "g * xi", "g"),
    "detach": (
        "11_truncated",
        "bptt/state.py",
        "return value.detach()\n\n    return",
        "return value\n\n    return",
    ),
}


@pytest.mark.parametrize("broken", BREAKAGES)
def test_a_vjp_that_is_wrong_is_a_page_that_does_not_build(broken: str, tmp_path: Path) -> None:
    pytest.importorskip("myst_nb")
    shutil.copytree(Path(tg.__file__).parent, tmp_path / "tinygrad_rnn")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("*.md", "reference"))
    page, name, right, wrong = BREAKAGES[broken]
    shutil.copy(DOCS / "tutorials" / f"{page}.md", tmp_path / "docs" / "index.md")
    file = tmp_path / "tinygrad_rnn" / name
    source = file.read_text(encoding="utf-8")
    assert source.count(right) == 1
    file.write_text(source.replace(right, wrong), encoding="utf-8")

    # The page alone: links to other pages and exercises, which need the whole site, are no errors.
    options = ["-D", "extensions=myst_nb,mathml", "-D", "nitpicky=0", "-D", "html_theme=basic"]
    options += ["-D", "suppress_warnings=ref.doc,myst.directive_unknown"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-qTW", *options, tmp_path / "docs", tmp_path / "site"],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    said = done.stdout + done.stderr
    if broken == "nothing":
        assert done.returncode == 0, said
    else:
        assert done.returncode != 0
        assert "AssertionError" in said, said


def test_a_public_name_without_a_description_is_named(extension: Any) -> None:
    reference = extension("reference")
    missing = reference.undocumented(set())
    for name in ("tanh", "Tensor", "Tensor.backward", "nn.LSTM", "nn.Module.train", "float32",
                 "models.RecurrentLM.forward", "models.RecurrentLM.sample", "errors.GraphError",
                 "optim.schedule.cosine", "data.text.Vocabulary.encode", "viz.graph"):  # fmt: skip
        assert f"tinygrad_rnn.{name}" in missing
    assert not reference.undocumented({*missing})
    assert reference.undocumented({*missing} - {"tinygrad_rnn.tanh"}) == ["tinygrad_rnn.tanh"]


def test_the_reference_knows_every_name_of_the_package(extension: Any) -> None:
    """The walk reads the source; this asks the package."""
    walked = extension("reference").walk()
    modules = {value.__name__ for value in vars(tg).values() if type(value) is type(sys)}
    public = {
        name
        for name, value in vars(tg).items()
        if name[0] != "_" and f"tinygrad_rnn.{name}" not in modules and type(value) is not type(sys)
    }
    assert public == set(walked["tinygrad_rnn"])


@pytest.mark.parametrize(
    ("page", "outside"),
    [
        ('<script src="https://x.org/a.js"></script>', ["https://x.org/a.js"]),
        ('<link rel="stylesheet" href="//x.org/a.css">', ["//x.org/a.css"]),
        ('<p style="background: url(http://x.org/a.png)">', ["http://x.org/a.png"] * 2),
        ('<a href="https://x.org">a link is no load</a><img src="_static/a.png">', []),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(
    page: str, outside: list[str], extension: Any, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    file.write_text(page)
    assert extension("offline").loads(file) == outside


def test_mathematics_becomes_mathml_or_a_warning(
    extension: Any, caplog: pytest.LogCaptureFixture
) -> None:
    mathml = extension("mathml")
    two = mathml.mathml(r"a &= b \\ c &= \log P", "block", None)
    assert two.count("<mtr>") == 2 and '<mi>log</mi><mspace width="0.17em" />' in two
    assert "‖" in mathml.mathml(r"\Big\| x \Big\|", "inline", None)
    assert not caplog.records
    mathml.mathml(r"\nosuchcommand x", "inline", None)
    assert "nosuchcommand" in caplog.text


def test_marks_of_docstrings_are_escaped_outside_code_and_formulas(extension: Any) -> None:
    lines = [
        "(*leading, H) and max |x|, a | b, *emphasis*",
        ".. math::",
        "    |x| = 1",
        "``(*shape, 1)``",
        ">>> f(*x)",
    ]
    escaped = [r"(\*leading, H) and max \|x\|, a | b, *emphasis*", *lines[1:]]
    extension("reference").escape_marks(None, "", "", None, None, lines)
    assert lines == escaped
