"""Data: minibatches of arrays, text, and synthetic tasks."""

from .._util.api_hints import module_getattr
from .._util.resumable import ResumableIterator as ResumableIterator
from . import metrics as metrics
from . import tasks as tasks
from . import text as text
from .minibatches import batches as batches
from .scaler import Scaler as Scaler
from .sequences import pad as pad
from .sequences import ragged_batches as ragged_batches
from .sequences import windows as windows

__getattr__ = module_getattr(
    __name__,
    dict.fromkeys(("DataLoader", "TensorDataset", "Dataset"), "batches(x, y, batch_size=n)")
    | {
        "StandardScaler": "Scaler(num_features).fit(training_data)",
        "pad_sequence": "pad(sequences)",
        "pad_sequences": "pad(sequences)",
        "pack_sequence": "pad(sequences), with the argument lengths of a layer",
        "timeseries_dataset_from_array": "windows(series, look_back, ahead)",
    },
    globals(),
)
