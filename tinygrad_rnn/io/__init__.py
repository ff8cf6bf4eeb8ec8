"""Files: checkpoints and safetensors, written atomically."""

from .atomic import atomic_write as atomic_write
from .checkpoint_file import load as load
from .checkpoint_file import save as save
from .checkpoint_file import versions as versions
from .safetensors import load_safetensors as load_safetensors
from .safetensors import save_safetensors as save_safetensors
