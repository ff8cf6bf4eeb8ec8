"""The functions of Tensors that users call, and the methods of `Tensor`: NumPy's vocabulary."""

from .functions import *

from . import methods as methods  # isort: skip - it attaches the functions to Tensor
