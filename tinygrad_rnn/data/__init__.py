"""Data: minibatches of arrays, text, and synthetic tasks."""

from .._util.api_hints import module_getattr
from .._util.resumable import ResumableIterator as ResumableIterator
from . import tasks as tasks
from . import text as text
from .minibatches import batches as batches

__getattr__ = module_getattr(
    __name__,
    dict.fromkeys(("DataLoader", "TensorDataset", "Dataset"), "batches(x, y, batch_size=n)"),
    globals(),
)
