"""Exchange with other libraries, and networks as files that run without this one.

`from_torch`, `from_keras` and `from_flax` load a state into a module here, `to_torch`, `to_keras`
and `to_flax` return one for a network there. `convert` changes the state of one layer, also of
Equinox, Haiku, MLX, Paddle, tinygrad and ONNX, `convert_state` a recurrent state such as (h, c).
All read one table, which `convention_table` shows, and none needs the other library: a state is
dicts and lists of arrays, as each library saves it.

`save_onnx` writes a network as an ONNX file, and `save_c` as one C file.
"""

from typing import TYPE_CHECKING

from .._util import late as _late
from .conventions import convention_table as convention_table
from .convert import convert as convert
from .convert import convert_state as convert_state
from .modules import from_flax as from_flax
from .modules import from_keras as from_keras
from .modules import from_torch as from_torch
from .modules import to_flax as to_flax
from .modules import to_keras as to_keras
from .modules import to_torch as to_torch

if TYPE_CHECKING:
    from .c_export import CFile as CFile
    from .c_export import save_c as save_c
    from .onnx.save import save_onnx as save_onnx

# They need the models and speed, which conversions do not.
_LATE = {"c_export": "CFile save_c", "onnx.save": "save_onnx"}

__getattr__, __dir__ = _late.attributes(__name__, globals(), _LATE, implemented=(), hints={})

del TYPE_CHECKING
