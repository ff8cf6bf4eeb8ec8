"""Training: the loop `fit`, its callbacks, and the history that it returns."""

from .._util.api_hints import module_getattr
from .callbacks import BestModel as BestModel
from .callbacks import ClipNorm as ClipNorm
from .callbacks import CudaGraph as CudaGraph
from .callbacks import EarlyStopping as EarlyStopping
from .callbacks import Progress as Progress
from .callbacks import Schedule as Schedule
from .callbacks import TimeLimit as TimeLimit
from .checkpoint import Checkpoint as Checkpoint
from .history import History as History
from .interrupt import ctrl_c as ctrl_c
from .interrupt import on_signals as on_signals
from .run import Callback as Callback
from .run import Run as Run
from .writer import Log as Log

__getattr__ = module_getattr(
    __name__,
    {
        "ModelCheckpoint": "Checkpoint(path) of the run, BestModel(path=path) of the best weights",
        "LearningRateScheduler": "Schedule(schedule)",
        "CSVLogger": "Log(path)",
        "LRScheduler": "Schedule(schedule)",
        "ReduceLROnPlateau": "tg.optim.schedule.ReduceLROnPlateau, in a Callback whose report(run) "
        "calls its step(run.figures['valid_loss'])",
        "GradientNormClipping": "ClipNorm(max_norm)",
        "ProgressBar": "Progress()",
        "Timer": "TimeLimit(minutes)",
        "Trainer": "fit(model, batches, loss=..., optimizer=..., epochs=...)",
    },
    globals(),
)
