#!/usr/bin/env bash
# onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6: an LSTM or a GRU of a batch without sequences ends the process.
#
# The node RNN returns an empty array for it, (T, 1, 0, H). LSTM and GRU call std::terminate: there is no
# exception of Python, and the process is gone (signal 6). The model is valid (onnx.checker), the batch
# is a free dimension, and the file works for every other batch. Test the size before a run.
#
# Seen: "RNN: exit 0", "GRU: exit 134", "LSTM: exit 134"
set -euo pipefail
ulimit -c 0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/program.py" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

name, rows = sys.argv[1], 4 * int(sys.argv[2])
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", 3])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 1, "B", 4])
weights = {"W": np.zeros((1, rows, 3), np.float32), "R": np.zeros((1, rows, 4), np.float32)}
node = helper.make_node(name, ["x", "W", "R"], ["y"], hidden_size=4)
tensors = [numpy_helper.from_array(array, key) for key, array in weights.items()]
graph = helper.make_graph([node], "graph", [x], [y], tensors)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
for batch in (2, 0):
    assert session.run(None, {"x": np.zeros((5, batch, 3), np.float32)})[0].shape == (5, 1, batch, 4)
PYTHON
python3 -c 'import onnxruntime, onnx; print(onnxruntime.__version__, onnx.__version__)'
for node in RNN:1:0 GRU:3:134 LSTM:4:134; do
    IFS=: read -r name gates wanted <<<"$node"
    found=0
    python3 "$folder/program.py" "$name" "$gates" 2>/dev/null || found=$?
    echo "$name: exit $found"
    [ "$found" = "$wanted" ]
done
