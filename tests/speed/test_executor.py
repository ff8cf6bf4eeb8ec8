"""C is the default where a compiler works; where none does, NumPy computes the same."""

from __future__ import annotations

import io
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, CompilerError, ExecutorWarning
from tinygrad_rnn.io import checkpoint_file
from tinygrad_rnn.recurrence import loop
from tinygrad_rnn.speed import compiler as compiler_module
from tinygrad_rnn.speed import executor, loop_runtime, proof, step_proof, updates
from tinygrad_rnn.speed.scan import _plans

ROOT = str(Path(__file__).parents[2])
CC = next(filter(None, map(shutil.which, compiler_module.NAMES)), "")
needs_compiler = pytest.mark.skipif(not CC, reason="no C compiler is installed")

# One training step: a loop over time, a fused function, a product of matrices.
PROGRAM = """
import sys, warnings
import tinygrad_rnn as tg
started = []  # processes: compilers, proofs of new libraries
sys.addaudithook(lambda event, _: event == "subprocess.Popen" and started.append(event))
layer = tg.nn.LSTM(3, 4, rng=0)
x = tg.randn(5, 2, 3, rng=1)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    name = tg.fuse.backend()
    for _ in range(2):
        y, _ = layer(x)
        loss = (y[-1] @ tg.ones(4, 2)).sum()
    loss.backward()
print(name, layer.explain(x)[0].executor, f"{loss.item():.4f}", len(seen), len(started))
for warning in seen:
    print(warning.category.__name__, warning.filename, str(warning.message).replace("\\n", " "))
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a compiler, with an empty cache: `tmp_path`, whose `bin` is in PATH."""
    (tmp_path / "bin").mkdir()
    for name in ("CC", executor.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler_module, "_zig", lambda: None)
    return tmp_path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the tests find the runtime of the system's compiler."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def usual(machine: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the system's compiler."""
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    return shared


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has not chosen an executor, and none of whose plans was made."""
    before, plans = executor.selected[:], dict(_plans)
    monkeypatch.setattr(executor, "_warned", [])
    monkeypatch.setattr(executor, "_reason", [""])
    executor.selected.clear()
    executor.wait()
    _plans.clear()
    yield
    executor._use(before[0]) if before else executor.wait()
    _plans.clear()
    _plans.update(plans)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def run(**env: str) -> list[str]:
    """The lines that PROGRAM prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": ROOT, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def same_results(lines: list[str], name: str) -> list[str]:
    """Check the executor and the loss; return the warnings."""
    before, ran, loss, count, _ = lines[0].split()
    assert (before, ran) == (name, name)
    assert float(loss) == pytest.approx(LOSS, abs=1e-3)
    assert len(lines) == 1 + int(count)
    return lines[1:]


def loss() -> float:
    y, _ = tg.nn.LSTM(3, 4, rng=0)(tg.randn(5, 2, 3, rng=1))
    return (y[-1] @ tg.ones(4, 2)).sum().item()


LOSS = loss()


def facts() -> dict[str, str]:
    file = io.StringIO()
    tg.show_config(file=file)
    return {line[:13].strip(): line[14:] for line in file.getvalue().splitlines()}


# -- where there is a compiler ---------------------------------------------------------------------


@needs_compiler
def test_c_is_the_default_and_the_next_process_does_not_run_the_compiler(machine):
    log = machine / "log"
    script(machine / "bin" / "gcc", f'echo "$@" >> {log}\nPATH={os.defpath} exec {CC} "$@"')
    lines = run()
    assert same_results(lines, "c") == []
    assert log.read_text().count("-o ") > 2 and int(lines[0].split()[-1]) > 2
    log.write_text("")
    lines = run()
    assert same_results(lines, "c") == []
    assert log.read_text() == "" and lines[0].split()[-1] == "0"  # processes


@needs_compiler
def test_another_date_of_the_compiler_is_another_compiler(machine):
    log = machine / "log"
    path = script(machine / "bin" / "gcc", f'echo "$@" >> {log}\nPATH=/usr/bin:/bin exec {CC} "$@"')
    compiler_module.Compiler([str(path)])
    questions = log.read_text()
    compiler_module.Compiler([str(path)])
    assert log.read_text() == questions
    os.utime(path, ns=(1, 1))
    compiler_module.Compiler([str(path)])
    assert len(log.read_text()) == 2 * len(questions)


@needs_compiler
@pytest.mark.parametrize("content", ["", "{", "[]", '{"flags": []}'])
def test_answers_of_the_compiler_that_are_cut_off_are_asked_again(machine, content):
    first = compiler_module.Compiler([CC])
    (file,) = compiler_module.cache().glob("*.json")
    file.write_text(content)
    again = compiler_module.Compiler([CC])
    assert (again.identity, again.command) == (first.identity, first.command)
    assert file.read_text() != content


@needs_compiler
def test_what_the_first_compiler_cannot_do_the_next_does(machine, monkeypatch):
    script(machine / "bin" / "gcc", "exit 1")
    script(machine / "bin" / "clang", f'PATH=/usr/bin:/bin exec {CC} "$@"')
    monkeypatch.setattr(executor, "load_runtime", lambda _: None)
    monkeypatch.setattr(executor, "_check", lambda _: None)
    assert executor._working(temporary=False).path == str(machine / "bin" / "clang")


def test_names_of_one_program_are_one_candidate(machine):
    path = script(machine / "bin" / "gcc", "exit 1")
    (machine / "bin" / "cc").symlink_to(path)
    script(machine / "bin" / "clang", "exit 1")
    names = [Path(command[0]).name for command in compiler_module.candidates()]
    assert names == ["gcc", "clang"]


def test_the_package_ziglang_is_the_last_candidate(machine, monkeypatch):
    zig = script(machine / "zig", f"/usr/bin/env > {machine / 'env'}; exit 1")
    monkeypatch.setattr(compiler_module, "_zig", lambda: str(zig))
    script(machine / "bin" / "gcc", "exit 1")
    first, last = compiler_module.candidates()
    assert (Path(first[0]).name, last) == ("gcc", [str(zig), "cc"])
    with pytest.raises(CompilerError, match=r"zig cc --version failed"):
        compiler_module.Compiler(last)
    folder = compiler_module.cache() / "zig"
    for name in ("GLOBAL", "LOCAL"):  # zig's own files
        assert f"ZIG_{name}_CACHE_DIR={folder}\n" in (machine / "env").read_text()


def test_the_package_ziglang_is_found(tmp_path, monkeypatch):
    (tmp_path / "ziglang").mkdir()
    (tmp_path / "ziglang" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert compiler_module._zig() is None  # without its program
    (tmp_path / "ziglang" / "zig").write_text("")
    assert compiler_module._zig() == str(tmp_path / "ziglang" / "zig")


# -- where there is none, or it fails --------------------------------------------------------------


def test_without_a_compiler_numpy_runs_silently(machine):
    (machine / "bin" / "ziglang.py").write_text("")
    assert same_results(run(), "numpy") == []


def test_without_a_compiler_the_configuration_says_so(machine, undecided):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tg.fuse.backend() == "numpy"
    assert facts()["executor"].startswith(
        "numpy: fuse.backend: no C compiler; tried gcc, clang, cc"
    )
    with pytest.raises(CompilerError, match=r"no C compiler.*tinygrad-rnn\[c\]"):
        tg.fuse.backend("c")
    assert tg.fuse.backend() == "numpy"


FAILURES = {
    "no version": ("echo 'out of order' >&2; exit 3", "out of order"),
    "no macros": ('[ "$1" = --version ] || { echo "no headers" >&2; exit 1; }', "no headers"),
    "no output": ('case "$*" in *-dM*) echo "#define X 1";; esac', "No such file"),
    "no library": (
        'case "$*" in *-dM*) echo "#define X 1";; *-o*) for x; do [ "$last" = -o ] && '
        'echo text > "$x"; last=$x; done;; esac',
        "cannot be loaded",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_compiler_that_fails_costs_one_line(machine, case):
    text, reason = FAILURES[case]
    script(machine / "bin" / "gcc", f"PATH=/usr/bin:/bin\n{text}")
    (line,) = same_results(run(), "numpy")
    assert line.startswith("ExecutorWarning <string> the executor is NumPy, not C: ")
    assert reason in line
    assert "TINYGRAD_RNN_C=0" in line
    assert same_results(run(TINYGRAD_RNN_C="0"), "numpy") == []


def test_a_name_in_cc_that_does_not_exist_is_told(machine, undecided, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler -O1")
    with pytest.warns(ExecutorWarning, match="tried no-such-compiler -O1"):
        assert tg.fuse.backend() == "numpy"
    monkeypatch.setenv("CC", "an open ' quotation mark")
    with pytest.raises(CompilerError, match="an open ' quotation mark"):
        compiler_module.candidates()


@needs_compiler
@pytest.mark.parametrize("what", ["missing", "read-only"])
def test_where_nothing_can_be_kept_nothing_is_compiled(machine, monkeypatch, undecided, what):
    monkeypatch.setenv("CC", CC)
    if what == "missing":
        (machine / "cache").write_text("")
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr(compiler_module.Compiler, "_run", lambda *_: pytest.fail("it was run"))
    with pytest.warns(
        ExecutorWarning, match=r"cannot be kept in .*kernels.*XDG_CACHE_HOME"
    ) as seen:
        assert tg.fuse.backend() == "numpy"
        loss()
    assert len(seen) == 1
    assert facts()["executor"].startswith("numpy: compiled code cannot be kept in")


@needs_compiler
def test_a_folder_of_another_user_is_refused(machine, monkeypatch):
    compiler_module.cache()
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(CompilerError, match="belongs to another user"):
        compiler_module.cache(temporary=False)


@needs_compiler
def test_a_folder_that_programs_cannot_run_from(machine, monkeypatch, undecided):
    """As a mount with the option noexec refuses: with PermissionError."""
    monkeypatch.setenv("PATH", os.defpath)
    run_process = subprocess.run

    def refuse(command: list[str], **more: Any) -> Any:
        if command[0].endswith(".so"):
            raise PermissionError(13, "Permission denied")
        return run_process(command, **more)

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.warns(ExecutorWarning, match=r"\.so cannot be loaded .*XDG_CACHE_HOME"):
        assert tg.fuse.backend() == "numpy"


@needs_compiler
def test_libraries_that_were_cut_off_are_made_again(machine):
    env = {"CC": CC, "PATH": os.defpath}
    assert same_results(run(**env), "c") == []
    files = [*(machine / "cache" / "tinygrad_rnn" / "kernels").glob("*.so")]
    for i, path in enumerate(files):
        path.write_bytes(path.read_bytes()[: (0, 100, -1)[i % 3]])
    assert same_results(run(**env), "c") == []


def test_a_warning_that_is_an_error_leaves_a_choice(machine, undecided, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ExecutorWarning):
            tg.fuse.backend()
    assert tg.fuse.backend() == "numpy"


# -- the environment -------------------------------------------------------------------------------


def test_the_variable_turns_it_off(machine, undecided, monkeypatch):
    monkeypatch.setenv(executor.VARIABLE, "0")
    monkeypatch.setattr(executor, "_working", lambda **_: pytest.fail("a compiler was looked for"))
    assert tg.fuse.backend() == "numpy"
    assert facts()["executor"] == "numpy: TINYGRAD_RNN_C=0"


def test_the_variable_requires_it(machine, undecided, monkeypatch):
    monkeypatch.setenv(executor.VARIABLE, "1")
    for _ in range(2):  # nothing is chosen by the failure
        with pytest.raises(CompilerError, match="no C compiler"):
            loss()
    assert facts()["executor"].startswith("none: fuse.backend: no C compiler")


def test_other_values_are_refused(machine, undecided, monkeypatch):
    monkeypatch.setenv(executor.VARIABLE, "yes")
    with pytest.raises(ArgumentError, match=r"TINYGRAD_RNN_C is 'yes': 1 .*0 .*not set"):
        loss()


@needs_compiler
def test_the_first_product_chooses(undecided):
    x = tg.ones(2, 3)
    assert executor.selected == []
    assert (x @ x.T).sum().item() == 12
    assert executor.selected


def test_the_import_chooses_nothing():
    program = (
        "import tinygrad_rnn as tg; tg.ones(2); print(tg.fuse.backend.__globals__['selected'])"
    )
    env = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


# -- the proof -------------------------------------------------------------------------------------


@pytest.fixture
def working() -> Any:
    return compiler_module.Compiler([CC])


def compiled_text(working: Any, text: str) -> Path:
    return working.library(text)


@needs_compiler
def test_functions_run_in_a_child_on_a_copy_of_the_memory(working):
    text = """#include <stdint.h>
    int add(intptr_t n, double *const *rows, const double *x) {
        for (intptr_t i = 0; i < n; i++) rows[i & 1][i / 2] += x[i];
        return n + 1;
    }"""
    library = compiled_text(working, text)
    first, second, x = np.ones(3), np.ones(3), np.arange(6.0)
    rows = np.array([proof._address(first), proof._address(second)], np.intp)
    assert proof.run(working, library, [("add", [6, rows, x])], [first, second]) == [7]
    assert first.tolist() == [1, 3, 5]
    assert second.tolist() == [2, 4, 6]


CRASHES = {
    "a null pointer": ("*(volatile int *)0 = 1;", r"it crashes \(SIGSEGV\)"),
    "an unknown instruction": ("__builtin_trap();", r"it crashes \(SIG(ILL|TRAP|ABRT)\)"),
    "an exit": ("exit(4);", "it fails"),
    "no end": ("for (volatile int i = 0;; i++);", "it takes longer than"),
}


@needs_compiler
@pytest.mark.parametrize("case", CRASHES)
def test_a_crash_is_an_error(working, monkeypatch, case):
    body, message = CRASHES[case]
    monkeypatch.setattr(proof, "TIMEOUT", 0.3)
    library = compiled_text(
        working, f"#include <stdlib.h>\nint stage0(void) {{ {body} return 0; }}"
    )
    with pytest.raises(CompilerError, match=f"does not work: {message}.*CC"):
        proof.run(working, library, [("stage0", [])])


@needs_compiler
def test_a_function_that_is_missing_is_an_error(working):
    library = compiled_text(working, "int other;\n")
    with pytest.raises(CompilerError, match="stage0 is missing"):
        proof.run(working, library, [("stage0", [])])


@needs_compiler
def test_a_runtime_that_computes_something_else_is_not_taken(machine, monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)
    found = compiler_module.Compiler([CC])
    source = loop_runtime._source()
    wrong = source.replace("call.failed = false;", "call.failed = false; call.depth /= 2;")
    assert wrong != source
    monkeypatch.setattr(loop_runtime, "_source", lambda: wrong)
    with pytest.raises(CompilerError, match="products of matrices are wrong"):
        loop_runtime.load_runtime(found)
    kept = {path.stat().st_size for path in compiler_module.cache().glob("*.so")}
    assert len(kept) == 1  # the program of the child


def recurrence() -> tuple[float, loop.LoopReport]:
    w = tg.full((3, 3), 0.25)
    with loop.reports() as reports:
        state, _ = tg.scan(lambda h, x: (tg.tanh(h @ w + x),) * 2, tg.zeros(2, 3), tg.ones(4, 2, 3))
    return state.sum().item(), reports[0]


@needs_compiler
@pytest.mark.parametrize("required", [False, True])
def test_stages_that_crash_run_in_numpy(usual, undecided, monkeypatch, required):
    expected, report = recurrence()
    assert report.executor == "c"
    _plans.clear()
    loop_runtime._stages.clear()
    executor.selected[0].required = required
    library = compiler_module.Compiler.library

    def spoiled(self: Any, text: str, *args: Any, **more: Any) -> Path:
        return library(self, text.replace("for (intptr_t r", "__builtin_trap();\n for (intptr_t r"),
                       *args, **more)  # fmt: skip

    monkeypatch.setattr(compiler_module.Compiler, "library", spoiled)
    if required:
        with pytest.raises(CompilerError, match="does not work: it crashes"):
            recurrence()
        return
    with pytest.warns(ExecutorWarning, match="NumPy runs a part, not C: .*it crashes") as seen:
        found, report = recurrence()
        recurrence()
    assert len(seen) == 1
    assert report.executor == "numpy"
    assert "it crashes" in report.reason
    assert found == pytest.approx(expected, abs=1e-5)
    assert tg.fuse.backend() == "c"


@needs_compiler
@pytest.mark.parametrize(
    ("correct", "wrong"), [("tanh_float(", "sin("), ("r0[i] = ", "r0[i] = 2*")]
)
def test_stages_that_compute_something_else_run_in_numpy(
    usual, undecided, monkeypatch, correct, wrong
):
    library = compiler_module.Compiler.library
    assert tg.fuse.backend() == "c"

    def spoiled(self: Any, text: str, *args: Any, **more: Any) -> Path:
        if "void stage0" in text:
            start = text.index("void loop0")
            text = text[:start] + text[start:].replace(correct, wrong)
        return library(self, text, *args, **more)

    monkeypatch.setattr(compiler_module.Compiler, "library", spoiled)
    loop_runtime._stages.clear()
    w = tg.full((3, 3), 0.5)

    def step(h: Any, x: Any) -> Any:
        h = tg.tanh(h @ w - 2 * x)
        return h, h

    monkeypatch.setattr(compiler_module.Compiler, "mark", lambda *_: usual / "none" / "none")
    with pytest.warns(ExecutorWarning, match="a time step of a loop differs from NumPy's in"):
        found, _ = tg.scan(step, tg.zeros(2, 3), tg.ones(4, 2, 3))
    with tg.eager():
        expected, _ = tg.scan(step, tg.zeros(2, 3), tg.ones(4, 2, 3))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5)


@needs_compiler
def test_a_step_is_compared_with_numpy_once(usual, undecided, monkeypatch):
    compared: list[Any] = []
    difference = step_proof._difference
    monkeypatch.setattr(
        step_proof, "_difference", lambda *args: compared.append(args) or difference(*args)
    )
    w = tg.full((3, 3), 0.75, requires_grad=True)
    for _ in range(2):
        _plans.clear()
        tg.scan(lambda h, x: (tg.sin(h @ w) + x,) * 2, tg.zeros(2, 3), tg.ones(4, 2, 3))
    assert len(compared) == 2  # forward and backward


@needs_compiler
def test_a_kernel_that_does_not_compile_runs_in_numpy(usual, undecided, monkeypatch):
    assert tg.fuse.backend() == "c"

    def failing(*_: Any, **__: Any) -> Path:
        raise CompilerError("fuse.backend: the disk is full")

    monkeypatch.setattr(compiler_module.Compiler, "library", failing)
    fused = tg.fuse(lambda x: tg.tanh(x) * 3)
    with pytest.warns(ExecutorWarning, match="NumPy runs a part, not C: the disk is full") as seen:
        for _ in range(2):
            assert fused(tg.ones(2)).sum().item() == pytest.approx(6 * np.tanh(1))
    assert len(seen) == 1
    executor.selected[0].required = True
    with pytest.raises(CompilerError, match="the disk is full"):
        tg.fuse(lambda x: tg.tanh(x) * 5)(tg.ones(2))


@needs_compiler
def test_a_library_is_proved_once(machine, undecided, monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)
    proved: list[str] = []
    run_child = proof.run
    monkeypatch.setattr(
        proof, "run", lambda *args: proved.append(args[2][0][0]) or run_child(*args)
    )
    for _ in range(2):
        _plans.clear()
        loop_runtime._stages.clear()
        loop_runtime.load_runtime.cache_clear()
        executor.selected.clear()
        recurrence()
    assert proved.count("matrix_product") == 1
    assert proved.count("stage0") == len(proved) - 1 > 0


# -- the time, and the configuration ---------------------------------------------------------------


def test_the_time_of_compilation_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr(compiler_module, "spent", [0, 0.0])
    with caplog.at_level(logging.INFO, "tinygrad_rnn"):
        for seconds in (0.6, 0.3, 0.4, 5.0):
            compiler_module._count(seconds, Path("/the/folder"))
    (record,) = caplog.records
    assert record.getMessage() == (
        "compiling for this processor took 1.3 s so far; the files are kept in /the/folder"
    )
    assert compiler_module.spent == [4, pytest.approx(6.3)]


@needs_compiler
def test_the_configuration_lists_what_is_compiled(usual, undecided, monkeypatch):
    found = facts()
    width = executor.selected[0].vector_bits
    assert width in (128, 256, 512)
    assert found["executor"] == f"c, {width}-bit vectors" == loop.executor()
    path, _, version = found["C compiler"].partition(": ")
    assert Path(path).exists() and version
    assert found["C cache"].startswith(f"{usual}/tinygrad_rnn/kernels; compiled by")
    assert found["C threads"] == str(tg.get_num_threads())


# -- checkpoints -----------------------------------------------------------------------------------


def test_a_checkpoint_of_another_executor_warns_once(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_file, "_warned", [])
    here = loop.executor()
    tg.save(tmp_path / "here", epoch=1)
    monkeypatch.setattr(loop, "executor", lambda: "c, 8-bit vectors")
    tg.save(tmp_path / "there", epoch=2)
    assert tg.load(tmp_path / "there")["epoch"] == 2
    with pytest.warns(ExecutorWarning, match=f"'{here}', and this process has 'c, 8-bit") as seen:
        for _ in range(2):
            assert tg.load(tmp_path / "here")["epoch"] == 1
    assert len(seen) == 1
    assert seen[0].filename == __file__
    assert tg.io.versions(tmp_path / "there")["executor"] == "c, 8-bit vectors"
    assert tg.io.versions(tmp_path / "here")["executor"] == here


def test_without_speed_the_executor_is_numpy(monkeypatch):
    monkeypatch.setattr(loop, "_executor", None)
    assert loop.executor() == "numpy"


@needs_compiler
def test_an_update_that_does_not_compile_runs_in_numpy(usual, undecided, monkeypatch):
    assert tg.fuse.backend() == "c"
    monkeypatch.setattr(updates, "_plans", {})

    def failing(*_: Any) -> list[int]:
        raise CompilerError("fuse.backend: the disk is full")

    monkeypatch.setattr(updates, "load_stages", failing)
    p = tg.nn.Parameter(tg.ones(3))
    (p * 2).sum().backward()
    with pytest.warns(ExecutorWarning, match="NumPy runs a part, not C: the disk is full"):
        tg.optim.SGD([p], 0.5).step()
    assert p.numpy().tolist() == [0, 0, 0]
