#!/usr/bin/env bash
# PyTorch 2.13.0, CPU, float64: the Hessian of x ** y is not symmetric where y is 0.
#
# The mixed derivative of x ** y is x ** (y - 1) * (1 + y * log(x)): 0.5 at x = 2, y = 0, from either
# side. PyTorch gives 0.5 when it differentiates by y first and 0.0 when it differentiates by x
# first: the gradient by the base is chosen to be zero where the exponent is zero, and that choice
# cuts the dependence on the exponent. First derivatives are right.
#
# Seen: tensor([[0.0000, 0.0000], [0.5000, 0.4805]], dtype=torch.float64)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import math

import torch

assert torch.__version__.partition("+")[0] == "2.13.0", torch.__version__
place = torch.tensor([2.0, 0.0], dtype=torch.float64)
hessian = torch.autograd.functional.hessian(lambda v: v[0] ** v[1], place)
print(torch.__version__, hessian)
assert hessian[1, 0].item() == 0.5  # by y, then by x: right
assert hessian[0, 1].item() == 0.0  # by x, then by y: should be 0.5
assert math.isclose(hessian[1, 1].item(), math.log(2.0) ** 2)
PYTHON
