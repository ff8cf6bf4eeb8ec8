"""The line that a message names is the innermost one outside of the library."""

from __future__ import annotations

import inspect
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

import tinygrad_rnn as tg
from tinygrad_rnn._util.user_code import GENERATED, PACKAGE, location, raised_in, shown, stacklevel


def here() -> str:
    """Return the line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return f"{__file__}:{frame.f_back.f_lineno}"


def compiled(name: str, source: str, **names: object) -> object:
    """Return the function `f` of a source that belongs to a file of the given name."""
    exec(compile(source, name, "exec"), names)
    return names["f"]


def test_the_package_is_a_folder_and_no_prefix_of_another() -> None:
    assert Path(tg.__file__).parent == Path(PACKAGE)
    assert not f"{PACKAGE.rstrip('/')}_extensions/file.py".startswith(PACKAGE)


@pytest.mark.parametrize("name", [f"{PACKAGE}nn/cells.py", *(f"{g} add>" for g in GENERATED)])
def test_frames_of_the_library_and_of_generated_code_are_skipped(name: str) -> None:
    f = compiled(name, "def f(n): return location() if n == 0 else f(n - 1)", location=location)
    assert (f(5), here()) == (here(), here())


def test_the_innermost_line_outside_counts() -> None:
    def inner() -> tuple[str, str]:
        return location(), here()

    f = compiled(f"{PACKAGE}nn/cells.py", "def f(g): return g()")
    found, expected = f(inner)
    assert found == expected


def test_only_the_given_files_are_skipped() -> None:
    name = f"{PACKAGE}nn/cells.py"
    f = compiled(name, "\n\ndef f(): return location((engine,))", location=location, engine="x")
    assert f() == f"{name}:3"


def test_a_stack_without_user_code_has_no_line() -> None:
    assert location(("",)) == ""


def test_a_warning_points_to_the_line_of_the_location() -> None:
    source = "def f(n): return warn('careful', stacklevel=level()) if n == 0 else f(n - 1)"
    f = compiled(f"{PACKAGE}nn/cells.py", source, warn=warnings.warn, level=stacklevel)
    for depth in (0, 3):
        with pytest.warns(UserWarning, match="careful") as caught:
            f(depth)
            expected = here()
        line = int(expected.rpartition(":")[2]) - 1
        assert (caught[0].filename, caught[0].lineno) == (__file__, line)


def test_the_innermost_line_of_an_error_that_is_outside() -> None:
    try:
        tg.ones(2) @ tg.ones(3)
    except ValueError as error:
        found, line = raised_in(error), here()
    assert found.rpartition(":")[0] == __file__
    assert int(found.rpartition(":")[2]) == int(line.rpartition(":")[2]) - 2
    assert raised_in(ValueError()) == ""


def test_a_cell_of_a_notebook_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cells:
        @staticmethod
        def format_code_name(file: str) -> tuple[str, str] | None:
            return ("Cell", "In[3]") if file == "/tmp/kernel_1/2.py" else None

    shell = SimpleNamespace(compile=Cells)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert shown("/tmp/kernel_1/2.py:7") == "Cell In[3]:7"
    assert shown("train.py:7") == "train.py:7" and shown("") == ""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert shown("/tmp/kernel_1/2.py:7") == "/tmp/kernel_1/2.py:7"
