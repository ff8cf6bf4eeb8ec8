"""Print every public name of the package with its signature, one a line.

``tests/public_names.txt`` holds the output, and a test compares. After an intended change renew it:

    python tools/public_names.py > tests/public_names.txt

A module's names are those without an underscore that it defines or imports for its users (``import
x as x``); the members of a class are listed where the class is defined.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1] / "tinygrad_rnn"
PUBLIC = "tinygrad_rnn"


def modules() -> Iterator[ModuleType]:
    """Yield the package and the public modules that its users reach by attributes."""
    seen: dict[str, ModuleType] = {}
    stack = [importlib.import_module(PUBLIC)]
    while stack:
        module = stack.pop()
        if module.__name__ not in seen:
            seen[module.__name__] = module
            names = exported(module)
            stack += [value for value in names.values() if inspect.ismodule(value)]
    for name in sorted(seen):
        yield seen[name]


def exported(module: ModuleType) -> dict[str, Any]:
    """Return the public names of a module that are written in its source.

    Names imported without ``as`` are the module's own tools; an ``__init__`` shows none of these.
    """
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    names: list[str] = []
    late = [node for part in tree.body if isinstance(part, ast.If) for node in part.body]
    for node in [*tree.body, *late]:  # the names that are imported at their first use
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names if alias.asname == alias.name]
    return {
        name: getattr(module, name)
        for name in dict.fromkeys(names)
        if not name.startswith("_") and hasattr(module, name)
    }


def signature(value: Any) -> str:
    """Return the parameters of a callable, defaults included; of an exception or alias nothing."""
    if inspect.isclass(value) and issubclass(value, BaseException):
        return ""  # Python's own, which depend on its version
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in found.parameters.values()
    ]
    text = str(inspect.Signature(parameters))
    return re.sub(r"<(?:built-in )?(?:function|class) ([^>]*?)(?: at 0x[0-9a-f]+)?>", r"\1", text)


def members(owner: Any) -> Iterator[str]:
    """Yield the public members that a class defines itself, with their signatures.

    For a function yield the functions that are its attributes, such as ``fuse.backend``.
    """
    kind = inspect.isclass(owner)
    for name, value in sorted(vars(owner).items()):
        if name.startswith("_") or not hasattr(owner, name):
            continue  # private, or a hint for another library's name, which raises
        if isinstance(value, classmethod | staticmethod):
            yield f"{name}{signature(getattr(owner, name))}"
        elif inspect.isfunction(value) or (kind and callable(value)):
            yield f"{name}{signature(value)}"
        elif kind:
            yield name
    for name in owner.__annotations__ if kind else ():
        if not name.startswith("_") and name not in vars(owner):
            yield name


def lines() -> Iterator[str]:
    """Yield the lines of the list."""
    described: set[Any] = set()
    for module in modules():
        path = module.__name__
        yield path
        for name, value in sorted(exported(module).items()):
            if inspect.ismodule(value):
                yield f"  {name} = {value.__name__}"
                continue
            if not callable(value):
                yield f"  {name}"
                continue
            yield f"  {name}{signature(value)}"
            if (inspect.isclass(value) or inspect.isfunction(value)) and value not in described:
                described.add(value)
                yield from (f"    .{member}" for member in members(value))


if __name__ == "__main__":
    sys.path.insert(0, str(PACKAGE.parent))
    print("\n".join(lines()))
