#!/usr/bin/env bash
# NumPy 2.4.6 with its OpenBLAS 0.3.31, x86-64 with AVX-512: a small float32 matrix product loses
# accuracy as it gets smaller.
#
# With the SkylakeX kernels OpenBLAS computes a product of at most 1,000,000 multiplications by a
# separate kernel, which adds all terms of an element one after the other. The kernel for larger
# products adds blocks of some hundreds. So a (11, n) by (n, 11) product is less accurate than a
# (16, n) by (n, 16) one with sums of the same length, and than a longer one. The Haswell kernels,
# which a CPU without AVX-512 gets, show no such step.
#
# Seen, for n = 8192 products of 0.1 and 0.1, relative errors:
#   SkylakeX 1.1e-05 at 11 rows and columns (991,232 multiplications), 1.5e-06 at 16 (2,097,152)
#   Haswell 8.9e-07 at both
set -euo pipefail
grep -qw avx512f /proc/cpuinfo || { echo "needs a CPU with AVX-512"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6
for kernels in SkylakeX Haswell; do
    env -u OPENBLAS_L2_SIZE OPENBLAS_CORETYPE=$kernels "$folder/venv/bin/python" - "$kernels" <<'PYTHON'
import sys

import numpy as np

assert np.__version__ == "2.4.6", np.__version__


def error(size: int, n: int = 8192) -> float:
    x, y = np.full((size, n), 0.1, np.float32), np.full((n, size), 0.1, np.float32)
    exact = n * float(np.float32(0.1)) ** 2
    return float(np.abs((x @ y).astype(float) / exact - 1).max())


small, large = error(11), error(16)
print(np.__version__, sys.argv[1], f"{small:.1e}", f"{large:.1e}")
assert (small > 4 * large) == (sys.argv[1] == "SkylakeX")
PYTHON
done
