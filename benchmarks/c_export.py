"""Tokens per second of a language model as a C file, compared with onnxruntime on one core.

    python benchmarks/c_export.py [--hidden 256] [--embedding 128] [--cell lstm] [--json]

The model of the main job with random weights: an embedding, one LSTM or GRU, a linear layer over
104 characters. The C file, in float and in int8, is compiled with ``-O3 -march=native`` and with
``-O2``, and generates greedily. onnxruntime, with one thread and IO binding, takes the same steps,
each a call of its session. The time of a call that computes nothing (a graph of Identity nodes with
the same inputs and outputs) is measured too: "onnxruntime, without the calls" is without it.
onnxruntime's row is left out where ``onnx`` and ``onnxruntime`` are not installed. Medians of
rounds in turns.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_rnn as tg

CELLS = {"lstm": tg.nn.LSTMCell, "gru": tg.nn.GRUCell}
FLAGS = {"-O3 -march=native": ["-O3", "-march=native"], "-O2": ["-O2"]}
STEPS = 500  # of a round
# Prints the sum of the tokens, and the seconds for the steps of one round.
MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int main(int argc, char **argv)
{
    static float state[STATE_SIZE], y[OUTPUT_SIZE];
    uint32_t seed = 0;
    struct timespec a, b;
    const int steps = argc > 1 ? atoi(argv[1]) : 1;
    int token = 1, sum = 0;
    init_state(state);
    timespec_get(&a, TIME_UTC);
    for (int i = 0; i < steps; i++) {
        step_token(token, state, y);
        token = draw(y, 0, &seed);
        sum += token;
    }
    timespec_get(&b, TIME_UTC);
    const double spent = 1e9 * (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec);
    printf("%d %.9f\\n", sum, 1e-9 * spent);
    return 0;
}
"""


def program(folder: Path, name: str, file: Path, flags: list[str]) -> Path:
    """Compile the file with a main program."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit("c_export.py: no C compiler (cc, gcc, clang) is installed")
    source, made = folder / f"{name}.c", folder / name
    source.write_text(file.read_text("utf-8") + MAIN, "utf-8")
    subprocess.run([compiler, "-std=c11", *flags, str(source), "-o", str(made), "-lm"], check=True)
    return made


def seconds(made: Path) -> float:
    """Run a program for one round; return the seconds of a step."""
    done = subprocess.run([str(made), str(STEPS)], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[1]) / STEPS


# -- onnxruntime -----------------------------------------------------------------------------------


def onnx_step(model: tg.models.RecurrentLM, cell: str) -> Any:
    """Return the model's step as an ONNX graph: (token, states) to (logits, states)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    order = (
        [0, 3, 1, 2] if cell == "lstm" else [1, 0, 2]
    )  # ours i f g o, theirs i o f c; r z n, z r h
    count, inner = len(order), model.rnn.cells[0]

    def reordered(x: Any) -> np.ndarray:
        return np.concatenate([np.split(x.numpy(), count)[k] for k in order])

    arrays = {
        "table": model.embedding.weight.numpy(),
        "W": reordered(inner.weight_ih)[None],
        "R": reordered(inner.weight_hh)[None],
        "B": np.concatenate([reordered(inner.bias_ih), reordered(inner.bias_hh)])[None],
        "head": np.ascontiguousarray(model.head.weight.numpy().T),
        "bias": model.head.bias.numpy(),
    }
    H, V = inner.weight_hh.shape[1], model.vocab_size
    states = ["h", "c"][: 2 if cell == "lstm" else 1]
    inputs = ["x", "W", "R", "B", "", *states]
    options = {"linear_before_reset": 1} if cell == "gru" else {}
    made = ["", *[f"{s}_new" for s in states]]
    nodes = [
        helper.make_node("Gather", ["table", "token"], ["x"]),
        helper.make_node(cell.upper(), inputs, made, hidden_size=H, **options),
        helper.make_node("Gemm", ["flat", "head", "bias"], ["logits"]),
    ]
    nodes.insert(2, helper.make_node("Squeeze", ["h_new", "axis"], ["flat"]))
    arrays["axis"] = np.array([0], np.int64)
    real, integer = TensorProto.FLOAT, TensorProto.INT64
    declared = [helper.make_tensor_value_info("token", integer, [1, 1])]
    declared += [helper.make_tensor_value_info(s, real, [1, 1, H]) for s in states]
    results = [helper.make_tensor_value_info("logits", real, [1, V])]
    results += [helper.make_tensor_value_info(f"{s}_new", real, [1, 1, H]) for s in states]
    constants = [numpy_helper.from_array(x, name) for name, x in arrays.items()]

    def session_model(nodes: list[Any], constants: list[Any], results: list[Any]) -> bytes:
        graph = helper.make_graph(nodes, "step", declared, results, constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made)
        return made.SerializeToString()

    empty = [helper.make_node("Identity", [s], [f"{s}_new"]) for s in states]
    empty.append(helper.make_node("Identity", ["token"], ["logits"]))
    nothing = [helper.make_tensor_value_info("logits", integer, [1, 1]), *results[1:]]
    return session_model(nodes, constants, results), session_model(empty, [], nothing), states, H


def onnx_rounds(model: tg.models.RecurrentLM, cell: str) -> dict[str, Callable[[], float]]:
    """Return functions that run one round in onnxruntime: the steps, and calls of nothing."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    full, empty, states, H = onnx_step(model, cell)
    found = {}
    for name, data in {"steps": full, "calls": empty}.items():
        session = ort.InferenceSession(data, options, ["CPUExecutionProvider"])

        def round_(session: Any = session, draws: bool = name == "steps") -> float:
            token = np.ones((1, 1), np.int64)
            before = {s: np.zeros((1, 1, H), np.float32) for s in states}
            logits = np.empty(
                (1, model.vocab_size) if draws else (1, 1), np.float32 if draws else np.int64
            )
            binding = session.io_binding()
            # States are written where they are read: each node has read them before it writes.
            after = {s: np.empty_like(x) for s, x in before.items()}
            binding.bind_cpu_input("token", token)
            for s in states:
                binding.bind_cpu_input(s, before[s])
            for key, x in {"logits": logits, **{f"{s}_new": after[s] for s in states}}.items():
                kind = np.int64 if x.dtype == np.int64 else np.float32
                binding.bind_output(key, "cpu", 0, kind, x.shape, x.ctypes.data)
            spent = 0.0
            for _ in range(STEPS):
                start = time.perf_counter()
                session.run_with_iobinding(binding)
                spent += time.perf_counter() - start
                for s in states:
                    before[s][:] = after[s]
                if draws:
                    token[:] = 1 + logits[0, 1:].argmax()
            return spent / STEPS

        found[name] = round_
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--embedding", type=int, default=128)
    parser.add_argument("--cell", choices=list(CELLS), default="lstm")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # and the programs that it starts
    tg.manual_seed(0)
    vocab = tg.data.text.Vocabulary(map(chr, range(33, 136)))
    model = tg.models.RecurrentLM(
        CELLS[args.cell], vocab, args.hidden, embedding_dim=args.embedding
    )
    runs: dict[str, Callable[[], float]] = {}
    sizes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for int8 in (False, True):
            kind = "int8" if int8 else "float"
            file = Path(folder, f"model_{kind}.c")
            sizes[kind] = tg.interop.save_c(file, model, int8=int8)
            for text, flags in FLAGS.items():
                made = program(Path(folder), f"{kind}{len(runs)}", file, flags)
                runs[f"C, {kind}, {text}"] = lambda made=made: seconds(made)
        if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
            found = onnx_rounds(model, args.cell)
            runs["onnxruntime"], runs["calls"] = found["steps"], found["calls"]
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(args.rounds):
            for name, run in runs.items():
                times[name].append(run())
    spans = {name: statistics.median(values) for name, values in times.items()}
    if "calls" in spans:
        spans["onnxruntime, without the calls"] = spans["onnxruntime"] - spans.pop("calls")
    rates = {name: round(1 / span) for name, span in spans.items()}
    if args.json:
        flash = {kind: made.flash_bytes for kind, made in sizes.items()}
        print(json.dumps({"tokens_per_s": rates, "flash_bytes": flash}))
        return
    for kind, made in sizes.items():
        print(f"{kind}: flash {made.flash_bytes:,} bytes, RAM {made.ram_bytes:,} bytes")
    for name, rate in rates.items():
        print(f"{name:32} {rate:10,} tokens/s")


if __name__ == "__main__":
    main()
