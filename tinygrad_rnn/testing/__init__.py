"""Gradient checks, and hypothesis strategies for the arguments of operations.

`gradcheck` compares derivatives of any order with finite differences. The strategies draw arguments
of operations: shapes that broadcast, values, memory layouts, axes, indices. They need hypothesis
(extra ``test``), which is imported when the first of them is called. Three lines check the
gradients of an operation of your own for all of these:

>>> import tinygrad_rnn as tg
>>> from hypothesis import given
>>> from tinygrad_rnn.testing import broadcastable_arrays, gradcheck
>>> @tg.primitive(x=lambda F, g, y: g * F.cos(y), y=lambda F, g, x, y: -g * x * F.sin(y))
... def projected(xp, x, y):
...     return x * xp.cos(y)

>>> @given(broadcastable_arrays(2))
... def test_projected(arrays):
...     gradcheck(projected, arrays)
>>> test_projected()
"""

from .gradient_check import gradcheck as gradcheck
from .strategies import LAYOUTS as LAYOUTS
from .strategies import arrays as arrays
from .strategies import axes as axes
from .strategies import broadcastable_arrays as broadcastable_arrays
from .strategies import broadcastable_shapes as broadcastable_shapes
from .strategies import dtypes as dtypes
from .strategies import grid as grid
from .strategies import indices as indices
from .strategies import layouts as layouts
from .strategies import shapes as shapes
