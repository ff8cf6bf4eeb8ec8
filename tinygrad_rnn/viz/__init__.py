"""Visualization: computation graphs, gradients through time, activations, learning curves.

Functions that return numbers need NumPy alone. Functions that draw them, ``plot_…``, need
matplotlib (extra ``plot``) and return a Figure without displaying it.
"""

from .batch_partition import partition as partition
from .cell_diagram import cell as cell
from .computation_graph import Graph as Graph
from .computation_graph import graph as graph
from .drawing import Drawing as Drawing
from .graph_node import GraphNode as GraphNode
from .loss_curve import LearningCurve as LearningCurve
from .loss_curve import learning_curve as learning_curve
from .plots import plot_activations as plot_activations
from .plots import plot_gradient_norms as plot_gradient_norms
from .plots import plot_learning_curve as plot_learning_curve
from .recurrence import activations as activations
from .recurrence import gradient_norms as gradient_norms
from .recurrence import spectral_radius as spectral_radius
from .recurrence import unroll as unroll
from .truncation_masks import truncation as truncation
from .unrolled_network import unrolled as unrolled
