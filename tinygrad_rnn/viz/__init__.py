"""Looking inside: the graph of a computation, gradients through time, units over a text.

Numbers and pictures are apart: what returns numbers needs NumPy alone; what draws them, ``plot_…``,
needs matplotlib (extra ``plot``), returns its Figure and shows nothing.
"""

from .computation import Graph as Graph
from .computation import graph as graph
from .graph_node import GraphNode as GraphNode
from .pictures import plot_activations as plot_activations
from .pictures import plot_gradient_norms as plot_gradient_norms
from .pictures import plot_learning_curve as plot_learning_curve
from .records import LearningCurve as LearningCurve
from .records import learning_curve as learning_curve
from .recurrence import activations as activations
from .recurrence import gradient_norms as gradient_norms
from .recurrence import spectral_radius as spectral_radius
from .recurrence import unroll as unroll
