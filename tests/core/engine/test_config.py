"""`show_config`: what a report of a bug needs."""

from __future__ import annotations

import io
import os
import sys

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine import backend, config


def shown() -> dict[str, list[str]]:
    file = io.StringIO()
    tg.show_config(file=file)
    facts: dict[str, list[str]] = {}
    for line in file.getvalue().splitlines():
        facts.setdefault(line[:13].strip(), []).append(line[14:])
    return facts


def test_versions_devices_and_libraries_are_named(capsys):
    facts = shown()
    assert facts["tinygrad_rnn"][0].startswith(tg.__version__)
    assert facts["NumPy"] == [np.__version__]
    assert facts["Python"][0].startswith(sys.version.split()[0])
    assert facts["default"] == ["float32 on cpu"]
    assert {"platform", "SIMD", "BLAS", "threads", "CUDA"} <= set(facts)
    assert capsys.readouterr().out == ""
    tg.show_config()
    assert capsys.readouterr().out.startswith("tinygrad_rnn ")


def test_why_there_is_no_gpu_is_said(monkeypatch):
    monkeypatch.setattr(config, "cuda_unavailable_because", lambda: "the driver is too old")
    assert shown()["CUDA"] == ["not available: the driver is too old"]


def test_what_costs_speed_is_hinted_at(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr(config, "_waited", lambda: 0.0)
    assert "hint" not in shown()
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    facts = shown()
    assert "OPENBLAS_CORETYPE=Haswell" in facts["environment"]
    assert "OPENBLAS_CORETYPE" in facts["hint"][0]


@pytest.mark.parametrize(
    ("waited", "threads", "hint"), [(0.5, "2", True), (0.1, "2", False), (0.5, "1", False)]
)
def test_a_busy_machine_is_hinted_at(monkeypatch, capsys, waited, threads, hint):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", threads)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr(config, "_own_threads", lambda: 1)
    monkeypatch.setattr(config, "_waited", lambda: waited)
    tg.show_config(hints_only=True)
    out = capsys.readouterr().out
    assert bool(out) == hint
    if hint:
        assert "2 threads waited 50% of the time for a processor" in out
        assert "OPENBLAS_NUM_THREADS=1 (now 2) and TINYGRAD_RNN_NUM_THREADS=1 (now 1)" in out


def test_waiting_is_a_share_of_time_and_elsewhere_the_load_counts(monkeypatch):
    assert 0 <= config._waited(0.01) <= 1
    monkeypatch.setattr(config, "_scheduled", lambda: None)
    monkeypatch.setattr(config.os, "cpu_count", lambda: 2)
    for load, expected in ((8.0, 0.75), (1.0, 0.0), (0.0, 0.0)):
        monkeypatch.setattr(config.os, "getloadavg", lambda load=load: (load, 0, 0), raising=False)
        assert config._waited(0.001) == expected
    monkeypatch.setattr(config, "_scheduled", iter([(100, 10), (400, 110)]).__next__)
    assert config._waited(0.001) == 0.25


@pytest.mark.parametrize(("text", "expected"), [("3", 3), ("4,2", 4), ("0", None), ("x", None)])
def test_the_threads_of_the_blas(monkeypatch, text, expected):
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", text)
    assert config._blas_threads() == (expected or config._blas_threads())
    assert 1 <= config._blas_threads() <= (os.cpu_count() or 1) or expected


def test_the_kernel_needs_threadpoolctl(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert "threadpoolctl" in shown()["threads"][0]

    class Pools:
        @staticmethod
        def threadpool_info():
            return [
                {"internal_api": "openblas", "num_threads": 2, "version": "1", "architecture": "Z"},
                {"internal_api": "openmp", "num_threads": 3, "version": None},
            ]

    monkeypatch.setitem(sys.modules, "threadpoolctl", Pools)
    assert shown()["threads"] == ["2 of openblas 1, kernel Z", "3 of openmp"]


class Gpu:
    """What is asked of CuPy."""

    __name__, __version__ = "cupy", "99"

    class cuda:
        class runtime:
            getDeviceCount = staticmethod(lambda: 2)
            getDeviceProperties = staticmethod(lambda i: {"name": f"GPU {i}".encode()})
            runtimeGetVersion = staticmethod(lambda: 12090)


def test_a_gpu_is_described(monkeypatch):
    monkeypatch.setattr(config, "cuda_unavailable_because", lambda: None)
    monkeypatch.setattr(backend, "gpu_module", Gpu)
    assert shown()["CUDA"] == ["GPU 0, GPU 1; CUDA 12.9, cupy 99"]


def test_the_real_gpu_is_described(gpu):
    assert "CUDA" in shown()["CUDA"][0]
