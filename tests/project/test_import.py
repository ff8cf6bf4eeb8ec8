"""The import is light: it loads few modules, and compiles no operation. Counted, not timed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from test_architecture import python, tool

import tinygrad_rnn as tg
from tinygrad_rnn.engine.codegen import _SCOPE, RESERVED
from tinygrad_rnn.engine.namespaces import PRIMITIVES
from tinygrad_rnn.engine.primitive_checks import name_of

INIT = Path(tg.__file__)
PRINT_MODULES = """
    import json, sys
    import numpy
    import inspect  # newer versions of NumPy import it too
    before = {*sys.modules}
    import tinygrad_rnn as tg
    %s
    print(json.dumps(sorted({*sys.modules} - before)))
"""
HEAVY = (
    "ctypes dataclasses difflib dis hashlib html inspect json numpy.ma numpy.random random "
    "secrets shutil string subprocess tempfile unicodedata zipfile"
).split()
LATE_FOLDERS = (
    "bptt cuda data distributed functional interop io models nn optim random recurrence speed "
    "testing transforms viz"
).split()


def loaded(code: str = "") -> set[str]:
    """Return the modules that an import of the package loads beyond NumPy's, and some code."""
    found: set[str] = set(json.loads(python(PRINT_MODULES % code)))
    return found


def late_names() -> dict[str, str]:
    """Return the names that are imported late, with their modules, from the source."""
    block = next(x for x in ast.parse(INIT.read_text("utf-8")).body if isinstance(x, ast.If))
    return {
        alias.name: f"{node.module}.{alias.name}" if node.module else alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_import_loads_few_modules() -> None:
    found = loaded()
    assert "tinygrad_rnn.engine.tensor" in found
    assert not found & set(HEAVY)
    folders = {name.split(".")[1] for name in found if name.count(".")}
    assert not folders & set(LATE_FOLDERS)
    assert len(found) < 70


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("(tg.ones(2) * 2).sum().item()", "speed random nn numpy.random"),
        ("tg.tensor([1.0], requires_grad=True).exp().backward()", "speed random nn numpy.random"),
        ("tg.randn(2)", "speed nn optim data"),
        ("tg.nn.LSTM(2, 3)", "speed data models viz io optim"),
        ("tg.data.text.Vocabulary('text')", "speed models viz optim"),
        ("tg.load", "speed models viz nn.recurrent optim"),
        ("tg.interop.convert", "speed models viz optim data io"),
    ],
)
def test_a_first_use_loads_its_own_part_only(code: str, without: str) -> None:
    found = loaded(code)
    names = {name if "numpy" in name else f"tinygrad_rnn.{name}" for name in without.split()}
    assert not found & names


@pytest.mark.parametrize(
    "code",
    [
        "tg.ones(2, 3) @ tg.ones(3, 2)",
        "tg.nn.GRU(2, 3)(tg.ones(4, 1, 2))",
        "tg.fuse(lambda x: 2 * x)(tg.ones(2))",
        "tg.fuse.backend()",
        "tg.show_config(file=sys.stderr)",
        "tg.get_num_threads()",
    ],
)
def test_a_first_use_that_is_computed_by_speed_loads_it(code: str) -> None:
    assert "tinygrad_rnn.speed.executor" in loaded(code)


def test_every_function_that_waits_for_speed_is_replaced_by_it() -> None:
    """One that is not would call itself forever."""
    python("""
        import tinygrad_rnn as tg
        from tinygrad_rnn.engine.ops import kernels
        on_gpu = {f"{name} on a GPU": f for name, f in kernels.on_gpu.items()}
        waiting = {**kernels.faster, **on_gpu}
        assert len(waiting) == 13
        tg.fuse.backend("numpy")
        from tinygrad_rnn.speed.loop_runtime import FUNCTIONS
        assert {*FUNCTIONS} == {name for name in waiting if "GPU" not in name}
        assert not any(f in waiting.values() for f in kernels.on_gpu.values())
        assert not any(f in waiting.values() for f in kernels.faster.values())
        """)


def test_threads_that_use_names_first_at_the_same_time() -> None:
    """Python raises where two threads import a package and a module inside of it."""
    for explicit in ("tg", "import_module('tinygrad_rnn.nn.cells')"):
        python(f"""
            import threading
            from importlib import import_module
            import tinygrad_rnn as tg
            actions = [
                lambda: {explicit},
                lambda: tg.get_num_threads(),
                lambda: tg.ones(2, 2) @ tg.ones(2, 2),
                lambda: tg.nn.LSTM(2, 3)(tg.ones(4, 1, 2)),
                lambda: tg.fuse(lambda x: 2 * x)(tg.ones(2)),
                lambda: tg.viz.graph,
                lambda: tg.models.RecurrentLM,
                lambda: tg.scan,
            ]
            errors, together = [], threading.Barrier(len(actions))

            def run(action):
                together.wait()
                try:
                    action()
                except BaseException as error:
                    errors.append(error)

            threads = [threading.Thread(target=run, args=[a], daemon=True) for a in actions]
            [thread.start() for thread in threads]
            [thread.join(60) for thread in threads]
            assert not any(thread.is_alive() for thread in threads)
            assert {explicit!r} != "tg" or not errors, errors
            """)


def test_an_operation_is_compiled_at_its_first_call() -> None:
    python("""
        import threading
        import tinygrad_rnn as tg
        before = tg.tanh.__code__
        assert before is tg.exp.__code__
        x = tg.tensor([0.0, 0.0], requires_grad=True)
        found = []
        threads = [threading.Thread(target=lambda: found.append(tg.tanh(x))) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert tg.tanh.__code__ is not before and tg.exp.__code__ is before
        for y in found:
            y.sum().backward()
        assert x.grad.numpy().tolist() == [8.0, 8.0]
        try:
            tg.clip(x, 0, 1, nothing=2)
        except TypeError as error:
            assert "clip has no argument 'nothing'" in str(error), error
        """)


def test_an_operation_that_is_first_called_in_a_traced_step_is_traced() -> None:
    python("""
        import tinygrad_rnn as tg
        def step(h, x):
            h = tg.sigmoid(h * x) + tg.softplus(x)
            return h, h
        from tinygrad_rnn.recurrence import loop
        with loop.reports() as made:
            tg.scan(step, tg.zeros(2), tg.ones(5, 2))
        assert [report.traced for report in made] == [True], made

        def draws(h, x):
            h = h + tg.randn(2)
            return h, h
        with loop.reports() as made:
            tg.scan(draws, tg.zeros(2), tg.ones(5, 2))
        assert "draws random numbers" in made[0].reason, made
        """)


def test_every_operation_of_the_library_has_valid_source() -> None:
    """The library's are compiled late, so a mistake in a rule would be seen late too."""
    for operation in PRIMITIVES.values():
        definition = operation.definition
        if not definition.user_defined:
            compile(definition.source, definition.name, "exec")
            vjps = dict.fromkeys(definition.inputs)
            vjps |= dict(zip(definition.differentiable, definition.rules, strict=False))
            joint, taken = definition.joint, RESERVED.union(_SCOPE)
            name_of(definition.forward, {} if joint else vjps, joint, taken)


def test_names_that_are_imported_late_are_those_for_type_checkers() -> None:
    names = late_names()
    homes = {name: home for home, some in tg._LATE.items() for name in some.split()}
    private = {"recurrence", "speed", "transforms"}  # attributes as they always were
    assert {*homes} == {*names} | private
    for name, path in names.items():
        assert path == (f"{homes[name]}.{name}" if homes[name] else name)


def test_the_package_lists_its_names() -> None:
    names = late_names()
    python(f"""
        import tinygrad_rnn as tg
        listed = {{*dir(tg)}}
        assert {{*{[*names]}}} <= listed, listed
        from tinygrad_rnn import {", ".join(names)}
        from tinygrad_rnn import *
        assert nn is tg.nn and scan is tg.scan and viz.graph
        assert "nn" in vars(tg)  # the second look-up is an ordinary one
        assert not hasattr(tg, "jnp") and not hasattr(tg, "__path_hooks__")
        try:
            tg.gradchek
        except AttributeError as error:
            assert "did you mean gradcheck" in str(error), error
        try:
            tg.Sequential
        except AttributeError as error:
            assert "here it is nn.Sequential" in str(error), error
        """)


def test_names_of_a_folder_that_is_missing_are_unknown(tmp_path: Path) -> None:
    tool("core_alone").copy_core(tmp_path)
    code = """
        import tinygrad_rnn as tg
        assert not hasattr(tg, "viz") and not hasattr(tg, "save") and hasattr(tg, "nn")
        assert (tg.ones(2, 2) @ tg.ones(2, 2)).sum().item() == 8
        tg.show_config()
        """
    python(code, PYTHONPATH=str(tmp_path))


def test_an_error_inside_of_a_late_module_is_not_hidden() -> None:
    python("""
        import sys
        import tinygrad_rnn as tg
        sys.modules["zipfile"] = None  # which tinygrad_rnn.io needs
        try:
            tg.save
        except ModuleNotFoundError as error:
            assert "zipfile" in str(error)
        else:
            raise AssertionError
        """)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the system has no fork")
def test_children_that_are_forked_before_the_first_draw_have_streams_of_their_own() -> None:
    drawn = python("""
        import os, sys
        import tinygrad_rnn as tg
        assert "tinygrad_rnn.random" not in sys.modules
        for _ in range(2):
            if os.fork() == 0:
                print(tg.randn(1).item(), flush=True)
                os._exit(0)
            os.wait()
        print(tg.randn(1).item())
        """).split()
    assert len({*drawn}) == 3
    again = python("""
        import os
        import tinygrad_rnn as tg
        tg.random.get_state()  # the module is imported before the forks
        for _ in range(2):
            if os.fork() == 0:
                print(tg.randn(1).item(), flush=True)
                os._exit(0)
            os.wait()
        print(tg.randn(1).item())
        """).split()
    assert drawn == again
