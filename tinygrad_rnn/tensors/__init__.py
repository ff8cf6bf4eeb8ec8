"""Tensors and the functions of them that a user calls: NumPy's vocabulary on the engine.

A function here is a primitive of the engine as it stands, or is made of primitives.
"""

from ..engine.ops import *
from .elementwise import *
from .entropy import *
from .indexing import *
from .linalg import *
from .reduce import *
from .shape import *
from .softmax import *

from . import methods as methods  # isort: skip - it attaches all of them to Tensor
