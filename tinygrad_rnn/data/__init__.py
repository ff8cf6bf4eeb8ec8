"""Data: feature-label batches, text, and synthetic tasks that need no corpus."""

from ..stream import Stream as Stream
from . import tasks as tasks
from . import text as text
from .minibatches import batches as batches
