#!/usr/bin/env bash
# mpi4py 4.1.2, MPICH 5.0.2: the memory order of an array is sent, not its elements by index.
#
# Allreduce sums arrays of one shape and dtype. If they are contiguous in Fortran order on one rank and
# in C order on another, which a transposed product or a sum of mixed operands makes without a word, the
# elements are paired by their places in memory: both ranks get a wrong sum and no error. The object
# interface (allreduce in lower case) and an array that is not contiguous, which is an error, lead to the
# guess that shapes are compared.
#
# Seen, for [[0, 1, 2], [3, 4, 5]] on both ranks, in Fortran order on rank 1: the sum is
#   [[0, 4, 3], [7, 6, 10]] on rank 0, and [[0, 3, 6], [4, 7, 10]] on rank 1; right is twice the array
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 mpi4py==4.1.2 mpich==5.0.2
cat > "$folder/sum.py" <<'PYTHON'
import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
array = np.arange(6.0).reshape(2, 3)
array = np.asfortranarray(array) if comm.rank else array
total = array.copy(order="K")
comm.Allreduce(array, total)
found = comm.allgather(total.tolist())
assert comm.allreduce(array).tolist() == (2 * array).tolist()  # pickled: right
assert all(rows != (2 * array).tolist() for rows in found), found
if comm.rank == 0:
    print(*found, sep="\n")
PYTHON
"$folder/venv/bin/mpiexec" -n 2 "$folder/venv/bin/python" "$folder/sum.py"
