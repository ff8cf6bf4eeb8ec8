"""The site: what its build must refuse. The pages' own claims are asserted by the pages."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
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
def extension(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return a function that imports an extension of the site, under a name of its own."""
    pytest.importorskip("sphinx")
    pytest.importorskip("latex2mathml")

    pytest.importorskip("hatchling")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))

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

    # The page alone: links to other pages, which need the whole site, are no errors. With furo and
    # exercises, as in the site.
    options = ["-D", "extensions=myst_nb,mathml,exercises", "-D", "nitpicky=0"]
    options += ["-D", "suppress_warnings=ref.doc"]
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
    for name in ("tanh", "nn.Recurrent.forward", "nn.GRUCell.forward", "bptt.Truncated.cuts"):
        name = f"tinygrad_rnn.{name}"  # the last three override members with descriptions
        assert reference.undocumented({*missing} - {name}) == [name]


def overriding(reference: Any) -> dict[str, set[str]]:
    """Return the members that each public class overrides with a docstring, also in private bases.

    Found without the extension's own functions, from the classes alone.
    """
    home = reference.homes(reference.walk())
    found: dict[str, set[str]] = {}
    for full in home.values():
        cls = reference.resolve(full)
        for c in cls.__mro__ if inspect.isclass(cls) else ():
            if c is not cls and id(c) in home:
                break  # a public base, which has a page of its own
            for name, member in vars(c).items():
                written = getattr(member, "__doc__", None) and name[0] != "_"
                if written and (inspect.isfunction(member) or isinstance(member, property)):
                    if id(getattr(cls, name)) not in home:
                        found.setdefault(full, set()).add(name)
    return found


def test_members_that_are_overridden_are_on_the_page_of_their_class(extension: Any) -> None:
    reference = extension("reference")
    home = reference.homes(reference.walk())
    found = overriding(reference)
    assert "forward" in found["tinygrad_rnn.nn.Recurrent"] & found["tinygrad_rnn.nn.GRUCell"]
    assert sum(map(len, found.values())) > 100
    for full, names in found.items():
        described, _, inherited = reference.members(reference.resolve(full), home)
        assert names <= {*described, *inherited}, full
        elsewhere = names - {*described}  # of a private base that two public classes share
        assert not elsewhere & {*vars(reference.resolve(full))}, full


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "Linear", "LSTMCell"])
def test_the_page_of_a_module_shows_its_call(name: str, extension: Any) -> None:
    reference = extension("reference")
    full = f"tinygrad_rnn.nn.{name}"
    page = reference.page(full, reference.homes(reference.walk()))
    (listed,) = [line for line in page.splitlines() if line.strip().startswith(":members:")]
    assert "forward" in listed.replace(",", " ").split()
    assert "(" in inspect.getdoc(getattr(tg.nn, name).forward)  # shapes


MADE_BY_THE_LIBRARY = {  # no caller passes their arguments
    "Tensor", "cuda.Availability", "interop.CFile", "models.Scores", "viz.Graph", "viz.GraphNode",
    "viz.Drawing", "viz.LearningCurve", "training.History", "training.Run",
    "distributed.DataParallel", "distributed.World",
}  # fmt: skip
RAISES_NOTHING = {  # of its own
    "get_default_dtype", "show_config", "enable_grad", "is_grad_enabled", "no_grad", "eager",
    "bptt.Full", "bptt.Strategy", "bptt.Window", "bptt.Windows",
    "functional.masked", "random.get_state", "random.record_states",
    "random.draw_uniform", "cuda.is_available", "data.ResumableIterator",
    "metrics.Perplexity", "training.Callback", "training.CudaGraph", "training.Progress",
    "training.ctrl_c", "training.on_signals", "metrics.MeanMetric", "metrics.Accuracy",
    "metrics.MAE", "metrics.RMSE", "optim.schedule.RateFactor",
}  # fmt: skip


def test_every_public_callable_has_arguments_result_errors_and_an_example(extension: Any) -> None:
    """The examples run as doctests; the reference adds the signature and a link to the source."""
    reference = extension("reference")
    lacking = []
    for full in reference.homes(reference.walk()).values():
        value, name = reference.resolve(full), full.removeprefix("tinygrad_rnn.")
        if reference.is_data(value):
            continue
        doc, is_class = inspect.getdoc(value) or "", inspect.isclass(value)
        wanted = ["Examples"]
        if not (is_class and issubclass(value, Warning | Exception | dict)):
            signature = inspect.signature(value)
            result = None if is_class else signature.return_annotation
            generated = result is not None and (
                "Iterator" in str(result) or "Context" in str(result)
            )
            if signature.parameters and name not in MADE_BY_THE_LIBRARY:
                wanted += ["Parameters"]
            if not is_class and str(result) != "None" and not generated:
                wanted += ["Yields" if "Yields\n" in doc else "Returns"]
            if name not in RAISES_NOTHING | MADE_BY_THE_LIBRARY:
                wanted += ["Raises"]
        lacking += [f"{name}: {w}" for w in wanted if f"{w}\n{'-' * len(w)}\n" not in doc]
        lacking += [f"{name}: an example"] * (">>>" not in doc)
        if name in RAISES_NOTHING and "Raises\n---" in doc:
            lacking.append(f"{name} is in the list of those without errors")
    assert not lacking, "\n".join(lacking)


PAGE = """\
---
file_format: mystnb
---

# A page

```{code-cell}
:tags: [remove-cell]
import figures
```

See [the next](next.md), {py:obj}`tg.tanh` and [a source](https://example.org).

```{note}
A note.
```

```{code-cell}
import tinygrad_rnn as tg

print(tg.tanh(tg.tensor(0.0)).item(), tg.__file__)
```
"""


def test_a_page_becomes_a_notebook_and_a_script(extension: Any) -> None:
    downloads = extension("downloads")
    cells = downloads.cells(PAGE)
    cells = [downloads.first_cell("w.whl", "", cells), *cells]
    assert [kind for kind, _ in cells] == ["code", "markdown", "markdown", "code"]
    assert cells[2][1].startswith("See the next, `tg.tanh` and [a source](https://example.org).")
    assert "A note." in cells[2][1] and "{note}" not in cells[2][1]
    notebook = json.loads(downloads.notebook(cells))
    assert "".join(notebook["cells"][3]["source"]) == cells[3][1]
    assert "pip" in "".join(notebook["cells"][0]["source"])
    assert "w.whl[plot]" in cells[0][1]
    at_site = downloads.first_cell("w.whl", "https://example.org/docs", [])[1]
    assert "tinygrad-rnn[plot] @ https://example.org/docs/downloads/w.whl" in at_site
    ast.parse(downloads.script(cells))


def test_every_tutorial_can_be_downloaded(extension: Any) -> None:
    downloads = extension("downloads")
    pages = [DOCS / "quick_start.md", *DOCS.glob("tutorials/*.md")]
    for page in pages:
        cells = downloads.cells(page.read_text(encoding="utf-8"))
        code = "\n".join(text for kind, text in cells if kind == "code")
        assert "assert " in code, f"{page.name} asserts nothing"
        ast.parse(downloads.script(cells))
        for kind, text in cells:
            assert kind != "markdown" or "```{" not in text, f"{page.name}: {text[:80]}"


def test_a_downloaded_script_runs_in_a_fresh_folder_with_the_wheel(
    extension: Any, tmp_path: Path
) -> None:
    """In .ci/run a tutorial runs in a new environment, where its first cell installs the wheel."""
    from hatchling.builders.wheel import WheelBuilder

    downloads = extension("downloads")
    (wheel,) = WheelBuilder(str(DOCS.parent)).build(directory=str(tmp_path), versions=["standard"])
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    script = tmp_path / "page.py"
    cells = downloads.cells(PAGE)
    first = downloads.first_cell(Path(wheel).name, "", cells)
    script.write_text(downloads.script([first, *cells]), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.startswith("0.0 ") and str(tmp_path) in done.stdout, done.stderr


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
    aligned = mathml.mathml(r"\begin{aligned}a &= b & c &= d\end{aligned}", "block", None)
    assert aligned.count("<mtd") == 4
    squared = mathml.mathml(r"\tanh^2 x \sim N", "inline", None)
    assert (
        "<msup><mi>tanh</mi><mn>2</mn></msup><mspace" in squared and "<mo>&#x0223C;</mo>" in squared
    )
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
