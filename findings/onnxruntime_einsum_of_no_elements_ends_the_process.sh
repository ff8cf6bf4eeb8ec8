#!/usr/bin/env bash
# onnxruntime 1.32.0 (CPU): an Einsum of three operands ends the process with SIGFPE if an axis that
# the result keeps has the length 0. Python cannot catch it, and a server is gone.
#
# The file is valid by onnx.checker, and so is the input: a batch without sequences. Other operations
# and Einsums of two operands return an array without elements. NumPy's einsum returns shape (0,).
#
# Seen, for "a,bac,b->c" with a = 3, b = 2, c = 0: exit status 136 (128 + SIGFPE); c = 1 is computed
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cat > "$folder/einsum.py" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

assert onnxruntime.__version__ == "1.32.0", onnxruntime.__version__
equation, batch = "a,bac,b->c", int(sys.argv[1])
kinds = [("x", [3]), ("y", [2, 3, "N"]), ("z", [2])]
infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in kinds]
out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N"])
node = helper.make_node("Einsum", ["x", "y", "z"], ["out"], equation=equation)
graph = helper.make_graph([node], "einsum", infos, [out])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
given = {n: np.ones([batch if k == "N" else k for k in s], np.float32) for n, s in kinds}
assert np.einsum(equation, *given.values()).shape == (batch,)
session = onnxruntime.InferenceSession(model.SerializeToString())
print(session.run(None, given), flush=True)
PYTHON
"$folder/venv/bin/python" "$folder/einsum.py" 1
status=0
"$folder/venv/bin/python" "$folder/einsum.py" 0 || status=$?
echo "without elements: exit status $status"
[[ $status == 136 ]]
