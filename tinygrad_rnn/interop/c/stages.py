"""The stages of a step in C99: the lines of one function, and the constants that it reads.

The lowering is that of the loops over time (`speed.stages`): elementwise loops between matrix
products. Here all sizes and numbers are written in the source, and arrays have names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...speed.expressions import Expression
from ...speed.loops import c_type
from ...speed.stage_loop import StageLoop
from ...speed.stages import Stages

LOOP = """    {{
{arrays}
        for (int i = 0; i < {width}; i++) {{
            {lines}
        }}
    }}"""


class CStages(Stages):
    """The operations of a step in C.

    Parameters
    ----------
    given : dict of Expression to str
        The state and the input, and their names in C.
    targets : list of (Expression, str)
        The new state and the output, and their names.

    Attributes
    ----------
    bodies : list of str
        The lines of each stage.
    """

    def __init__(
        self, given: dict[Expression, str], targets: Sequence[tuple[Expression, str]]
    ) -> None:
        self.bodies: list[str] = []
        super().__init__(given, targets, [], {name for _, name in targets})

    def pointer(self, name: str, T: str) -> str:
        """Return the C expression of the address of an array."""
        self.number_of(name)
        return name

    def size(self, n: int) -> str:
        """Return a length."""
        return str(n)

    def constant(self, x: Any) -> Any:
        """Return a number, which is written in the source."""
        return x

    def _loop(self, loop: StageLoop) -> str:
        lines, used = loop.parts()
        arrays = "\n".join(f"        {T} *const {name} = {at};" for T, name, at, _ in used)
        inside = "\n            ".join(lines)
        return LOOP.format(arrays=arrays.replace(" + 0;", ";"), width=loop.width, lines=inside)

    def _reduction(self, op: str, T: str, out: str, operand: str, length: str) -> str:
        return f"    {out}[0] = {op}_{T}({operand.removesuffix(' + 0')}, {length});"

    def _function(self, number: int, stage: list[list[str]]) -> str:
        self.bodies.append("\n".join(text for texts in stage for text in texts))
        return ""

    def _source(self, functions: list[str]) -> str:
        return ""

    def text(self, product: str) -> str:
        """Return the lines of the step.

        Parameters
        ----------
        product : str
            The call of a product, with the fields ``weight``, ``out``, ``operand``, ``rows`` (of
            the weight) and ``columns``.
        """
        lines = [
            f"    {c_type(t.dtype)} {name}[{t.width}];" for name, t in self.scratch.items()
        ]  # fmt: skip
        for o in self.operations:
            if o.kind == "stage":
                lines.append(self.bodies[o.which])
                continue
            start = o.offset // o.dtype.itemsize
            lines.append(
                "    "
                + product.format(
                    weight=f"w{self.weights[o.which]}",
                    out=o.out,
                    operand=o.operand + (f" + {start}" if start else ""),
                    rows=o.which.sizes[0],
                    columns=o.columns,
                )
            )
        return "\n".join(lines)

    @property
    def scratch_bytes(self) -> int:
        """The memory of the values between the operations of a step."""
        return sum(math.prod((t.width, t.dtype.itemsize)) for t in self.scratch.values())
