"""Backpropagation through time: which recurrent edges are cut, and the weights of the others.

`Full` computes the gradient through time that the graph contains. `Truncated` is cheaper: it cuts
the edges between some steps. `Randomized` cuts at random and scales the other edges, so that the
mean gradient is right. Every recurrent layer takes a strategy (``bptt=``).
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
