"""CUDA text on the stand-in for CuPy (cuda_on_host.py): values, barriers, refused arguments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import cuda_on_host
import strict_device
from cuda_on_host import KernelError

reason = cuda_on_host.unavailable_because()
pytestmark = pytest.mark.skipif(reason is not None, reason=str(reason))

TEXT = r"""
struct Numbers { long long v[2]; };
extern "C" __global__ void scaled(
    const float *x, float *y, const int n, const float by, const Numbers add)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] * by + (float)add.v[1];
}
extern "C" __global__ void __launch_bounds__(64) sums(const double *x, double *y)
{
    __shared__ double part[2];
    double total = x[blockIdx.x * 64 + threadIdx.x];
    for (int by = 16; by; by /= 2) total += __shfl_down_sync(~0u, total, by);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = total;
    __syncthreads();
    if (threadIdx.x == 0) y[blockIdx.x] = part[0] + part[1];
}
extern "C" __global__ void divergent(int *x)
{
    if (threadIdx.x < 3) __syncthreads();
    x[threadIdx.x] = 1;
}
"""


@pytest.fixture
def cupy() -> Iterator[Any]:
    with strict_device.installed() as module:
        yield module


def test_values(cupy: Any) -> None:
    kernel = cupy.RawModule(code=TEXT, options=("--fmad=false",)).get_function("scaled")
    x, y = cupy.asarray(np.arange(100, dtype=np.float32)), cupy.empty(100, np.float32)
    add = np.array([((1, 7),)], np.dtype([("v", np.int64, (2,))]))
    before = strict_device.launches
    kernel((4,), (32,), (x, y, np.int32(90), np.float32(0.5), add))
    assert strict_device.launches == before + 1
    assert np.array_equal(y.get()[:90], np.arange(90, dtype=np.float32) / 2 + 7)
    assert np.isnan(y.get()[90:]).all()


def test_barriers_and_shuffles(cupy: Any) -> None:
    module = cupy.RawModule(code=TEXT)
    x = np.random.default_rng(0).normal(size=(5, 64))
    y = cupy.empty(5, np.float64)
    module.get_function("sums")((5,), (64,), (cupy.asarray(x), y))
    assert np.allclose(y.get(), x.sum(axis=1), rtol=1e-14)
    with pytest.raises(KernelError, match="a barrier that some threads do not reach"):
        module.get_function("divergent")((1,), (8,), (cupy.empty(8, np.int32),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {**a, 3: 0.5}, "is a Python float"),
        (lambda a: {**a, 2: 90}, "is a Python int"),
        (lambda a: {**a, 2: np.int64(90)}, "is int64"),
        (lambda a: {**a, 3: np.float64(1)}, "is float64"),
        (lambda a: {**a, 0: np.ones(100, np.float32)}, "is float32"),
        (lambda a: {**a, 0: a[0].astype(np.float64)}, "is an array float64"),
        (lambda a: {**a, 4: np.zeros(1, np.int64)}, "is int64"),
        (lambda a: {k: a[k] for k in range(4)}, "has 5 parameters, got 4"),
    ],
)
def test_refused_arguments(cupy: Any, change: Any, message: str) -> None:
    kernel = cupy.RawModule(code=TEXT).get_function("scaled")
    add = np.array([((1, 7),)], np.dtype([("v", np.int64, (2,))]))
    x = cupy.asarray(np.ones(100, np.float32))
    given = {0: x, 1: cupy.empty(100, np.float32), 2: np.int32(100), 3: np.float32(1), 4: add}
    with pytest.raises(KernelError, match=message):
        kernel((4,), (32,), tuple(change(given).values()))


@pytest.mark.parametrize(
    ("grid", "block"), [((0,), (32,)), ((1,), (2048,)), (4, (32,)), ((1.0,), (1,))]
)
def test_refused_sizes(cupy: Any, grid: Any, block: Any) -> None:
    kernel = cupy.RawModule(code=TEXT).get_function("divergent")
    with pytest.raises(KernelError, match=r"a tuple of int|CUDA_ERROR_INVALID_VALUE|a block of"):
        kernel(grid, block, (cupy.empty(8, np.int32),))


def test_unknown_name_and_text(cupy: Any) -> None:
    with pytest.raises(RuntimeError, match="named symbol not found"):
        cupy.RawModule(code=TEXT).get_function("absent")
    with pytest.raises(RuntimeError, match="error"):
        cupy.RawModule(code='extern "C" __global__ void f(float *x) { y; }').get_function("f")
