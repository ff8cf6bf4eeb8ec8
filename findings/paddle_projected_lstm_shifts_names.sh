#!/usr/bin/env bash
# Paddle 3.3.1: in the state dict of an LSTM with proj_size, the names of all parameters after the
# first layer's biases are those of another parameter.
#
# An LSTM registers each parameter twice: as weight_ih_l0, ..., and inside of its cells, as
# 0.cell.weight_ih. The flat names are given to the parameters in order, four to a cell, and a cell
# with a projection has five. So weight_ih_l1 is the projection of layer 0, weight_hh_l1 the weight_ih of
# layer 1, bias_ih_l1 its matrix weight_hh, and the rest has no flat name. Programs that read weights by
# these names, which are PyTorch's, get other matrices, some of them of a shape that fits. The names of
# the cells are right.
#
# Seen: weight_ih_l1 [4, 2] is 0.cell.weight_ho [4, 2]; bias_ih_l1 [16, 2] is 1.cell.weight_hh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet paddlepaddle==3.3.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import paddle

layer = paddle.nn.LSTM(3, 4, num_layers=2, proj_size=2)
state = {name: value.numpy() for name, value in layer.state_dict().items()}


def same(name):
    """Return the names in cells of the parameter that a flat name has."""
    return [
        other
        for other, value in state.items()
        if "cell" in other and value.shape == state[name].shape and (value == state[name]).all()
    ]


for name in ("weight_ih_l0", "weight_ih_l1", "bias_ih_l1"):
    print(paddle.__version__, name, [*state[name].shape], "is", same(name))
assert same("weight_ih_l0") == ["0.cell.weight_ih"]
assert same("weight_ih_l1") == ["0.cell.weight_ho"]
assert same("bias_ih_l1") == ["1.cell.weight_hh"]
PYTHON
