"""Recurrent layers as nodes of ONNX: LSTM, GRU and RNN, and Scan for loops over any step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..conventions import OUR_GATES, rows
from .graph import Graph, onnx
from .trace import Body, Call, Ref

# For each node of ONNX the position of its gates among ours: (0, 3, 1, 2) of an LSTM, and so on.
GATES = {
    row.layer.upper(): tuple(map(OUR_GATES[row.layer].index, row.gates))
    for name in ("lstm", "gru", "rnn")
    for row in rows("onnx", name)
}


def gates_of_onnx(node: str, array: Any) -> Any:
    """Return a weight or bias of ours, (G · H, ...), with the gates in the order of ONNX.

    Parameters
    ----------
    node : {"LSTM", "GRU", "RNN"}
    array : array
        Ours: gates i, f, g, o of an LSTM, r, z, n of a GRU.

    Returns
    -------
    array
        Gates i, o, f, g and z, r, n.
    """
    order = GATES[node]
    blocks = np.split(np.asarray(array), len(order))
    return np.concatenate([blocks[k] for k in order])


def recurrent_node(g: Graph, call: Call) -> list[str]:
    """Return the names of the output (T, B, D·H) and of the final states (D, B, H) of a layer."""
    node, options = call.name, call.options
    weights, hidden = options["weights"], options["hidden_size"]
    count = len(weights)
    x, *rest = call.inputs
    lengths = rest.pop() if options["ragged"] else None
    states = 2 if node == "LSTM" else 1

    def stacked(arrays: Sequence[Any], label: str) -> str:
        return g.constant(np.stack([gates_of_onnx(node, a) for a in arrays]), f"{node}.{label}")

    inputs = [
        g.name(x),
        stacked([w[0] for w in weights], "W"),
        stacked([w[1] for w in weights], "R"),
    ]
    biased = any(b is not None for w in weights for b in w[2:])
    if biased:
        rows = len(weights[0][0])
        none = np.zeros(rows, np.float32)
        biases = [[gates_of_onnx(node, none if b is None else b) for b in w[2:]] for w in weights]
        inputs.append(g.constant(np.stack([np.concatenate(b) for b in biases]), f"{node}.B"))
    elif rest or lengths is not None:
        inputs.append("")
    if lengths is not None:
        inputs.append(g.name(lengths, np.int32))
    elif rest:
        inputs.append("")
    initial = [g.name(s) for s in rest]
    inputs += initial
    attributes: dict[str, Any] = {"hidden_size": hidden}
    attributes["direction"] = "bidirectional" if count == 2 else "forward"
    if node == "GRU":
        attributes["linear_before_reset"] = 1
    if node == "RNN":
        attributes["activations"] = [options["activation"]] * count
    y, *finals = g.add(node, *inputs, outputs=1 + states, **attributes)
    if count == 1:
        y = g.add("Squeeze", y, g.ints(1))
    else:
        y = g.add("Reshape", g.add("Transpose", y, perm=[0, 2, 1, 3]), g.ints(0, 0, -1))
    if lengths is not None and initial:  # onnxruntime returns zeros for a sequence without steps
        some = g.add("Greater", g.name(lengths, np.int64), g.constant(np.array(0, np.int64)))
        some = g.add("Unsqueeze", some, g.ints(1))
        finals = [g.add("Where", some, s, old) for s, old in zip(finals, initial, strict=True)]
    return [y, *finals]


def loop(g: Graph, call: Call, emit: Any) -> list[str]:
    """Return the names of the final states and of the outputs of all steps of a loop: a Scan.

    `emit` adds the calls of a block to a graph.
    """
    options, inputs = call.options, list(call.inputs)
    body: Body = options["body"]
    lengths = inputs.pop() if options["ragged"] else None
    count = options["states"]
    outer = [g.name(x, g.dtype(a)) for x, a in zip(inputs, body.arguments, strict=True)]

    inner = Graph(g.merged, {}, {}, g.root)
    infos = []
    for ref in body.arguments:
        name = g.root.of_value[ref.number] = g.unique("step_in")
        infos.append(inner.info(name, g.dtype(ref), g.shape_of(ref)))
    present = None
    if lengths is not None:
        T = g.shape_of(inputs[count])[0]
        zero, one = (g.constant(np.array(n, np.int64)) for n in (0, 1))
        outer.append(g.add("Range", zero, g.name(T, np.int64), one))
        t = g.unique("step")
        infos.append(inner.info(t, np.int64, ()))
        present = g.add("Unsqueeze", g.name(lengths, np.int64), g.ints(1))
        present = inner.add("Less", t, present)
    emit(inner, body.block)
    made = []
    for i, result in enumerate(body.results):
        like = call.outputs[i]
        dtype, shape = g.dtype(like), g.shape_of(like)[0 if i < count else 1 :]
        name = inner.name(result, dtype)
        if not isinstance(result, Ref):
            name = inner.add("Expand", name, inner.shape(shape))
        if present is not None:
            old = g.root.of_value[body.arguments[i].number] if i < count else ""
            name = inner.add("Where", present, name, old or g.constant(np.zeros((), dtype)))
        output = g.unique("step_out")
        inner.alias(name, output)
        made.append(inner.info(output, dtype, shape))
    graph = onnx().helper.make_graph(inner.nodes, g.unique("step_graph"), infos, made)
    direction, ys = int(options["reverse"]), len(made) - count
    scans = len(outer) - count
    attributes: dict[str, Any] = {"body": graph, "num_scan_inputs": scans}
    attributes["scan_input_directions"] = [direction] * scans
    if ys:
        attributes["scan_output_directions"] = [direction] * ys
    names = g.add("Scan", *outer, outputs=len(made), **attributes)
    return [names] if len(made) == 1 else list(names)
