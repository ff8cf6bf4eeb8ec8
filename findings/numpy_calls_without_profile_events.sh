#!/usr/bin/env bash
# NumPy 2.4.6, CPython 3.11 (3.13 with NumPy 2.5.5 alike): a profile function (sys.setprofile) is
# not told of calls of ufuncs, of np.copyto, and of the methods of np.random.Generator.
#
# CPython reports a c_call for objects of its own kinds of functions and methods (len, ndarray.sum).
# A ufunc is an object of another class, copyto is wrapped by NumPy's dispatcher, and the methods of
# Generator are functions of Cython. So a profiler counts no call of these, and a tool that watches
# for side effects through the profile function misses a random draw and a write into an array.
#
# Seen: of len("x"), ndarray.sum, np.add, np.copyto, Generator.random, Generator.normal the events
# name len and ndarray.sum (and ufunc.reduce, which sum calls), and none of the other four.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np

array, generator, events = np.ones(3), np.random.default_rng(0), []


def profile(frame, event, function):
    if event == "c_call":
        events.append(function.__qualname__)


sys.setprofile(profile)
len("x")
array.sum()
np.add(array, 1)
np.copyto(array, 0)
generator.random()
generator.normal(size=3)
sys.setprofile(None)
events.remove("setprofile")
print("python", sys.version.split()[0], "numpy", np.__version__, events)
assert events == ["len", "ndarray.sum", "ufunc.reduce"], events
PYTHON
