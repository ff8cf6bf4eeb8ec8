"""Files: checkpoints of runs, weights in the safetensors format, atomic replacement of any file.

`save` and `load` store the exact state of a run; `versions` tells which versions wrote a file.
`save_safetensors` and `load_safetensors` exchange weights with PyTorch. All files are written by
`atomic_write`: an interrupted program leaves the old file or the new one, never a part.
"""

from .atomic import atomic_write as atomic_write
from .checkpoint_file import load as load
from .checkpoint_file import save as save
from .checkpoint_file import versions as versions
from .safetensors import load_safetensors as load_safetensors
from .safetensors import save_safetensors as save_safetensors
