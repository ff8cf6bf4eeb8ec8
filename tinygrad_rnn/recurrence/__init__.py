"""The loop over time: `scan`, for layers and for loops of your own."""

from .loop import LoopReport as LoopReport
from .loop import scan as scan
