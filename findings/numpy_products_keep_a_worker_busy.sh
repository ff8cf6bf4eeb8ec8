#!/usr/bin/env bash
# NumPy 2.4.6 (wheel with OpenBLAS 0.3.31): after one product of matrices, an idle process uses a
# processor for about a tenth of a second.
#
# OpenBLAS's worker threads wait in a loop for the next product before they sleep. So a program that
# computes in threads of its own between products has fewer free processors than it expects: with two
# processors its second thread gets half of one. OPENBLAS_THREAD_TIMEOUT (the logarithm of a number
# of cycles), read when the library is loaded, shortens the wait. The number of threads, set to 1
# afterwards, does not end a wait that has begun.
#
# Seen: processor time of the process during 0.3 s of sleep after a product of 1024 x 1024: 0.05 to
# 0.15 s; with OPENBLAS_THREAD_TIMEOUT=4 below 0.01 s. It needs two processors.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6
cat > "$folder/busy.py" <<'PYTHON'
import time

import numpy as np

x = np.ones((1024, 1024), np.float32)
x @ x
start = time.process_time()
time.sleep(0.3)
print(time.process_time() - start)
PYTHON
run() { env -u OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS=2 "$@" "$folder/venv/bin/python" "$folder/busy.py"; }
usual=$(run env)
short=$(run env OPENBLAS_THREAD_TIMEOUT=4)
echo "numpy 2.4.6: $usual s of processor time in 0.3 s of sleep; with a short timeout $short s"
python3 -c "assert $usual > 0.03 and $short < 0.02"
