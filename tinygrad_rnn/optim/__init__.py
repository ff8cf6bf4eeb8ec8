"""Optimisers, gradient clipping and learning-rate schedules."""

from __future__ import annotations

from .._util.api_hints import module_getattr
from . import schedule as schedule
from .clip import clip_grad_norm as clip_grad_norm
from .clip import clip_grad_value as clip_grad_value
from .optimizers import SGD as SGD
from .optimizers import Adagrad as Adagrad
from .optimizers import Adam as Adam
from .optimizers import AdamW as AdamW
from .optimizers import Optimizer as Optimizer
from .optimizers import ParamGroup as ParamGroup
from .optimizers import RMSprop as RMSprop

__getattr__ = module_getattr(
    __name__,
    schedule.OTHER_NAMES
    | {
        "ReduceLROnPlateau": "schedule.ReduceLROnPlateau",
        "lr_scheduler": "tinygrad_rnn.optim.schedule",
        "clip_grad_norm_": "clip_grad_norm",
        "clip_grad_value_": "clip_grad_value",
    },
    globals(),
)
