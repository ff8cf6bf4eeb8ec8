"""Backpropagation through time: where the recurrent edge is cut, and how the rest is weighed.

The gradient through time is what the graph holds (`Full`). A cheaper one cuts the edges between
some steps (`Truncated`), or cuts at random and weighs what is left, so that the mean is right
(`Randomized`). Every recurrent layer takes a strategy (``bptt=``).
"""

from .state import detach as detach
from .state import restore as restore
from .state import scale_gradient as scale_gradient
from .strategies import Full as Full
from .strategies import Randomized as Randomized
from .strategies import Strategy as Strategy
from .strategies import Truncated as Truncated
from .windows import Window as Window
from .windows import Windows as Windows
