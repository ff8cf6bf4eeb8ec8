"""The number of threads: what the machine, the launcher and the user allow."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError
from tinygrad_rnn.speed import threads


class Machine:
    """A machine, as the module `threads` sees it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        patch.setattr(threads, "CPUS", folder / "cpu")
        patch.setattr(threads, "CGROUPS", folder / "cgroup")
        patch.setattr(threads, "_chosen", [])
        for name in (*threads.VARIABLES, *threads.LOCAL_RANKS):
            patch.delenv(name, raising=False)
        self.groups = ""
        self.cpus(8)

    def cpus(self, own: int, launcher: int | None = None) -> None:
        """Let this process have the first CPUs, and the process that started it others."""
        masks = {0: own, os.getppid(): launcher or own}
        self.patch.setattr(
            os, "sched_getaffinity", lambda process: {*range(masks[process])}, raising=False
        )

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def threads(self) -> int:
        threads._default.cache_clear()
        try:
            read = Path.read_text
            this = self

            def read_text(path: Path, *args: Any, **more: Any) -> str:
                return (
                    this.groups if str(path) == "/proc/self/cgroup" else read(path, *args, **more)
                )

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Path, "read_text", read_text)
                return tg.get_num_threads()
        finally:
            threads._default.cache_clear()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_one_thread_for_each_cpu_that_the_process_may_use(machine):
    assert machine.threads() == 8
    machine.cpus(3)
    assert machine.threads() == 3
    machine.cpus(1000)
    assert machine.threads() == 256


def test_two_logical_cpus_of_a_core_are_one(machine):
    for i in range(8):
        machine.write(f"cpu/cpu{i}/topology/thread_siblings_list", f"{i % 4},{i % 4 + 4}\n")
    assert machine.threads() == 4
    machine.cpus(2)
    assert machine.threads() == 2


def test_a_system_without_affinity(machine, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.threads() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.threads() == 1


@pytest.mark.parametrize(
    ("quota", "count"), [("max 100000", 8), ("350000 100000", 3), ("20000 100000", 1), ("?", 8)]
)
def test_the_quota_of_a_control_group(machine, quota, count):
    machine.groups = "0::/service/run\n"
    machine.write("cgroup/service/cpu.max", quota)  # of the parent
    machine.write("cgroup/service/run/cpu.max", "700000 100000" if count == 3 else "max 100000")
    assert machine.threads() == count


@pytest.mark.parametrize("folder", ["cpu,cpuacct/docker/x", "cpu,cpuacct", "cpu"])
def test_the_quota_of_a_control_group_of_version_1(machine, folder):
    """In a container the path of the group is that of the host, and may be missing."""
    machine.groups = "4:cpu,cpuacct:/docker/x\n3:cpuset:/docker/x\n0::/\n"
    machine.write(f"cgroup/{folder}/cpu.cfs_quota_us", "200000\n")
    machine.write(f"cgroup/{folder}/cpu.cfs_period_us", "100000\n")
    assert machine.threads() == 2
    machine.write(f"cgroup/{folder}/cpu.cfs_quota_us", "-1\n")
    assert machine.threads() == 8


def test_nothing_is_known_about_control_groups(machine, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert threads._quota() == math.inf


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "4"),
        ("MPI_LOCALNRANKS", "4"),
        ("MV2_COMM_WORLD_LOCAL_SIZE", "4"),
        ("SLURM_STEP_TASKS_PER_NODE", "4(x2),3"),
    ],
)
def test_the_processes_of_a_launcher_share_the_cores(machine, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert machine.threads() == 2
    machine.cpus(own=2, launcher=8)  # each has cores of its own already
    assert machine.threads() == 2
    machine.cpus(own=4, launcher=8)  # bound by pairs
    assert machine.threads() == 2
    machine.cpus(own=1, launcher=8)
    assert machine.threads() == 1
    machine.cpus(own=3)  # more processes than cores
    assert machine.threads() == 1
    monkeypatch.setenv(name, "many")
    assert machine.threads() == 3


def test_the_processes_of_a_launcher_share_the_quota(machine, monkeypatch):
    machine.groups = "0::/\n"
    machine.write("cgroup/cpu.max", "600000 100000")
    assert machine.threads() == 6
    monkeypatch.setenv("MPI_LOCALNRANKS", "2")
    assert machine.threads() == 3


def test_the_environment_decides(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert machine.threads() == 3
    monkeypatch.setenv("TINYGRAD_RNN_NUM_THREADS", "12")
    assert machine.threads() == 12
    monkeypatch.delenv("TINYGRAD_RNN_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "auto")  # not ours to check
    assert machine.threads() == 8


@pytest.mark.parametrize("value", ["0", "-1", "two", "257", "1.5"])
def test_a_wrong_number_in_the_environment_is_refused(machine, monkeypatch, value):
    monkeypatch.setenv("TINYGRAD_RNN_NUM_THREADS", value)
    with pytest.raises(ArgumentError, match=f"TINYGRAD_RNN_NUM_THREADS is '{value}': 1 to 256"):
        machine.threads()


def test_the_number_that_is_set(machine):
    tg.set_num_threads(3)
    assert machine.threads() == tg.get_num_threads() == threads.limit() == 3
    for wrong in (0, -1, True, 1.0, "2", None):
        with pytest.raises(ArgumentError, match=r"set_num_threads: n must be a positive integer"):
            tg.set_num_threads(wrong)
    with pytest.raises(ArgumentError, match=r"set_num_threads: n=257 is more than the 256"):
        tg.set_num_threads(257)
    assert tg.get_num_threads() == 3
