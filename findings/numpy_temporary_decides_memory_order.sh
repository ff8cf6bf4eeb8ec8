#!/usr/bin/env bash
# NumPy 2.4.6, Linux with glibc: whether an operand has a name decides the memory order of a sum of
# two arrays, and so the bits of a later reduction.
#
# Of q + p * 2 the temporary p * 2 is written over if it takes at least 256 KiB, since nobody else
# holds it. The result then has the memory order of the temporary. With t = p * 2; q + t a new array
# is made, in the order of q. If q and p differ in order, the results have equal elements and other
# strides, and a sum over an axis adds in another order. So code that keeps intermediate results,
# such as a recorder or a debugger, does not repeat the last bits of code that does not.
#
# Seen, for a C-ordered q and a Fortran-ordered p of (4096, 96) float32:
#   strides (384, 4) with a name, (4, 16384) without; row sums up to 9.2e-05 apart
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np

assert np.__version__ == "2.4.6", np.__version__
for rows, differ in ((512, False), (4096, True)):  # 192 KiB, 1.5 MiB
    q = np.random.default_rng(0).random((rows, 96)).astype(np.float32)
    p = np.asfortranarray(q)
    t = p * 2
    named, unnamed = q + t, q + p * 2
    apart = np.abs(named.sum(axis=1) - unnamed.sum(axis=1)).max()
    print(np.__version__, rows, named.strides, unnamed.strides, apart)
    assert np.array_equal(named, unnamed)
    assert (named.strides != unnamed.strides) == differ
    assert (apart > 0) == differ
PYTHON
