"""Compiled pointwise functions, and loops over time as one operation; independent of any cell.

README.md in this folder follows one example through all files.
"""

from . import executor
from . import fuse as fuse  # implements the core's decorator
from . import gpu_updates as gpu_updates  # a training step on a GPU
from . import products as products  # matrix products in C
from . import scan as scan  # runs a loop over time as one operation
from . import training_step as training_step  # the rest of a training step in C
from .cuda import random_numbers as random_numbers
from .cuda import step_graph as step_graph  # functions as CUDA graphs

executor.wait()  # chosen at the first call of any of these
