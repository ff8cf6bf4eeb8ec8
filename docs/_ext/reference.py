"""The reference: a page for every public name, generated from the package and checked for gaps.

A name is public if a public module defines it without a leading underscore, or imports it under its
own name (``from .a import b as b``); imported modules are public too. The page of an object is at
its shortest path; longer paths link there.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.nodes import make_refnode

import tinygrad_rnn as tg

ROOT = "tinygrad_rnn"
GENERATED = "reference"  # the folder of the pages


def public(module: ModuleType) -> Iterator[str]:
    """Yield the public names of a module, in the order of its source."""
    body = ast.parse(inspect.getsource(module)).body
    late = [node for part in body if isinstance(part, ast.If) for node in part.body]
    for node in [*body, *late]:  # the names that are imported at their first use
        if isinstance(node, ast.ImportFrom):
            yield from (a.name for a in node.names if a.asname == a.name)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
            yield node.name


def walk() -> dict[str, list[str]]:
    """Return the public names of each public module, outer modules first."""
    found: dict[str, list[str]] = {}
    waiting, seen = [(ROOT, tg)], {id(tg)}
    while waiting:
        path, module = waiting.pop(0)
        found[path] = []
        for name in public(module):
            value = getattr(module, name)
            if not inspect.ismodule(value):
                found[path].append(name)
            elif id(value) not in seen:
                seen.add(id(value))
                waiting.append((f"{path}.{name}", value))
    return found


def resolve(path: str) -> Any:
    """Return the object at a dotted path from the package."""
    value: Any = tg
    for name in path.split(".")[1:]:
        value = getattr(value, name)
    return value


def homes(modules: dict[str, list[str]]) -> dict[int, str]:
    """Return the path of the page of every public object, by the object's id."""
    home: dict[int, str] = {}
    for path in sorted(modules, key=lambda path: path.count(".")):
        for name in modules[path]:
            home.setdefault(id(getattr(resolve(path), name)), f"{path}.{name}")
    return home


def is_data(value: Any) -> bool:
    """Whether a public value is neither a function nor a class of the package, such as a dtype."""
    return not (getattr(value, "__module__", None) or "").startswith(ROOT)


def methods(cls: type) -> Iterator[tuple[str, Any, type]]:
    """Yield the public methods and properties that the package defines, with the defining class."""
    for name in dir(cls):
        try:
            value = getattr(cls, name)
        except AttributeError:  # another library's name: the message gives ours
            continue
        definer = next((c for c in cls.__mro__ if name in vars(c)), object)
        if name[0] == "_" or definer.__module__.split(".")[0] != ROOT:
            continue  # of a tuple, or of an exception
        if callable(value) or isinstance(value, property):
            yield name, value, definer


def describers(cls: type, name: str, home: dict[int, str]) -> list[str]:
    """Return the pages that may describe a member of a class, the class's own first.

    They are those of the public classes that have the member with the same docstring. An override
    with a docstring is a member of its own; without one it is that of the base.
    """
    defining = [c for c in cls.__mro__ if name in vars(c)]
    members = [(c, vars(c)[name]) for c in defining]
    written = [c for c, m in members if getattr(getattr(m, "__func__", m), "__doc__", None)]
    source = (written or defining)[0]
    return [home[id(c)] for c in cls.__mro__ if id(c) in home and issubclass(c, source)]


def members(cls: type, home: dict[int, str]) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the members that a class's page describes, links to, and inherits from other pages.

    Members that are functions of the package have pages of their own. The call of a module,
    `forward`, is described on the page of every module that defines or inherits one.
    """
    own, linked, inherited = [], [], {}
    for name, value, definer in methods(cls):
        if id(value) in home:
            linked.append(home[id(value)])
            continue
        page = describers(cls, name, home)[-1]
        if page == home[id(cls)] or (name == "forward" and definer is not tg.nn.Module):
            own.append(name)
        else:
            inherited[name] = page
    return own, linked, inherited


def public_bases(cls: type, home: dict[int, str]) -> list[type]:
    """Return the nearest bases of a class that have a page or are built into Python."""
    known = [c for c in cls.__mro__[1:-1] if id(c) in home or c.__module__ == "builtins"]
    return [c for c in known if not any(issubclass(o, c) for o in known if o is not c)]


# -- writing ---------------------------------------------------------------------------------------


def heading(text: str, line: str = "=") -> str:
    """Return a heading."""
    return f"{text}\n{line * len(text)}\n\n"


def table(names: list[str], path: str) -> str:
    """Return a table of names with the first lines of their docstrings."""
    lines = "\n".join(f"   ~{name.removeprefix(path + '.')}" for name in names)
    return f".. currentmodule:: {path}\n\n.. autosummary::\n\n{lines}\n\n"


def page(full: str, home: dict[int, str]) -> str:
    """Return the page of one object."""
    value, (path, _, name) = resolve(full), full.rpartition(".")
    short = full.replace(ROOT, "tg", 1)
    text = heading(short.replace("_", r"\_")) + f".. currentmodule:: {path}\n\n"
    if is_data(value):
        shown = f"``{value!r}``"
        if isinstance(value, dict):
            shown = f"A dict with the keys {', '.join(map(repr, value))}."
        return text + f".. py:data:: {name}\n\n   {shown}\n"
    if not inspect.isclass(value):
        return text + f".. autofunction:: {name}\n"
    kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
    own, linked, inherited = members(value, home)
    text += f".. {kind}:: {name}\n"
    text += "   :show-inheritance:\n" if public_bases(value, home) else ""
    text += f"   :members: {', '.join(own)}\n\n" if own else "\n"
    if linked:
        text += heading("Methods that are also functions", "-") + table(linked, path)
    return text + inherited_links(inherited)


def inherited_links(inherited: dict[str, str]) -> str:
    """Return one paragraph of links for each class that describes inherited members."""
    text = ""
    for base in dict.fromkeys(inherited.values()):
        names = [name for name, describer in inherited.items() if describer == base]
        links = ", ".join(f":py:obj:`{name} <{base}.{name}>`" for name in names)
        text += f"Of :py:obj:`{base.rpartition('.')[2]} <{base}>`: {links}.\n\n"
    return heading("Inherited", "-") + text if text else ""


def module_page(path: str, modules: dict[str, list[str]], home: dict[int, str]) -> str:
    """Return the page of one public module: its docstring, and its names, grouped by origin."""
    module = resolve(path)
    short = path.replace(ROOT, "tg", 1)
    text = heading(short) + f".. automodule:: {path}\n\n"
    groups: dict[str, list[str]] = {}
    for name in modules[path]:
        groups.setdefault(group(getattr(module, name)), []).append(home[id(getattr(module, name))])
    order = [*dict.fromkeys(HEADINGS.values())]
    order += [title for title in groups if title not in order]
    for title in sorted(groups, key=order.index):
        text += heading(title, "-") if len(modules[path]) > 8 else ""
        data = [full for full in groups[title] if is_data(resolve(full))]
        described = [full for full in groups[title] if full not in data]
        text += table(described, path) if described else ""
        text += ", ".join(f":py:data:`~{full}`" for full in data) + "\n\n"
    entries = [home[id(getattr(module, name))] for name in modules[path]]
    entries = [entry for entry in entries if entry.rpartition(".")[0] == path]
    listed = "".join(f"   {entry.replace(ROOT, 'tg', 1)} <{entry}>\n" for entry in entries)
    return text + f".. toctree::\n   :hidden:\n\n{listed}"


HEADINGS = {  # by the defining module; other modules have the first words of their docstring
    "engine.tensor": "Tensors",
    "tensors.creation": "Tensors",
    "tensors.dlpack": "Tensors",
    "engine.autograd": "Gradients",
    "transforms.derivatives": "Gradients",
    "testing.gradient_check": "Gradients",
    "transforms.checkpoint": "Gradients",
    "engine.grad_mode": "Recording",
    "transforms.anomaly": "Recording",
    "recurrence.loop": "Recurrence",
    "engine.primitive": "Operations of your own",
    "ops.arithmetic": "Element by element",
    "ops.comparison": "Element by element",
    "ops.elementwise": "Element by element",
    "ops.exponential": "Element by element",
    "ops.shape": "Shapes",
    "ops.reduce": "Over axes",
    "ops.linalg": "Products",
    "ops.softmax": "Softmax and its logarithm",
    "ops.indexing": "Indexing",
    "engine.backend": "Dtypes",
    "random": "Random numbers",
    "io.checkpoint_file": "Files",
    "transforms.fuse": "Speed",
    "engine.config": "Speed",
    "io.safetensors": "Files",
}


def group(value: Any) -> str:
    """Return the heading for a name on its module's page."""
    if is_data(value):
        return "Dtypes" if "dtype" in type(value).__name__.lower() else "Values"
    origin = value.__module__
    module = origin.removeprefix(f"{ROOT}.")
    family = re.sub(r"^(engine\.ops|tensors)\.", "ops.", module)  # a primitive or made of them
    first = (inspect.getdoc(importlib.import_module(origin)) or origin).split("\n")[0]
    return HEADINGS.get(module) or HEADINGS.get(family) or re.split(r"[:;,.]", first)[0]


def write(app: Sphinx) -> None:
    """Write the pages that changed, and remove those of names that no longer exist."""
    folder = Path(app.srcdir) / GENERATED
    folder.mkdir(exist_ok=True)
    modules = walk()
    home = homes(modules)
    files = {full: page(full, home) for full in home.values()}
    files |= {path: module_page(path, modules, home) for path in modules}
    listed = "".join(f"   {path.replace(ROOT, 'tg', 1)} <{path}>\n" for path in modules)
    files["index"] = heading("Reference") + INTRODUCTION + f".. toctree::\n\n{listed}"
    for old in folder.glob("*.rst"):
        if old.stem not in files:
            old.unlink()
    for name, text in files.items():
        file = folder / f"{name}.rst"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


INTRODUCTION = """\
Every public name, from its docstring. ``tg`` is the package: ``import tinygrad_rnn as tg``. Array
semantics are NumPy's, names of networks and their arguments PyTorch's; the letters of shapes are
T (time steps), B (batch), I (input size), H (hidden size), V (vocabulary).
A module is called like a function, ``layer(x)``: its ``forward`` describes the arguments.

"""


# -- checking --------------------------------------------------------------------------------------


def undocumented(described: set[str]) -> list[str]:
    """Return the public names, and members of public classes, that no page describes.

    This uses ``dir``, not the functions that write the pages, so that it finds their omissions. A
    member that a class overrides with a docstring of its own must be on the page of this class.
    """
    modules = walk()
    home = homes(modules)
    missing = [full for full in home.values() if full not in described]
    for path in modules:
        for name, value in vars(resolve(path)).items():
            if name[0] != "_" and getattr(value, "__module__", None) == path:
                if callable(value) and id(value) not in home:
                    missing.append(f"{path}.{name}")
    for full in home.values():
        cls = resolve(full)
        if not inspect.isclass(cls):
            continue
        for name, value, _ in methods(cls):
            pages = describers(cls, name, home)
            if id(value) not in home and not any(f"{page}.{name}" in described for page in pages):
                missing.append(f"{full}.{name}")
    return missing


def check(app: Sphinx, env: Any) -> None:
    """Fail the build if the reference lacks a name."""
    described = set(env.domaindata["py"]["objects"])
    missing = undocumented(described)
    if missing:
        raise ExtensionError("public names that the reference lacks: " + ", ".join(missing))
    print(f"reference: {sum(name.startswith(ROOT) for name in described)} names, none missing")


# -- linking ---------------------------------------------------------------------------------------


def spelled_short(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """Link a name that is written relative to the package: ``tg.grad``, ``nn.Cell``."""
    if node.get("refdomain") != "py":
        return None
    full = f"{ROOT}.{node.get('reftarget', '').removeprefix('tg.')}"
    entry = env.get_domain("py").objects.get(full)
    if entry is None:
        return None
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, full)


def show_public_bases(app: Sphinx, name: str, obj: type, options: Any, bases: list[Any]) -> None:
    """Show a class's nearest public bases, without private classes in between."""
    bases[:] = public_bases(obj, homes(walk()))


STARS = re.compile(r"(?<=[( ])(\*)(?=[A-Za-z][\w.]*[,)])")  # (*leading, H)
BARS = re.compile(r"(?<!\\)\|(?=\S)(.*?\S)\|")  # max |x|


def escape_marks(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Escape the marks of (*leading, H) and |x|; code and formulas are not changed."""
    directive = None  # the indentation of the directive that a line may belong to
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip() and directive is not None and indent <= directive:
            directive = None
        if line.lstrip().startswith(".. "):
            directive = indent
        if directive is None and not line.lstrip().startswith((">>>", "...")) and "``" not in line:
            lines[number] = BARS.sub(r"\\|\1\\|", STARS.sub(r"\\\1", line))


def setup(app: Sphinx) -> dict[str, bool]:
    """Write before the sources are read, check afterwards."""
    app.connect("builder-inited", write)
    app.connect("env-check-consistency", check)
    app.connect("missing-reference", spelled_short)
    app.connect("autodoc-process-bases", show_public_bases)
    app.connect("autodoc-process-docstring", escape_marks, priority=400)  # before numpydoc's
    return {"parallel_read_safe": True, "parallel_write_safe": True}
