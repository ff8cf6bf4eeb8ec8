"""Training: the loop `fit`, its callbacks, and the history that it returns."""

from .._util.api_hints import module_getattr
from .callbacks import BestModel as BestModel
from .callbacks import Checkpoint as Checkpoint
from .callbacks import ClipNorm as ClipNorm
from .callbacks import CudaGraph as CudaGraph
from .callbacks import EarlyStopping as EarlyStopping
from .callbacks import Progress as Progress
from .callbacks import Schedule as Schedule
from .history import History as History
from .interrupt import ctrl_c as ctrl_c
from .interrupt import on_signals as on_signals
from .run import Callback as Callback
from .run import Run as Run

__getattr__ = module_getattr(
    __name__,
    {
        "ModelCheckpoint": "Checkpoint(path) of the run, BestModel(path=path) of the best weights",
        "LearningRateScheduler": "Schedule(schedule)",
        "LRScheduler": "Schedule(schedule)",
        "GradientNormClipping": "ClipNorm(max_norm)",
        "ProgressBar": "Progress()",
        "Trainer": "fit(model, batches, loss=..., optimizer=..., epochs=...)",
    },
    globals(),
)
