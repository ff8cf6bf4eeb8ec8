"""Neural networks, with PyTorch's names: modules, layers, cells and recurrent networks."""

from .. import functional as functional
from .._util.api_hints import module_getattr
from . import init as init
from .cells import Cell as Cell
from .cells import GRUCell as GRUCell
from .cells import LSTMCell as LSTMCell
from .cells import ResetBeforeGRUCell as ResetBeforeGRUCell
from .cells import RNNCell as RNNCell
from .containers import ModuleList as ModuleList
from .containers import Sequential as Sequential
from .layers import Dropout as Dropout
from .layers import Embedding as Embedding
from .layers import LayerNorm as LayerNorm
from .layers import Linear as Linear
from .module import Module as Module
from .module import Parameter as Parameter
from .recurrent import GRU as GRU
from .recurrent import LSTM as LSTM
from .recurrent import RNN as RNN
from .recurrent import Recurrent as Recurrent

_FUNCTIONS = {"ReLU": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus"}
_FUNCTIONS |= {"Softmax": "softmax", "LogSoftmax": "log_softmax"}
_LOSSES = {"CrossEntropyLoss": "cross_entropy", "MSELoss": "mse_loss"}
_LOSSES |= {"BCEWithLogitsLoss": "binary_cross_entropy_with_logits"}
__getattr__ = module_getattr(
    __name__,
    {name: f"the function tinygrad_rnn.{ours}" for name, ours in _FUNCTIONS.items()}
    | {name: f"the function tinygrad_rnn.functional.{ours}" for name, ours in _LOSSES.items()}
    | {
        "utils": "tinygrad_rnn.optim.clip_grad_norm",
        "NLLLoss": "tinygrad_rnn.functional.cross_entropy, which takes logits",
        "ModuleDict": "a dict of modules, as an attribute",
        "ParameterDict": "a dict of parameters, as an attribute",
        "ParameterList": "a list of parameters, as an attribute",
        "Flatten": "x.reshape(len(x), -1)",
        "Identity": "Sequential(), or a module whose forward returns its argument",
        "BCELoss": "tinygrad_rnn.functional.binary_cross_entropy_with_logits, which takes logits",
        "L1Loss": "tinygrad_rnn.abs(x - y).mean()",
        "LeakyReLU": "tinygrad_rnn.maximum(x, 0.01 * x)",
        "SiLU": "x * tinygrad_rnn.sigmoid(x)",
        "LogSigmoid": "-tinygrad_rnn.softplus(-x)",
    },
    globals(),
)
