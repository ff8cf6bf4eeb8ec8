"""Exercises that check themselves: the directive ``exercise``, and the same as cells of a notebook.

``docs/exercises/NAME.py`` is one exercise, a module with

- a docstring: the first line is the title, the rest is the task, in Markdown;
- ``stub``: the start that a reader gets;
- ``check(answer)``: raises AssertionError, with a hint, if the function ``answer`` is wrong;
- ``solution`` and ``wrong``: a right answer, and a plausible wrong one.

A page shows an exercise with

    ```{exercise} NAME
    ```

as its title, its task, the stub, the check and the solution; the last two are folded. A block of
code has the imports, constants and functions of the module that it needs, so it can be copied.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).parents[1] / "exercises"
PARTS = ("stub", "check", "solution", "wrong")


class Exercise(NamedTuple):
    """The parts of an exercise, as text; in the code, the reader's function is ``answer``."""

    name: str
    title: str
    task: str
    stub: str
    check: str
    solution: str


def names() -> list[str]:
    """Return the names of all exercises."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if file.stem[0] != "_")


def load(name: str, folder: Path = FOLDER) -> Exercise:
    """Read an exercise, without running it."""
    source = (folder / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    title, _, task = (ast.get_docstring(tree) or "").partition("\n")
    found = {part: defined(tree, part) for part in PARTS}
    missing = [part for part, at in found.items() if at is None]
    if missing or not task.strip():
        raise ValueError(f"the exercise {name!r} lacks {', '.join(missing) or 'a task'}")
    stub, check, solution = (needed(tree, part) for part in PARTS[:3])
    # The reader's file begins with every import that the stub or the solution needs.
    imports = [node for node in solution if isinstance(node, ast.Import | ast.ImportFrom)]
    stub = [node for node in tree.body if node in stub or node in imports]
    solution = [node for node in solution if node not in stub or node is found["stub"]]
    return Exercise(
        name,
        title.rstrip("."),
        task.strip(),
        as_answer("stub", written(source, stub)),
        written(source, check),
        as_answer("solution", written(source, solution)),
    )


def binds(node: ast.stmt) -> set[str]:
    """Return the names that a statement of a module defines."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    return {
        child.id
        for child in ast.walk(node)
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)
    }


def defined(tree: ast.Module, name: str) -> ast.stmt | None:
    """Return the statement that defines a name."""
    return next((node for node in tree.body if name in binds(node)), None)


def needed(tree: ast.Module, name: str) -> list[ast.stmt]:
    """Return the statements that a function needs, and its own, in the order of the module."""
    found, waiting = [], [defined(tree, name)]
    while waiting:
        node = waiting.pop()
        if node is None or node in found:
            continue
        found.append(node)
        used = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
        waiting += [defined(tree, other) for other in used]
    return [node for node in tree.body if node in found]


def written(source: str, statements: list[ast.stmt]) -> str:
    """Return the source of statements, with the comments above them."""
    lines, parts = source.splitlines(), []
    for node in statements:
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
        while start and lines[start - 1].startswith("#"):
            start -= 1
        parts.append(("\n".join(lines[start : node.end_lineno]), node))
    text = ""
    for part, node in parts:
        apart = isinstance(node, ast.FunctionDef | ast.ClassDef)
        text += ("\n\n" if apart and text else "") + part + "\n" + ("\n" if apart else "")
    return re.sub(r"\n{4,}", "\n\n\n", text).strip()


def as_answer(name: str, text: str) -> str:
    """Return code in which a function is called ``answer``, as in the reader's file."""
    return re.sub(rf"\b{name}(?=\()", "answer", text)


def cells(name: str) -> list[tuple[str, str]]:
    """Return an exercise as cells of a notebook: pairs of ``markdown`` or ``code`` and the text."""
    exercise = load(name)
    solution = f"<details><summary>Solution</summary>\n\n```python\n{exercise.solution}\n```\n"
    return [
        ("markdown", f"**Exercise: {exercise.title}.**\n\n{exercise.task}"),
        ("code", exercise.stub),
        ("code", f"{exercise.check}\n\n\ncheck(answer)  # an AssertionError has a hint"),
        ("markdown", f"{solution}\n</details>"),
    ]


class Directive(SphinxDirective):
    """Show an exercise."""

    required_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        """Return the nodes of an exercise."""
        name = self.arguments[0]
        try:
            exercise = load(name)
        except (OSError, ValueError, SyntaxError) as error:
            known = ", ".join(names())
            raise self.error(f"exercise {name!r}: {error}; there are {known}") from error
        self.env.note_dependency(str(FOLDER / f"{name}.py"))
        command = f"python docs/exercises {name} my_answer.py"
        how = "Write your answer to `my_answer.py` and check it, in the cloned folder, with\n"
        check = f"{exercise.check}\n\n\ncheck(answer)"
        found: list[nodes.Node] = [
            nodes.title("", "", *self.parse_inline(f"Exercise: {exercise.title}")[0]),
            *self.parse_text_to_nodes(exercise.task),
            code(exercise.stub),
            *self.parse_text_to_nodes(how),
            code(command, "console"),
            *folded("The check, for a notebook: run it after your answer", code(check)),
            *folded("Solution", code(exercise.solution)),
        ]
        return [nodes.admonition("", *found, classes=["exercise"], ids=[f"exercise-{name}"])]


def code(text: str, language: str = "python") -> nodes.literal_block:
    """Return a block of code."""
    return nodes.literal_block(text, text, language=language)


def folded(summary: str, *content: nodes.Node) -> list[nodes.Node]:
    """Return content that a page shows after a click on its summary."""
    start = f"<details><summary>{summary}</summary>"
    return [
        nodes.raw("", start, format="html"),
        *content,
        nodes.raw("", "</details>", format="html"),
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("exercise", Directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
