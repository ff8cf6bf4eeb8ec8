"""The generated code of one operation, compared with a file that a reader can open.

After a change of the template, renew the file and review the difference:

    python tests/core/engine/test_golden.py
"""

from __future__ import annotations

from pathlib import Path

import tinygrad_rnn as tg

FILE = Path(__file__).parent / "golden" / "multiply.py"
DIVIDER = "\n# -- the generated code: everything below this line --\n\n\n"


def test_the_source_of_multiply_is_that_of_the_file() -> None:
    _, divider, golden = FILE.read_text(encoding="utf-8").partition(DIVIDER)
    assert divider
    assert golden == tg.multiply.definition.source, (
        f"the generated code of multiply is not that of {FILE.name}. If the change is intended, "
        "run `python tests/core/engine/test_golden.py` and review the difference"
    )


if __name__ == "__main__":
    head, divider, _ = FILE.read_text(encoding="utf-8").partition(DIVIDER)
    FILE.write_text(head + divider + tg.multiply.definition.source, encoding="utf-8")
