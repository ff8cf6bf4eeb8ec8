"""A small autograd engine on NumPy and CuPy, and recurrent networks in plain tensor code on it.

The core works without the rest: ``tools/core_alone.py`` copies it alone.
"""

import os as _os
from typing import TYPE_CHECKING

# For every program.
from . import errors as errors
from ._util import api_hints as _spelling
from ._util import late as _late
from ._util import malloc as _allocator
from .engine.autograd import grad as grad
from .engine.backend import bool_ as bool_
from .engine.backend import float16 as float16
from .engine.backend import float32 as float32
from .engine.backend import float64 as float64
from .engine.backend import get_default_dtype as get_default_dtype
from .engine.backend import int32 as int32
from .engine.backend import int64 as int64
from .engine.backend import set_default_dtype as set_default_dtype
from .engine.config import show_config as show_config
from .engine.grad_mode import enable_grad as enable_grad
from .engine.grad_mode import is_grad_enabled as is_grad_enabled
from .engine.grad_mode import no_grad as no_grad
from .engine.ops import kernels as _kernels
from .engine.primitive import primitive as primitive
from .engine.tensor import Tensor as Tensor
from .tensors import abs as abs
from .tensors import add as add
from .tensors import argmax as argmax
from .tensors import argmin as argmin
from .tensors import broadcast_to as broadcast_to
from .tensors import clip as clip
from .tensors import concatenate as concatenate
from .tensors import cos as cos
from .tensors import cumsum as cumsum
from .tensors import divide as divide
from .tensors import einsum as einsum
from .tensors import equal as equal
from .tensors import exp as exp
from .tensors import expand_dims as expand_dims
from .tensors import expm1 as expm1
from .tensors import flip as flip
from .tensors import floor_divide as floor_divide
from .tensors import greater as greater
from .tensors import greater_equal as greater_equal
from .tensors import less as less
from .tensors import less_equal as less_equal
from .tensors import log as log
from .tensors import log1p as log1p
from .tensors import log_softmax as log_softmax
from .tensors import logaddexp as logaddexp
from .tensors import logsumexp as logsumexp
from .tensors import matmul as matmul
from .tensors import max as max
from .tensors import maximum as maximum
from .tensors import mean as mean
from .tensors import min as min
from .tensors import minimum as minimum
from .tensors import moveaxis as moveaxis
from .tensors import multiply as multiply
from .tensors import negative as negative
from .tensors import not_equal as not_equal
from .tensors import pad as pad
from .tensors import power as power
from .tensors import prod as prod
from .tensors import relu as relu
from .tensors import remainder as remainder
from .tensors import reshape as reshape
from .tensors import sigmoid as sigmoid
from .tensors import sign as sign
from .tensors import sin as sin
from .tensors import softmax as softmax
from .tensors import softplus as softplus
from .tensors import split as split
from .tensors import sqrt as sqrt
from .tensors import squeeze as squeeze
from .tensors import stack as stack
from .tensors import std as std
from .tensors import subtract as subtract
from .tensors import sum as sum
from .tensors import swapaxes as swapaxes
from .tensors import take as take
from .tensors import take_along_axis as take_along_axis
from .tensors import tanh as tanh
from .tensors import tensordot as tensordot
from .tensors import transpose as transpose
from .tensors import unbind as unbind
from .tensors import var as var
from .tensors import where as where
from .tensors.creation import arange as arange
from .tensors.creation import default_device as default_device
from .tensors.creation import eye as eye
from .tensors.creation import full as full
from .tensors.creation import linspace as linspace
from .tensors.creation import ones as ones
from .tensors.creation import ones_like as ones_like
from .tensors.creation import rand as rand
from .tensors.creation import randn as randn
from .tensors.creation import tensor as tensor
from .tensors.creation import zeros as zeros
from .tensors.creation import zeros_like as zeros_like
from .tensors.dlpack import from_dlpack as from_dlpack

# Imported at the first use of the name, by ``__getattr__`` below.
if TYPE_CHECKING:
    # The core.
    from . import bptt as bptt
    from . import functional as functional
    from . import nn as nn
    from . import optim as optim
    from . import random as random
    from . import testing as testing
    from .random import manual_seed as manual_seed
    from .recurrence import scan as scan
    from .testing import gradcheck as gradcheck
    from .transforms.anomaly import detect_anomaly as detect_anomaly
    from .transforms.checkpoint import checkpoint as checkpoint
    from .transforms.derivatives import hessian as hessian
    from .transforms.derivatives import hvp as hvp
    from .transforms.derivatives import jacobian as jacobian
    from .transforms.derivatives import jvp as jvp
    from .transforms.derivatives import vjp as vjp
    from .transforms.fuse import eager as eager
    from .transforms.fuse import fuse as fuse

    # isort: split
    # The rest, on top of the core.
    from . import cuda as cuda
    from . import data as data
    from . import distributed as distributed
    from . import interop as interop
    from . import io as io
    from . import models as models
    from . import training as training
    from . import viz as viz
    from .data import metrics as metrics
    from .io import load as load
    from .io import load_safetensors as load_safetensors
    from .io import save as save
    from .io import save_safetensors as save_safetensors
    from .speed.threads import get_num_threads as get_num_threads
    from .speed.threads import set_num_threads as set_num_threads
    from .training.loop import fit as fit

_LATE = {  # the same names by their modules; a test compares
    "": "bptt cuda data distributed functional interop io models nn optim random testing training "
    "viz recurrence speed transforms",
    "data": "metrics",
    "io": "load load_safetensors save save_safetensors",
    "random": "manual_seed",
    "recurrence": "scan",
    "speed.threads": "get_num_threads set_num_threads",
    "testing": "gradcheck",
    "training.loop": "fit",
    "transforms.anomaly": "detect_anomaly",
    "transforms.checkpoint": "checkpoint",
    "transforms.derivatives": "hessian hvp jacobian jvp vjp",
    "transforms.fuse": "eager fuse",
}

__version__ = "0.1.0"

_allocator.keep_freed_memory()

if _late.expect(f"{__name__}.speed"):  # it implements products, loops and `fuse`
    _kernels.wait_for(_late.load)


def _before_fork() -> None:
    _late.lock.acquire()  # a child would wait forever for an import of another thread
    from .random import _before_fork

    _before_fork()


def _after_fork() -> None:
    from .random import _after_fork

    _after_fork()
    _late.lock.release()


if hasattr(_os, "register_at_fork"):  # not on Windows
    _os.register_at_fork(
        before=_before_fork, after_in_child=_after_fork, after_in_parent=_late.lock.release
    )

__getattr__, __dir__ = _late.attributes(
    __name__, globals(), _LATE, implemented={"fuse"}, hints=_spelling.PACKAGE_HINTS
)

del TYPE_CHECKING
