"""Data: feature-label batches, text, and synthetic tasks that need no corpus."""

from ..spelling import absent
from ..stream import Stream as Stream
from . import tasks as tasks
from . import text as text
from .minibatches import batches as batches

__getattr__ = absent(
    __name__,
    dict.fromkeys(("DataLoader", "TensorDataset", "Dataset"), "batches(x, y, batch_size=n)"),
    globals(),
)
