"""The CUDA text of all kernels compiles, without registers in memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nvcc
import tinygrad_rnn as tg
from tinygrad_rnn.recurrence import loop
from tinygrad_rnn.speed import scan
from tinygrad_rnn.speed.cuda import emit
from tinygrad_rnn.speed.device_call import DevicePlan
from tinygrad_rnn.speed.fuse import Fused
from tinygrad_rnn.speed.loops import Loop
from tinygrad_rnn.speed.step_trace import StepTrace

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from cells import CELLS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        nvcc.unavailable_because() is not None, reason=str(nvcc.unavailable_because())
    ),
]
B, N, H = 32, 28, 256
LAYERS: dict[str, Any] = {
    "RNN": lambda: tg.nn.RNN(N, H),
    "GRU": lambda: tg.nn.GRU(N, H),
    "LSTM": lambda: tg.nn.LSTM(N, H),
    "projection": lambda: tg.nn.LSTM(N, H, proj_size=64),
    **{f"{n} cell": lambda cell=cell: tg.nn.Recurrent(cell, N, H) for n, cell in CELLS.items()},
}


def compile_all(texts: list[str], folder: Path, architectures: tuple[int, ...]) -> int:
    """Compile texts for some architectures; return the number of kernels."""
    source, parts = folder / "kernel.cu", ["#include <stdint.h>\n"]
    for i, text in enumerate(texts):  # one call of the compiler for all
        text = text.replace('extern "C" __global__', "__global__")
        parts.append(f"#undef PLACE\n#undef P\nnamespace text{i} {{\n{text}\n}}\n")
    source.write_text("".join(parts))
    targets = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in architectures]
    command = ["nvcc", "-std=c++17", "-fatbin", "--fmad=false", "-Xptxas", "-v"]
    command += ["-diag-suppress=177", *targets, str(source), "-o", str(folder / "kernel.fatbin")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert spilled and set(spilled) == {("0", "0")}, done.stderr
    return len(spilled) // len(architectures)


def plans(layer: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> list[DevicePlan]:
    """The plans of the loops of a layer for a GPU; the steps are traced on the CPU."""
    found: list[DevicePlan] = []

    def plan(trace: StepTrace, state: Any) -> Any:
        found.append(DevicePlan(trace))
        return original(trace, state)

    original = scan._plan
    monkeypatch.setattr(scan, "_plan", plan)
    x = tg.tensor(np.zeros((3, B, N), dtype), requires_grad=True)
    with loop.reports() as reports:
        layer.to(dtype)(x)
    assert all(r.traced for r in reports)
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_the_kernels_of_a_cell(
    name: str, dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_plans: None
) -> None:
    (plan,) = plans(LAYERS[name](), dtype, monkeypatch)
    _, backward = plan.backward_loop((0,))
    loops = plan.forward_loop, backward
    number = [*LAYERS].index(name) + (dtype is np.float64)
    texts = [text for x in loops for text in (x.source, x.on_table)]
    count = compile_all(texts, tmp_path, nvcc.architectures(number))
    assert count == 2 * sum(len(x.stages.shapes) + len(x.copies) for x in loops)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_kernels_of_fused_functions(dtype: Any, tmp_path: Path) -> None:
    fused = tg.fuse(
        lambda z, c, s: (
            tg.sigmoid(z[..., :4]) * tg.tanh(z[..., 4:]) * s + c**3,
            tg.where(c > 0, tg.sin(c), tg.log1p(tg.exp(c))),
        )
    )
    assert isinstance(fused, Fused)
    plan = fused.plan(tg.zeros(5, 3, 8, dtype=dtype), tg.zeros(3, 4, dtype=dtype), 0.5)
    kernels = plan.forward, plan.recording, plan.backward((0, 1), (True, True))[2]
    for number, kernel in enumerate(kernels):
        loop = Loop(kernel.steps, kernel.inputs, kernel.results, any_size=True)
        texts = [emit.fused_kernel(loop, kernel.inputs, axes) for axes in (1, 3)]
        assert compile_all(texts, tmp_path, nvcc.architectures(number)) == 2
