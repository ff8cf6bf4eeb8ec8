"""The structure of the project: layers, the core alone, sizes, documentation, lazy extras.

The last test is about the tests: the guard of ``conftest.py`` must be able to fail.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg

PACKAGE = Path(tg.__file__).parent
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
FILES = sorted(PACKAGE.rglob("*.py"))
EXTRAS = (
    "cupy cupyx equinox flax haiku hypothesis jax keras matplotlib mlx mpi4py onnx onnxruntime "
    "paddle pooch safetensors tinygrad torch tqdm"
).split()


def module_name(file: Path) -> str:
    """Return the dotted name of a file of the package, ``tinygrad_rnn`` for its ``__init__``."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def tool(name: str) -> ModuleType:
    """Return a script of ``tools/`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def count_lines() -> ModuleType:
    """Return ``tools/count_lines.py``."""
    return tool("count_lines")


# ------------------------------------------------------------------------------------------ imports


def imports(name: str) -> Iterator[str]:
    """Yield the modules that a module imports, inside functions and for type checkers too."""
    file = MODULES[name]
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            for alias in node.names:  # `from package import module` means the module
                inner = f"{base}.{alias.name}"
                yield inner if inner in MODULES else base


def ladders() -> list[Any]:
    """Return (container, modules of each layer, top first) of each contract in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = [c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    return [
        pytest.param(
            contract["containers"][0],
            [[name.strip(" ()") for name in layer.split("|")] for layer in contract["layers"]],
            id=contract["id"],
        )
        for contract in contracts
    ]


@pytest.mark.parametrize(("container", "layers"), ladders())
def test_imports_go_down_only(container: str, layers: list[list[str]]) -> None:
    height = {f"{container}.{name}": -i for i, layer in enumerate(layers) for name in layer}
    depth = container.count(".") + 2

    def layer_of(module: str) -> str:
        return ".".join(module.split(".")[:depth])

    inside = [module for module in MODULES if module.startswith(f"{container}.")]
    assert {layer_of(module) for module in inside} <= set(height), "a module has no layer"
    wrong = [
        f"{module} imports {imported}"
        for module in inside
        for imported in imports(module)
        if layer_of(imported) in height
        and layer_of(imported) != layer_of(module)
        and height[layer_of(imported)] >= height[layer_of(module)]
    ]
    assert not wrong


def test_no_module_imports_the_package_from_above() -> None:
    wrong = [name for name in MODULES if name != "tinygrad_rnn" and "tinygrad_rnn" in imports(name)]
    assert not wrong


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Return the nodes that are on a cycle or lead to one."""
    left = dict(graph)
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_there_are_no_import_cycles() -> None:
    graph = {name: set(imports(name)) - {name} for name in MODULES}
    assert cycles(graph) == []
    graph["tinygrad_rnn.engine.graph"].add("tinygrad_rnn.engine.tensor")
    assert "tinygrad_rnn.engine.graph" in cycles(graph)


def test_the_core_imports_nothing_else() -> None:
    core = count_lines().CORE
    wrong = [
        f"{name} imports {imported}"
        for name in MODULES
        for imported in imports(name)
        if name.count(".")
        and name.split(".")[1] in core
        and imported.startswith("tinygrad_rnn.")
        and imported.split(".")[1] not in core
    ]
    assert not wrong


def test_the_layers_are_seen() -> None:
    """The tests above would pass on a list of imports that is empty by mistake."""
    assert "tinygrad_rnn.errors" in set(imports("tinygrad_rnn.engine.tensor"))
    assert "tinygrad_rnn.nn" in set(imports("tinygrad_rnn"))


def code_strings_and_names(tree: ast.AST) -> Iterator[str]:
    """Yield every identifier and every string that is not documentation or part of a message."""
    prose = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr | ast.JoinedStr)
        for part in ([node.value] if isinstance(node, ast.Expr) else node.values)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            if " " not in node.value:
                yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_cupy_is_named_by_the_backend_only() -> None:
    naming = {
        name
        for name, file in MODULES.items()
        for word in code_strings_and_names(ast.parse(file.read_text(encoding="utf-8")))
        if word.split(".")[0] in {"cupy", "cupyx"}
    }
    assert naming == {"tinygrad_rnn.engine.backend"}


# ----------------------------------------------------------------------------------- the core alone


TRAINING_STEP = """
    import numpy as np
    import tinygrad_rnn as tg

    layers = [tg.nn.LSTM(3, 4, rng=0), tg.nn.GRU(4, 4, rng=1), tg.nn.RNN(4, 4, rng=2)]
    norm = tg.nn.LayerNorm(4)
    x = tg.randn(5, 2, 3, rng=3)
    for layer in layers:
        x, _ = layer(x)
    (norm(x) ** 3).mean().backward()
    gradients = [p.grad.numpy().ravel() for layer in layers for p in layer.parameters()]
    print(np.concatenate(gradients).tolist(), hasattr(tg.fuse(tg.tanh), "plans"))
"""


def test_the_core_alone_computes_the_same(tmp_path: Path) -> None:
    """All of ``tests/core`` runs so in ``.ci/run``; this is one training step."""
    tool("core_alone").copy_core(tmp_path)
    found = []
    for path in (PACKAGE.parent, tmp_path):
        numbers, fused = python(TRAINING_STEP, PYTHONPATH=str(path)).rsplit(maxsplit=1)
        assert fused == str(path == PACKAGE.parent)
        found.append(json.loads(numbers))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-7)


def test_a_core_that_imports_speed_does_not_run_alone(tmp_path: Path) -> None:
    tool("core_alone").copy_core(tmp_path)
    with (tmp_path / "tinygrad_rnn" / "nn" / "cells.py").open("a", encoding="utf-8") as file:
        file.write("\nfrom ..speed import fuse as _\n")
    with pytest.raises(AssertionError, match=r"No module named 'tinygrad_rnn\.speed'"):
        python("import tinygrad_rnn.nn", PYTHONPATH=str(tmp_path))


def test_functions_that_were_decorated_before_speed_was_imported_are_fused() -> None:
    python("""
        import pickle, sys, threading
        import tinygrad_rnn as tg

        early = [tg.nn.cells, tg.functional]
        assert "tinygrad_rnn.speed" not in sys.modules
        from tinygrad_rnn.transforms.fuse import Pointwise, fuse
        mine = fuse(lambda x: 2 * x)
        mine.note = "kept"
        functions = [f for module in early for f in vars(module).values() if type(f) is Pointwise]
        assert len(functions) >= 5
        x, results = tg.ones(2), []
        threads = [threading.Thread(target=lambda: results.append(mine(x))) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert [y.numpy().tolist() for y in results] == [[2.0, 2.0]] * 8
        assert {type(f).__name__ for f in [mine, *functions]} == {"Fused"}
        assert mine.plans and mine.note == "kept"
        """)


# --------------------------------------------------------------------------------------------- size


def test_the_readme_states_the_size_of_the_core() -> None:
    tool = count_lines()
    lines = tool.core_lines(tool.count_files())
    stated = re.search(
        r"is ([\d,]+) lines of code", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    assert stated is not None
    assert int(stated[1].replace(",", "")) == pytest.approx(lines, rel=0.02)


def test_the_engine_is_small_enough_to_read() -> None:
    assert count_lines().main() == 0


def test_blank_lines_comments_and_docstrings_are_free() -> None:
    source = '''\
        """Docstring
        of two lines."""
        # comment

        import os  # counts


        class A:  # counts
            """Docstring."""

            x = 1  # counts
            """What x is."""

            def f(self):  # counts
                """Docstring."""
                return """counts
                # twice"""
        '''
    assert count_lines().code_lines(textwrap.dedent(source)) == 6


def test_an_engine_above_the_ceiling_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "engine" / "ops").mkdir(parents=True)
    (tmp_path / "engine" / "graph.py").write_text("x = 1\ny = 2\n")
    (tmp_path / "engine" / "ops" / "table.py").write_text("x = 1\n")  # free
    (tmp_path / "viz.py").write_text("x = 1\n")
    assert count_lines().main(tmp_path, ceiling=2) == 0
    assert count_lines().main(tmp_path, ceiling=1) == 1
    printed = capsys.readouterr().out
    assert "3  core, of 4" in printed and "1  viz.py  (not core)" in printed


# ------------------------------------------------------------------------------------ documentation


def public_objects() -> Iterator[tuple[str, Any]]:
    """Yield every public module, function, class and method of the package, by its full name."""
    for name in MODULES:
        if any(part.startswith("_") for part in name.split(".")):
            continue
        module = importlib.import_module(name)
        yield name, module
        for key, value in vars(module).items():
            if key.startswith("_") or inspect.ismodule(value):
                continue
            if name != "tinygrad_rnn" and getattr(value, "__module__", name) != name:
                continue  # described where it is defined
            if inspect.isclass(value):
                yield f"{name}.{key}", value
                for attribute in vars(value):
                    member = inspect.getattr_static(value, attribute)
                    if not attribute.startswith("_") and (
                        callable(member) or isinstance(member, property | classmethod)
                    ):
                        yield f"{name}.{key}.{attribute}", getattr(value, attribute)
            elif callable(value):
                yield f"{name}.{key}", value


def test_every_public_name_has_a_docstring() -> None:
    documented = {name: bool(inspect.getdoc(value)) for name, value in public_objects()}
    assert len(documented) > 200
    assert [name for name in documented if not documented[name]] == []


# ------------------------------------------------------------------------------------------- extras


def python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter, with warnings as errors, and return its output."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_imports_without_any_extra() -> None:
    modules = [info.name for info in pkgutil.walk_packages(tg.__path__, "tinygrad_rnn.")]
    assert "tinygrad_rnn.engine.backend" in modules
    python(f"""
        import importlib, sys

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {EXTRAS}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Blocker())
        import tinygrad_rnn as tg
        for name in {modules}:
            importlib.import_module(name)
        assert (tg.ones(2) + 1).sum().item() == 4.0
        assert not tg.cuda.is_available()
        assert "gpu-cuda12" in str(tg.cuda.is_available()), str(tg.cuda.is_available())
        """)


A_CUPY = """
    class ndarray: ...
    class cuda:
        class runtime:
            def getDeviceCount():
                {body}
"""


@pytest.mark.parametrize(
    ("cupy", "reason"),
    [
        ("raise ImportError('no libcudart')", "no libcudart"),
        (A_CUPY.format(body="raise RuntimeError('driver too old')"), "driver too old"),
        (A_CUPY.format(body="return 0"), "no CUDA device"),
    ],
    ids=["does not import", "finds no driver", "finds no device"],
)
def test_a_cupy_without_a_gpu_is_no_obstacle(tmp_path: Path, cupy: str, reason: str) -> None:
    (tmp_path / "cupy.py").write_text(textwrap.dedent(cupy))
    python(
        f"""
        import sys
        import tinygrad_rnn as tg
        assert "cupy" not in sys.modules
        assert (tg.ones(2) + 1).sum().item() == 4.0
        assert not tg.cuda.is_available()
        assert {reason!r} in str(tg.cuda.is_available()), tg.cuda.is_available()
        try:
            tg.ones(2, device="cuda")
        except tg.errors.DeviceError as error:
            assert {reason!r} in str(error), error
        else:
            raise AssertionError("made a tensor on a device that is not there")
        """,
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(PACKAGE.parent)]),
    )


def test_the_core_needs_numpy_alone() -> None:
    """Every other import of the package is the standard library's, or is inside a function."""
    allowed = {"numpy", "tinygrad_rnn", *sys.stdlib_module_names}
    outside = {
        (name, imported)
        for name, file in MODULES.items()
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0)
        for imported in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
        if imported.split(".")[0] not in allowed
    }
    assert not outside


# ---------------------------------------------------------------------------- the tests' own guards


def test_a_test_that_changes_global_state_fails(tmp_path: Path) -> None:
    for name in ("conftest.py", "cuda_on_host.py", "cuda_on_host.h", "host_only.txt"):
        shutil.copy(TESTS / name, tmp_path)
    (tmp_path / "test_offenders.py").write_text(
        textwrap.dedent("""
            import numpy as np
            import tinygrad_rnn as tg

            manager = tg.no_grad()

            def test_good():
                with tg.no_grad():
                    tg.ones(2)
                np.random.default_rng(0).normal()

            def test_dtype():
                tg.set_default_dtype(tg.float64)

            def test_random():
                np.random.rand()

            def test_good_in_between():
                assert tg.get_default_dtype() == tg.float32

            def test_mode():
                manager.__enter__()
            """)
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: needs a GPU\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-rE"]
    done = subprocess.run(
        [*command, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("PYTEST_", "COV_", "COVERAGE_"))
        }
        | {"PYTHONPATH": str(PACKAGE.parent), "COLUMNS": "200"},
    )
    errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    assert "5 passed, 3 errors" in done.stdout, done.stdout
    for test, what in [
        ("test_dtype", "default dtype"),
        ("test_random", "NumPy's global random state"),
        ("test_mode", "grad mode"),
    ]:
        assert any(test in line and what in line for line in errors), done.stdout


def test_comparisons_with_pytorch_are_marked_so_that_they_are_known_to_run() -> None:
    """``.ci/run`` fails when a test marked ``oracle`` is skipped; it cannot see the others."""
    unmarked = []
    for file in sorted({*TESTS.rglob("test_*.py")} - {Path(__file__)}):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any("pytestmark = pytest.mark.oracle" in ast.unparse(node) for node in tree.body):
            continue
        for node in tree.body:
            source = ast.unparse(node)
            if "importorskip('torch')" in source and "pytest.mark.oracle" not in source:
                unmarked.append(f"{file.name}: {getattr(node, 'name', 'module')}")
    assert not unmarked
