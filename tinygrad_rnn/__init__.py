"""tinygrad_rnn: a small autograd engine on NumPy and CuPy, and recurrent networks in plain "
"tensor code on it."""

from typing import Any as _Any

from . import bptt as bptt
from . import data as data
from . import errors as errors
from . import functional as functional
from . import metrics as metrics
from . import nn as nn
from . import optim as optim
from . import spelling as _spelling
from .creation import arange as arange
from .creation import eye as eye
from .creation import from_dlpack as from_dlpack
from .creation import full as full
from .creation import ones as ones
from .creation import ones_like as ones_like
from .creation import rand as rand
from .creation import randn as randn
from .creation import zeros as zeros
from .creation import zeros_like as zeros_like
from .engine import cuda as cuda
from .engine import random as random
from .engine.backend import bool_ as bool_
from .engine.backend import float16 as float16
from .engine.backend import float32 as float32
from .engine.backend import float64 as float64
from .engine.backend import get_default_dtype as get_default_dtype
from .engine.backend import int32 as int32
from .engine.backend import int64 as int64
from .engine.backend import set_default_dtype as set_default_dtype
from .engine.checkpoint import checkpoint as checkpoint
from .engine.graph import enable_grad as enable_grad
from .engine.graph import is_grad_enabled as is_grad_enabled
from .engine.graph import no_grad as no_grad
from .engine.ops import abs as abs
from .engine.ops import add as add
from .engine.ops import argmax as argmax
from .engine.ops import argmin as argmin
from .engine.ops import broadcast_to as broadcast_to
from .engine.ops import clip as clip
from .engine.ops import concatenate as concatenate
from .engine.ops import cos as cos
from .engine.ops import cumsum as cumsum
from .engine.ops import divide as divide
from .engine.ops import einsum as einsum
from .engine.ops import equal as equal
from .engine.ops import exp as exp
from .engine.ops import expand_dims as expand_dims
from .engine.ops import expm1 as expm1
from .engine.ops import flip as flip
from .engine.ops import greater as greater
from .engine.ops import greater_equal as greater_equal
from .engine.ops import less as less
from .engine.ops import less_equal as less_equal
from .engine.ops import log as log
from .engine.ops import log1p as log1p
from .engine.ops import log_softmax as log_softmax
from .engine.ops import logaddexp as logaddexp
from .engine.ops import logsumexp as logsumexp
from .engine.ops import matmul as matmul
from .engine.ops import max as max
from .engine.ops import maximum as maximum
from .engine.ops import mean as mean
from .engine.ops import min as min
from .engine.ops import minimum as minimum
from .engine.ops import moveaxis as moveaxis
from .engine.ops import multiply as multiply
from .engine.ops import negative as negative
from .engine.ops import not_equal as not_equal
from .engine.ops import pad as pad
from .engine.ops import power as power
from .engine.ops import prod as prod
from .engine.ops import relu as relu
from .engine.ops import reshape as reshape
from .engine.ops import sigmoid as sigmoid
from .engine.ops import sign as sign
from .engine.ops import sin as sin
from .engine.ops import softmax as softmax
from .engine.ops import softplus as softplus
from .engine.ops import split as split
from .engine.ops import sqrt as sqrt
from .engine.ops import squeeze as squeeze
from .engine.ops import stack as stack
from .engine.ops import std as std
from .engine.ops import subtract as subtract
from .engine.ops import sum as sum
from .engine.ops import swapaxes as swapaxes
from .engine.ops import take as take
from .engine.ops import take_along_axis as take_along_axis
from .engine.ops import tanh as tanh
from .engine.ops import tensordot as tensordot
from .engine.ops import transpose as transpose
from .engine.ops import unbind as unbind
from .engine.ops import var as var
from .engine.ops import where as where
from .engine.primitive import primitive as primitive
from .engine.random import manual_seed as manual_seed
from .engine.tensor import Tensor as Tensor
from .engine.tensor import grad as grad
from .engine.tensor import tensor as tensor

__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:
    hint = f"; here it is {_spelling.OTHER_NAMES[name]}" if name in _spelling.OTHER_NAMES else ""
    raise AttributeError(f"module 'tinygrad_rnn' has no attribute {name!r}{hint}")
