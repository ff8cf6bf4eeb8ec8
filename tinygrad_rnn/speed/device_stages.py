"""The stages of a step as CUDA kernels: one kernel for all elementwise work between two products.

A block of threads has one row of the batch, or a part of it. A stage with sums over a row, or with
loops that read the results of others, has one block for each row, which waits between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .cuda.emit import with_functions
from .cuda.module import THREADS
from .expressions import Expression, needed
from .loops import c_type
from .stage_loop import StageLoop
from .stages import Stages

WARP = 32

# `at` has the addresses of the arrays at a step, `row` the bytes from one row to the next; a mask
# has a byte for each sequence of the batch, which is `group` rows.
STRUCTURES = """
struct Place {{ char *at[{buffers}]; const uint8_t *alive, *edge_alive; double edge; }};
struct Form {{ int64_t row[{buffers}], size[{sizes}], group; double number[{numbers}]; }};
"""

BY_VALUE = "#define PLACE const Place P\n"
TABLE = "#define PLACE const Place *const place\n#define P (*place)\n"

HEAD = """
extern "C" __global__ void {name}(PLACE, const Form F)
{{
    char *const *at = P.at;
    const int64_t *row = F.row, *size = F.size;
    const double *number = F.number;
    const int64_t r = blockIdx.x, first = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    const int64_t step = (int64_t)gridDim.y * blockDim.x;
"""

SUM = """
template <class T> static __device__ T block_sum(T x)
{
    __shared__ T part[32];
    for (int by = 16; by; by /= 2) x += __shfl_xor_sync(0xffffffffu, x, by);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int k = 0; k < (int)blockDim.x / 32; k++) x += part[k];
    __syncthreads();
    return x;
}
"""


class Copy(NamedTuple):
    """An operation on the rows of an array before, between or after the steps."""

    kind: str  # begin, finish: always; ended, scale: of some rows; zero
    out: int  # the numbers of the arrays
    operand: int  # -1: zero
    dtype: Any
    width: int


class DeviceStages(Stages):
    """The operations of one time step, and the CUDA text of its stages.

    Attributes
    ----------
    shapes : list of (int, int)
        For each stage the threads of a block, and the blocks of a row.
    """

    def __init__(self, *args: Any) -> None:
        self.shapes: list[tuple[int, int]] = []
        self._widths: list[int] = []
        self.operands: dict[Expression, tuple[str, int]] = {}
        super().__init__(*args)

    def _split_sums(
        self,
        given: dict[Expression, str],
        targets: Sequence[tuple[Expression, str]],
        added: Sequence[tuple[Expression, str]],
        rooms: set[str],
    ) -> Sequence[tuple[Expression, str]]:
        readers: dict[Any, int] = {}
        wanted = [x for x, _ in (*targets, *added)]
        for x in (*wanted, *(a for y in needed(wanted, given) for a in y.args)):
            if x.__class__ is Expression:
                readers[x] = readers.get(x, 0) + 1
        found = []
        for x, name in targets:
            while x.op == "add" and name in rooms and readers[x] == 1 and x not in given:
                product = next((a for a in x.args[::-1] if self._is_summand(a, x, readers)), None)
                if product is None:
                    break
                other = x.args[1] if x.args[0] is product else x.args[0]
                self.sums[product] = name, other
                x = other
            found.append((x, name))
        return found

    def _is_summand(self, a: Any, x: Expression, readers: dict[Any, int]) -> bool:
        """Tell whether `a` is a product that only the sum `x` with another value reads."""
        one, two = x.args
        other: Any = two if a is one else one
        return (
            a.__class__ is Expression
            and a.op == "matmul"
            and a.varies
            and readers[a] == 1
            and other.__class__ is Expression
            and other.varies
            and other.sizes == a.sizes == x.sizes
            and other.dtype == a.dtype
        )

    def _loop(self, loop: StageLoop) -> str:
        lines, used = loop.parts()
        self._widths.append(loop.width)
        found = [
            f"{T} *const {name} = {at};" if at else f"{T} {name}[] = {{ {number} }};"
            for T, name, at, number in used
        ]
        inside = "\n            ".join(lines)
        found.append(
            f"for (int64_t i = first; i < {self.size(loop.width)}; i += step) {{\n"
            f"            {inside}\n        }}"
        )
        return "    {\n        " + "\n        ".join(found) + "\n    }"

    def _reduction(self, op: str, T: str, out: str, operand: str, length: str) -> str:
        return (
            f"    {{\n        const {T} *const x = {operand};\n        {T} total = 0;\n"
            f"        for (int64_t i = first; i < {length}; i += step) total += x[i];\n"
            f"        total = block_sum(total);\n"
            f"        if (threadIdx.x == 0) *{out} = total;\n    }}"
        )

    def _function(self, number: int, stage: list[list[str]]) -> str:
        width, self._widths = max(self._widths, default=1), []
        threads = min(THREADS, -(-width // WARP) * WARP)
        one_block = len(stage) > 1
        self.shapes.append((threads, 1 if one_block else -(-width // threads)))
        levels = ["\n".join(texts) for texts in stage]
        return (
            HEAD.format(name=f"stage{number}")
            + "    if (P.alive && !P.alive[r / F.group]) return;\n"
            + "\n    __syncthreads();\n".join(levels)
            + "\n}\n"
        )

    def _source(self, functions: list[str]) -> str:
        return "".join(functions)

    def _assign_memory(self) -> None:
        super()._assign_memory()
        for x in self.steps:  # a product reads memory that the loop provides
            if x.op == "matmul":
                left = x.args[0]
                name, _ = self.place[left]
                if left in self.level and name not in self.scratch and name not in self.rooms:
                    self.operands[left] = self._scratch(left), 0
                    self.stores.append((left, self.operands[left][0], 0))

    def _operand_place(self, x: Expression) -> tuple[str, int]:
        return self.operands.get(x) or self.place[x]

    def text(self, copies: dict[str, list[Copy]], table: bool) -> str:
        """Return the CUDA text of all kernels of the loop.

        `copies` are further kernels; `table`: the argument ``Place`` is in memory of the device.
        """
        found = [TABLE if table else BY_VALUE, self.source]
        if "block_sum(" in self.source:
            found.insert(1, SUM)
        for kernel, items in copies.items():
            lines = [
                "const bool ended = P.alive && !P.alive[r / F.group];",
                "const bool scaled = P.edge != 1 && (!P.edge_alive || P.edge_alive[r / F.group]);",
            ]
            for kind, out, operand, dtype, width in items:
                T = c_type(dtype)
                value = {
                    "scale": f"P.edge == 0 ? 0 : out[i] * ({T})P.edge",
                    "begin": "in ? in[i] : 0",
                }.get(kind, "in[i]" if operand >= 0 else "0")
                condition = {"scale": "if (scaled) ", "ended": "if (ended) "}.get(kind, "")
                source = f"const {T} *in = ({T} *)(at[{operand}] + r * row[{operand}]); "
                if kind == "begin":
                    source = source.replace("= (", f"= !at[{operand}] ? 0 : (", 1)
                lines.append(
                    f"{{ {T} *out = ({T} *)(at[{out}] + r * row[{out}]); "
                    f"{source if operand >= 0 else ''}{condition}"
                    f"for (int64_t i = first; i < {self.size(width)}; i += step) "
                    f"out[i] = {value}; }}"
                )
            body = "\n    ".join(lines)
            found.append(f"{HEAD.format(name=kernel)}    {body}\n}}\n")
        structures = STRUCTURES.format(
            buffers=max(1, len(self.buffers)),
            sizes=max(1, len(self.sizes)),
            numbers=max(1, len(self.numbers)),
        )
        return with_functions("".join([structures, *found]))
