"""Mutation tests of the gradient rules: change one rule a little, and run the operations' tests.

A mutant is the package with one change in one rule of ``engine/ops`` (or in `unbroadcast`): another
operator, a dropped factor or call, exchanged arguments, a constant one off, a negated condition, a
sign. First it is tested with the derivatives of the operations that use the rule; a survivor is
then tested with the tests of the graph, memory, counts, primitives and devices. This takes an hour
or more on two cores, so it is not part of CI; run it from the root of the repository:

    nice python tools/mutate_rules.py --workers 2 --log mutants.jsonl
    python tools/mutate_rules.py --brief                    # without all tests for survivors
    python tools/mutate_rules.py --list                     # print the mutants
    python tools/mutate_rules.py --only softmax             # some files or rules
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy  # noqa: F401 - imported once, before the processes are forked
import pytest

FORK: Any = multiprocessing.get_context("fork")
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tinygrad_rnn"
RULES = PACKAGE / "engine" / "ops"
BACKWARD_PASS = PACKAGE / "engine" / "backward_pass.py"
QUICK = [
    "test_gradients_of_two_orders_equal_differences",
    "test_the_same_tensor_in_two_places",
    "test_dtypes_are_kept",
    "test_memory_layout_changes_nothing",
]
CONVENTIONS = [
    "test_gradients_at_ties",
    "test_ties_share_the_gradient_of_an_extreme_evenly",
    "test_no_nan_where_the_derivative_exists",
    "test_the_exponents_gradient_of_a_zero_base_is_zero",
    "test_second_derivatives_of_zero_to_the_power_zero_are_finite",
    "test_reductions_of_every_axis",
    "test_between_floating_tensors_the_wider_wins_and_gradients_go_back_narrow",
]
MORE = [f"core/engine/test_{name}" for name in ("graph", "memory", "counts", "primitive")]
MORE += ["project/test_device", "core/bptt/test_bptt"]
TESTS = "tests/core/tensors/test_ops.py"
TIMEOUT = 900  # seconds: a mutant that takes longer hangs
PROFILE = """\
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "mutants", max_examples=60, deadline=None, derandomize=True, database=None,
    phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
)
"""  # the profile of CI, without shrinking

SWAPPED_OPERATORS: dict[type, list[type]] = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.Pow: [ast.Mult],
    ast.Mod: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
}
SWAPPED_COMPARISONS: dict[type, list[type]] = {
    ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.LtE],
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.GtE],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
}
SWAPPED_NAMES = {
    "sin": "cos",
    "cos": "sin",
    "exp": "expm1",
    "log": "log1p",
    "sigmoid": "tanh",
    "softmax": "log_softmax",
}


@dataclass
class Rule:
    """A vjp or a function that vjps call, and the primitives that use it."""

    file: Path
    name: str
    node: ast.AST
    primitives: list[str]


@dataclass
class Mutant:
    """A module with one change."""

    rule: Rule
    line: int
    column: int
    change: str
    source: str

    @property
    def place(self) -> str:
        """The file, line, column and rule of the change."""
        return f"{self.rule.file.name}:{self.line}:{self.column} {self.rule.name}"


# -- finding the rules -----------------------------------------------------------------------------


def decorator(function: ast.FunctionDef) -> ast.Call | None:
    """Return the decorator ``@primitive(...)`` of a function, if there is one."""
    for call in function.decorator_list:
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "primitive":
            return call
    return None


def names_in(node: ast.AST) -> set[str]:
    """Return every name in a piece of code."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def rules(file: Path, tree: ast.Module) -> Iterator[Rule]:
    """Yield the vjps of a module's primitives, and the functions that these call."""
    if file == BACKWARD_PASS:
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == "unbroadcast":
                rows = ["add", "multiply", "where", "F.cast", "divide"]
                yield Rule(file, node.name, node, rows)
        return
    functions = {f.name: f for f in tree.body if isinstance(f, ast.FunctionDef)}
    uses: dict[str, list[str]] = {}
    for name, function in functions.items():
        call = decorator(function)
        for keyword in call.keywords if call else []:
            if keyword.arg in ("name", "floating", "view", "pending"):
                continue
            if isinstance(keyword.value, ast.Lambda):
                yield Rule(file, f"{name}.{keyword.arg}", keyword.value, [name])
            seen, reached = names_in(keyword.value), set()
            while seen - reached:
                helper = (seen - reached).pop()
                reached.add(helper)
                if helper in functions and not decorator(functions[helper]):
                    uses.setdefault(helper, []).append(name)
                    seen |= names_in(functions[helper])
    for helper, primitives in uses.items():
        yield Rule(file, helper, functions[helper], sorted(set(primitives)))


# -- changing them ---------------------------------------------------------------------------------


def negated(node: ast.expr) -> ast.expr:
    """Return -node."""
    return ast.UnaryOp(ast.USub(), node)


def variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield each change of one node, without its children, and a name for it."""
    new = copy.deepcopy(node)
    if isinstance(node, ast.BinOp):
        for operator in SWAPPED_OPERATORS.get(type(node.op), []):
            yield "operator", ast.BinOp(node.left, operator(), node.right)
        yield "right dropped", node.left
        yield "left dropped", node.right
        if isinstance(node.op, ast.Sub | ast.Div | ast.Pow):
            yield "exchanged", ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.UnaryOp):
        yield "sign or not dropped", node.operand
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for comparison in SWAPPED_COMPARISONS[type(node.ops[0])]:
            yield "comparison", ast.Compare(node.left, [comparison()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield "first dropped", node.values[-1]
        yield "last dropped", node.values[0]
    elif isinstance(node, ast.IfExp):
        yield "always", node.body
        yield "never", node.orelse
        yield "negated", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.If):
        yield "always", ast.If(ast.Constant(True), node.body, node.orelse)
        yield "never", ast.If(ast.Constant(False), node.body, node.orelse)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "negated", ast.Constant(not node.value)
        elif isinstance(node.value, int | float):
            yield "one more", ast.Constant(node.value + 1)
            yield "one less", ast.Constant(node.value - 1)
        elif node.value in ("x", "y"):
            yield "the other", ast.Constant("y" if node.value == "x" else "x")
    elif isinstance(node, ast.Call):
        assert isinstance(new, ast.Call)
        if len(node.args) > 1 and not isinstance(node.args[0], ast.Starred):
            new.args[0], new.args[1] = new.args[1], new.args[0]
            if ast.unparse(new) != ast.unparse(node):
                yield "arguments exchanged", new
        given = [a for a in node.args if ast.unparse(a) != "F"]
        if given and not isinstance(given[0], ast.Starred):
            yield "call dropped", given[0]
        for i, keyword in enumerate(node.keywords):
            if keyword.arg == "axis" and not isinstance(keyword.value, ast.Constant):
                new = copy.deepcopy(node)
                new.keywords[i].value = ast.Constant(0)
                yield "axis 0", new
            if keyword.arg == "axes":
                new = copy.deepcopy(node)
                new.keywords[i].value = ast.parse(
                    f"tuple(sorted({ast.unparse(keyword.value)}))", mode="eval"
                ).body
                yield "axes in order", new
    elif isinstance(node, ast.Attribute) and node.attr in SWAPPED_NAMES:
        yield "another function", ast.Attribute(node.value, SWAPPED_NAMES[node.attr], ast.Load())
    elif isinstance(node, ast.Lambda):
        yield "negated", ast.Lambda(node.args, negated(node.body))
        yield "twice", ast.Lambda(node.args, ast.BinOp(node.body, ast.Mult(), ast.Constant(2)))
        if "g" in {a.arg for a in node.args.args} and ast.unparse(node.body) != "g":
            yield "g alone", ast.Lambda(node.args, ast.Name("g", ast.Load()))
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "negated", ast.Return(negated(node.value))
    elif isinstance(node, ast.comprehension) and node.ifs:
        new.ifs = []  # type: ignore[attr-defined]
        yield "condition dropped", new
    elif isinstance(node, ast.Slice):
        for part in ("lower", "upper", "step"):
            if getattr(node, part) is not None:
                new = copy.deepcopy(node)
                setattr(new, part, None)
                yield f"{part} dropped", new


class Replace(ast.NodeTransformer):
    """Replace one node by another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """Return the new node for the old one."""
        return self.new if node is self.old else self.generic_visit(node)


def outside_annotations(rule: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a rule that run: no docstrings, annotations or messages."""
    stack: list[ast.AST] = [rule]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.arguments | ast.arg | ast.Raise | ast.JoinedStr):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        yield node
        stack += [
            child
            for field, value in ast.iter_fields(node)
            if field not in ("decorator_list", "returns", "annotation")
            for child in (value if isinstance(value, list) else [value])
            if isinstance(child, ast.AST)
        ]


def mutants(only: list[str]) -> Iterator[Mutant]:
    """Yield every mutant of the rules whose file or name contains one of the words."""
    for file in [*sorted(RULES.glob("*.py")), BACKWARD_PASS]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for rule in rules(file, tree):
            if only and not any(word in f"{file.stem}.{rule.name}" for word in only):
                continue
            seen = set()
            for node in outside_annotations(rule.node):
                for word, new in variants(node):
                    before, after = ast.unparse(node), ast.unparse(new)
                    # `Replace` finds a node by its identity, so it cannot work on a copy of the
                    # tree: replace the node, unparse, and restore it.
                    changed = ast.unparse(Replace(node, new).visit(tree))
                    Replace(new, node).visit(tree)
                    if changed in seen:
                        continue
                    seen.add(changed)
                    at = node if hasattr(node, "lineno") else rule.node
                    line, column = at.lineno, at.col_offset  # type: ignore[attr-defined]
                    yield Mutant(rule, line, column, f"{word}: {before}  ->  {after}", changed)


# -- testing them ----------------------------------------------------------------------------------


def run_tests(copied: Path, tests: list[str], output: Path) -> None:
    """Run tests on a copy of the package, in a forked process."""
    os.chdir(copied)
    sys.path[:0] = [str(copied), str(copied / "tests")]
    os.environ.update(
        PYTHONPATH=str(copied), HYPOTHESIS_PROFILE="mutants", PYTEST_ADDOPTS="", CI=""
    )
    sys.dont_write_bytecode = True
    with output.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        plugins = ["-p", "profile_of_mutants", "-p", "no:cacheprovider", "-p", "no:xdist"]
        plugins += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # imported before the fork
        code = pytest.main(["-x", "-q", "--tb=short", "--no-header", *plugins, *tests])
        sys.stdout.flush()
    os._exit(int(code))


def first_failure(copied: Path, tests: list[str]) -> str | None:
    """Run tests on a copy of the package; return the first that fails, None if all pass."""
    output = copied / "output"
    process = FORK.Process(target=run_tests, args=(copied, tests, output))
    process.start()
    process.join(TIMEOUT)
    if process.is_alive():
        process.kill()
        process.join()
        return "timeout"
    text = output.read_text(encoding="utf-8")
    if process.exitcode == 0:
        return None
    failed = [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
    failed += [line for line in text.splitlines() if "Error" in line and process.exitcode == 4]
    if not failed or "ERROR: not found" in text:
        raise RuntimeError(text)
    return failed[0].partition(" - ")[0]


def tried(mutant: Mutant, copied: Path, rows: list[str], brief: bool) -> str | None:
    """Return the first test that fails for a mutant, or None."""
    target = copied / mutant.rule.file.relative_to(ROOT)
    original = target.read_text(encoding="utf-8")
    target.write_text(mutant.source, encoding="utf-8")
    try:
        names = [row for row in rows if row.removeprefix("F.") in mutant.rule.primitives]
        quick = [f"{TESTS}::{test}[{name}]" for name in names for test in QUICK]
        quick += [f"{TESTS}::{test}" for test in CONVENTIONS]
        more = [f"tests/{name}.py" for name in MORE]
        more += ["--deselect", "tests/project/test_device.py::test_the_main_job_learns_the_same"]
        more += ["-k", "not million"]  # these two need the examples, and time
        noticed = first_failure(copied, quick)
        return noticed or (None if brief else first_failure(copied, more))
    finally:
        target.write_text(original, encoding="utf-8")


def prepare(copied: Path, rows: list[str]) -> None:
    """Copy the package and its tests, and check that the tests pass without a change."""
    for part in ("tinygrad_rnn", "tests"):
        shutil.copytree(ROOT / part, copied / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copied)
    (copied / "profile_of_mutants.py").write_text(PROFILE)
    failed = first_failure(copied, [f"{TESTS}::{QUICK[0]}[{name}]" for name in rows])
    if failed:
        raise RuntimeError(f"without a change: {failed}\n{(copied / 'output').read_text()}")


def work(share: list[Mutant], copied: Path, rows: list[str], brief: bool, results: Any) -> None:
    """Test a share of the mutants and report each; also report an error of this tool."""
    try:
        prepare(copied, rows)
        for mutant in share:
            results.put((mutant.place, mutant.change, tried(mutant, copied, rows, brief)))
    except Exception as error:
        results.put(error)


def names_of_rows() -> list[str]:
    """Return the names of the rows of the table that have gradients."""
    code = "from op_table import ROWS; print(*[row.name for row in ROWS if row.smooth])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout.split()


def main() -> int:
    """Test the mutants, print the survivors and the score; return 1 if there are survivors."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="words in 'file.rule'")
    parser.add_argument("--brief", action="store_true", help="run the tests of derivatives only")
    parser.add_argument("--log", type=Path, help="write a line for each mutant; skip those in it")
    parser.add_argument("--list", action="store_true", help="print the mutants, run no test")
    options = parser.parse_args()
    every = list(mutants(options.only))
    if options.list:
        for mutant in every:
            print(f"{mutant.place}: {mutant.change}")
        print(len(every), "mutants")
        return 0
    outcome: dict[tuple[str, str], str | None] = {}
    if options.log and options.log.exists():
        for line in options.log.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            outcome[record["place"], record["change"]] = record["noticed"]
    todo = [m for m in every if (m.place, m.change) not in outcome]
    results, rows = FORK.Queue(), names_of_rows()
    with tempfile.TemporaryDirectory() as scratch:
        workers = [
            FORK.Process(
                target=work,
                args=(
                    todo[i :: options.workers],
                    Path(scratch) / str(i),
                    rows,
                    options.brief,
                    results,
                ),
            )
            for i in range(options.workers)
        ]
        for worker in workers:
            worker.start()
        for _ in todo:
            result = results.get()
            if isinstance(result, Exception):
                raise result
            place, change, noticed = result
            outcome[place, change] = noticed
            if options.log:
                record = {"place": place, "change": change, "noticed": noticed}
                with options.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(record, ensure_ascii=False) + "\n")
        for worker in workers:
            worker.join()
    survivors = [m for m in every if outcome[m.place, m.change] is None]
    for mutant in survivors:
        print(f"SURVIVED {mutant.place}: {mutant.change}")
    killed = len(every) - len(survivors)
    print(f"{killed} of {len(every)} mutants fail a test ({killed / max(len(every), 1):.1%})")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
