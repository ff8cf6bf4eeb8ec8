"""The number of threads of compiled loops and products."""

from __future__ import annotations

import ctypes
import functools
import math
import os
from pathlib import Path

from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

from ..errors import ArgumentError
from ..tensors import checks

MOST = 256  # of the runtime
VARIABLES = ("TINYGRAD_RNN_NUM_THREADS", "OMP_NUM_THREADS")
# Launchers tell a process how many others they started on this machine.
LOCAL_RANKS = (
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "SLURM_STEP_TASKS_PER_NODE",
)
CGROUPS = Path("/sys/fs/cgroup")
CPUS = Path("/sys/devices/system/cpu")

_chosen: list[int] = []


def set_num_threads(n: int) -> None:
    """Set the number of threads of compiled loops over time and matrix products.

    Parameters
    ----------
    n : int
        From 1 to 256. It applies to the whole process; small loops and products take fewer. The
        results are the same, to the bit, for every number.

    Raises
    ------
    ArgumentError
        If `n` is not a positive integer.

    See Also
    --------
    get_num_threads : The number, with its default.

    Notes
    -----
    NumPy's own products (those of more than two axes, and all of them without a C compiler)
    have threads of their own, whose number is that of the environment variable
    ``OPENBLAS_NUM_THREADS`` or ``MKL_NUM_THREADS``.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> before = tg.get_num_threads()
    >>> tg.set_num_threads(1)
    >>> tg.get_num_threads()
    1
    >>> tg.set_num_threads(before)
    """
    n = checks.positive(n, "set_num_threads: n")
    if n > MOST:
        raise ArgumentError(f"set_num_threads: n={n} is more than the {MOST} that are supported")
    _chosen[:] = [n]


def get_num_threads() -> int:
    """Return the number of threads of compiled loops over time and matrix products.

    Returns
    -------
    int
        The number that `set_num_threads` set, or that of the environment variable
        ``TINYGRAD_RNN_NUM_THREADS`` or ``OMP_NUM_THREADS``. By default, one thread for each core
        that the process may use: those of its affinity, not more than the quota of its control
        group, and divided among the processes that an MPI launcher started on the machine.

    Raises
    ------
    ArgumentError
        If ``TINYGRAD_RNN_NUM_THREADS`` is not a number from 1 to 256.

    See Also
    --------
    set_num_threads : Change it.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> 1 <= tg.get_num_threads() <= 256
    True
    """
    return limit()


def limit() -> int:
    """Return the number of threads that a loop may use."""
    return _chosen[0] if _chosen else _default()


def limit_numpy(n: int) -> bool:
    """Set the number of threads of NumPy's OpenBLAS; return False if NumPy has another library.

    Where several processes share the cores: `set_num_threads` does not change it.
    """
    library = ctypes.CDLL(
        _multiarray_umath.__file__
    )  # finds the libraries that this was linked with
    for name in ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads"):
        if hasattr(library, name):
            getattr(library, name)(n)
            return True
    return False


@functools.cache
def _default() -> int:
    """Return the number of threads if the user sets none; found once."""
    for name in VARIABLES:
        text = os.environ.get(name, "").partition(",")[0].strip()
        if text.isdecimal() and 1 <= int(text) <= MOST:
            return int(text)
        if text and name == VARIABLES[0]:
            raise ArgumentError(f"the environment variable {name} is {text!r:.60}: 1 to {MOST}")
    own = _affinity(0)
    count, quota, ranks = _cores(own), _quota(), _local_ranks()
    if ranks > 1:  # a launcher may have given each rank cores of its own, or all ranks the same
        count = min(count, _cores(_affinity(os.getppid()) | own) // ranks)
    return max(1, min(count, int(quota / ranks) if quota < math.inf else count, MOST))


def _affinity(process: int) -> set[int]:
    """Return the logical CPUs that a process may use, 0 for this one."""
    try:
        return os.sched_getaffinity(process)
    except (AttributeError, OSError):  # another system; a process of another user
        return set() if process else {*range(os.cpu_count() or 1)}


def _cores(cpus: set[int]) -> int:
    """Return the number of cores that have these logical CPUs."""
    found = set()
    for i in cpus:
        try:
            found.add((CPUS / f"cpu{i}" / "topology" / "thread_siblings_list").read_text("ascii"))
        except (OSError, ValueError):
            found.add(str(i))
    return len(found)


def _local_ranks() -> int:
    """Return how many processes a launcher started on this machine, this one included."""
    for name in LOCAL_RANKS:
        text = os.environ.get(name, "")
        # Slurm: the numbers of the nodes, such as 4(x2),3; the first is enough.
        digits = text.partition("(")[0].partition(",")[0].strip()
        if digits.isdecimal() and int(digits) > 0:
            return int(digits)
    return 1


def _quota() -> float:
    """Return the CPUs that the control groups of this process allow, inf if they have no limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return math.inf
    found = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        roots = [CGROUPS, CGROUPS / "unified"]  # of version 2
        if controllers:
            roots = [CGROUPS / controllers, CGROUPS / "cpu"]
            if "cpu" not in controllers.split(","):
                continue
        for root in roots:
            folder = Path(f"{root}/{path.strip('/')}")
            for group in (folder, *folder.parents):
                if group == CGROUPS.parent:
                    break
                found = min(found, _quota_of(group))
    return found


def _quota_of(group: Path) -> float:
    """Return the CPUs that one control group allows."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text("ascii").split()
        else:
            quota, period = (
                (group / f"cpu.cfs_{x}_us").read_text("ascii").strip() for x in ("quota", "period")
            )
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # "max", or there is none
        return math.inf
