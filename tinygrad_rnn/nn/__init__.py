"""Networks, with PyTorch's names: modules, layers, cells and the loop over time."""

from .. import functional as functional
from . import init as init
from .cells import Cell as Cell
from .cells import GRUCell as GRUCell
from .cells import LSTMCell as LSTMCell
from .cells import RNNCell as RNNCell
from .layers import Dropout as Dropout
from .layers import Embedding as Embedding
from .layers import LayerNorm as LayerNorm
from .layers import Linear as Linear
from .module import Module as Module
from .module import ModuleList as ModuleList
from .module import Parameter as Parameter
from .module import Sequential as Sequential
from .recurrent import GRU as GRU
from .recurrent import LSTM as LSTM
from .recurrent import RNN as RNN
from .recurrent import Recurrent as Recurrent
