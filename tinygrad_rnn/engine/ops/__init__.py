"""The table of primitives and the functions made of them, a file a family.

Names and semantics are NumPy's.
"""

from .elementwise import *
from .indexing import *
from .linalg import *
from .reduce import *
from .shape import *
