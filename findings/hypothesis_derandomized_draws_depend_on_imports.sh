#!/usr/bin/env bash
# Hypothesis 6.155.2: with derandomize=True a test still draws other examples when another module of
# the project has been imported.
#
# Hypothesis collects the constants in the source of all local modules that are imported (not those
# of installed packages), and mixes them into its draws. So the examples of a "derandomized" test
# depend on the test files that were collected before it, and on how they are dealt to workers.
#
# Seen, for 200 integers drawn twice in one process, with a module of three constants imported in
# between: the two lists differ, and the second one has constants of that module.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet hypothesis==6.155.2
echo 'TABLE = [123456789, 987654321, 271828]' >"$folder/constants.py"
cat >"$folder/draws.py" <<'PYTHON'
from importlib import metadata

from hypothesis import Phase, given, settings
from hypothesis import strategies as st


def drawn() -> list[int]:
    seen = []

    @settings(derandomize=True, database=None, max_examples=200, phases=[Phase.generate])
    @given(st.integers())
    def test(x: int) -> None:
        seen.append(x)

    test()
    return seen


before = drawn()
assert before == drawn()  # the same without an import in between
import constants  # noqa: E402

after = drawn()
found = sorted(set(after) & set(constants.TABLE))
print("hypothesis", metadata.version("hypothesis"), "same draws:", before == after, "found:", found)
assert before != after and found and not set(before) & set(constants.TABLE)
PYTHON
"$folder/venv/bin/python" "$folder/draws.py"
