"""Several processes that train one model: data-parallel training on MPI, and on NCCL.

``mpiexec -n 4 python program.py`` starts a program four times, and `init` returns the world of
these processes. Started alone, the same program is a world of one.
"""

from .data_parallel import DataParallel as DataParallel
from .data_parallel import data_parallel as data_parallel
from .world import World as World
from .world import init as init
