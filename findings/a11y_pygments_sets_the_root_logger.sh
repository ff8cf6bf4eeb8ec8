#!/usr/bin/env bash
# accessible-pygments 0.0.5: an import of its styles sets the level and the handler of Python's root
# logger.
#
# `a11y_pygments/__init__.py` calls logging.basicConfig(level=INFO). Pygments imports it when a style
# such as "a11y-high-contrast-light" is asked for by name, as Sphinx does for `pygments_style`. All
# messages of level INFO of all libraries are then printed on stderr, such as nbclient's one line for
# each notebook.
#
# Seen: before, the root logger has the level WARNING and no handler; then INFO and a handler.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pygments==2.19.2 accessible-pygments==0.0.5
"$folder/venv/bin/python" - <<'PYTHON'
import logging

from pygments.styles import get_style_by_name


def root() -> tuple[str, int]:
    return logging.getLevelName(logging.root.level), len(logging.root.handlers)


before = root()
get_style_by_name("a11y-high-contrast-light")
logging.getLogger("some library").info("nobody has asked for this line")
print("before:", before, "after:", root())
assert before == ("WARNING", 0) and root() == ("INFO", 1)
PYTHON
