"""The parts of a training step on a GPU: CuPy's functions, or NumPy's, are the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nvcc
import strict_device
import tinygrad_rnn as tg
from cuda_on_host import unavailable_because
from tinygrad_rnn import functional as F
from tinygrad_rnn.engine import backend
from tinygrad_rnn.engine.ops import kernels
from tinygrad_rnn.errors import ExecutorWarning
from tinygrad_rnn.nn import Parameter
from tinygrad_rnn.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, clip_grad_norm
from tinygrad_rnn.speed import gpu_updates, updates
from tinygrad_rnn.speed.cuda import module, tables, training_step

pytestmark = pytest.mark.skipif(
    unavailable_because() is not None, reason=str(unavailable_because())
)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


class Recorded:
    """Functions that record whether they have computed the result."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[str, bool]] = []
        for name, function in list(kernels.on_gpu.items()):
            patch.setitem(kernels.on_gpu, name, self.recording(name, function))

    def recording(self, name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            found = function(*args)
            self.done.append((name, found is not NotImplemented))
            return found

        return call


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(monkeypatch)


def with_cupy(function: Any, *args: Any) -> Any:
    """Call a function without the kernels."""
    held = dict(kernels.on_gpu)
    kernels.on_gpu.clear()
    try:
        return function(*args)
    finally:
        kernels.on_gpu.update(held)


def upload(x: Any) -> Any:
    return backend.to_device(np.asarray(x), "cuda")


# -- scatter-add -----------------------------------------------------------------------------------


def added(kind: str, shape: Any, key: Any, values: Any, dtype: str) -> tuple[Any, Any]:
    """Return ``target[key] += values``, on the device and by NumPy."""
    target = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    here, expected = upload(target), target.copy()
    on_device = tuple(upload(k) if isinstance(k, np.ndarray) else k for k in key)
    kernels.add_at(here, on_device, upload(values.astype(dtype)))
    np.add.at(expected, key, values.astype(dtype))
    return here.get(), expected


IDS = np.array([[2, 0, 2], [-1, 2, 0]])
KEYS: dict[str, Any] = {
    "rows": ((4, 3), (IDS,)),
    "elements": ((6,), (IDS,)),
    "two axes": ((4, 3, 2), (IDS, IDS)),
    "all axes": ((4, 3), (IDS, IDS)),
    "a slice first": ((2, 4, 3), (slice(None), IDS)),
    "a number first": ((2, 4, 3), (1, IDS)),
    "a slice between": ((4, 2, 3), (IDS, slice(1, None), IDS)),
    "a new axis": ((4, 3), (None, IDS)),
    "an ellipsis": ((2, 3, 4), (..., IDS)),
    "many axes of a row": ((4, 3, 2, 2), (IDS,)),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "functions"])
@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int8", "int16", "int32", "uint8", "bool"]
)
def test_values_of_repeated_indices_add_up(
    accelerator: str, monkeypatch: pytest.MonkeyPatch, kind: str, kernel: bool, dtype: str
) -> None:
    """Also for the dtypes that CuPy's ``add.at`` refuses."""
    shape, key = KEYS[kind]
    if not kernel:
        monkeypatch.setattr(kernels, "on_gpu", {})
    monkeypatch.setattr(kernels, "MAX_SELECTED", 40)  # some rows at a time
    values = np.random.default_rng(0).integers(0, 3, np.zeros(shape)[key].shape)
    found, expected = added(kind, shape, key, values, dtype)
    np.testing.assert_array_equal(found, expected)


@DTYPES
def test_sums_are_in_order_and_in_double_precision(
    accelerator: str, recorded: Recorded, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    ids, values = rng.integers(0, 5, 1500), rng.normal(size=(1500, 300)).astype(dtype)
    found = [upload(np.zeros((7, 300), dtype)) for _ in range(2)]
    for target in found:
        kernels.add_at(target, upload(ids), upload(values))
    total = np.zeros((7, 300))
    for i, x in zip(ids, values.astype(np.float64), strict=True):
        total[i] += x
    for target in found:
        np.testing.assert_array_equal(target.get(), total.astype(dtype))
    assert recorded.done == [("add_rows", True)] * 2


@DTYPES
def test_many_indices_are_sorted(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr(training_step, "SORTED", 10)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1500, 3)).astype(dtype)
    for ids in (rng.integers(-5, 5, 1500), rng.permutation(1500), np.zeros(1500, int)):
        with strict_device.installed():
            target = upload(np.zeros((1500, 3), dtype))
            kernels.add_at(target, upload(ids), upload(values))
            found = target.get()
        total = np.zeros((1500, 3))
        for i, x in zip(ids, values.astype(np.float64), strict=True):
            total[i] += x
        np.testing.assert_array_equal(found, total.astype(dtype))


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "functions"])
@pytest.mark.parametrize("limit", [1, 1 << 20], ids=["sorted", "unsorted"])
def test_an_index_outside_of_the_axis_writes_nothing_outside(
    monkeypatch: pytest.MonkeyPatch, kernel: bool, limit: int
) -> None:
    monkeypatch.setattr(training_step, "SORTED", limit)
    with strict_device.installed():
        if not kernel:
            monkeypatch.setattr(kernels, "on_gpu", {})
        memory = upload(np.zeros((9, 2), "f4"))
        ids = upload(np.array([3, -4, 10**12, -(10**12), 1]))
        kernels.add_at(memory[3:6], ids, upload(np.ones((5, 2), "f4")))
        found = memory.get()
    rows = np.bincount(np.array([3, -4, 10**12, -(10**12), 1]) % 3, minlength=3)
    np.testing.assert_array_equal(found[3:6], np.stack([rows, rows], axis=1))
    assert not found[:3].any()
    assert not found[6:].any()


def test_infinite_values_stay_in_their_rows(accelerator: str) -> None:
    for run in (lambda f: f(), with_cupy):
        target = upload(np.zeros((3, 1), "f4"))
        values = upload(np.array([[np.inf], [1.0], [np.nan]], "f4"))
        run(lambda: kernels.add_at(target, upload(np.array([0, 1, 2])), values))  # noqa: B023
        np.testing.assert_array_equal(target.get(), [[np.inf], [1.0], [np.nan]])


def test_an_arrays_other_layouts(accelerator: str, recorded: Recorded) -> None:
    target = upload(np.zeros((3, 4), "f4")).T
    values = upload(np.ones((3, 2), "f4")).T
    kernels.add_at(target, upload(np.array([1, 1])), values)
    np.testing.assert_array_equal(target.get(), np.outer([0, 2, 0, 0], [1, 1, 1]))
    assert recorded.done == [("add_rows", True)]


def test_the_gradient_of_an_embedding_repeats(accelerator: str, recorded: Recorded) -> None:
    rng = np.random.default_rng(0)
    ids, weights = rng.integers(0, 6, (9, 8)), rng.normal(size=(9, 8, 5)).astype("f4")
    found = []
    for device in ("cpu", "cuda", "cuda"):
        embedding = tg.nn.Embedding(6, 5, rng=0).to(device)
        y = embedding(tg.tensor(ids, device=device)) * tg.tensor(weights, device=device)
        y.sum().backward()
        found.append(embedding.weight.grad.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[1], found[2])
    assert ("add_rows", True) in recorded.done


# -- clipping --------------------------------------------------------------------------------------


def parameters(device: str, arrays: Any) -> list[Any]:
    with tg.default_device(device):
        return [Parameter(tg.tensor(x, device=device)) for x in arrays]


def with_gradients(device: str, dtype: str, count: int = 3) -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = [(20, 7), (), (0,), (90, 100), (3,)] * count
    params = parameters(device, [np.zeros(shape, dtype) for shape in shapes])
    for p in params:
        p.grad = tg.tensor(np.asarray(rng.normal(size=p.shape), dtype), device=device)
    turned = parameters(device, [np.zeros((40, 30), dtype)])[0]
    turned.grad = tg.tensor(rng.normal(size=(30, 40)).astype(dtype), device=device).T
    return [*params, turned]


@DTYPES
@pytest.mark.parametrize("count", [3, 60], ids=["one table", "two tables"])
@pytest.mark.parametrize("max_norm", [0.5, 1e9, np.inf])
def test_clipping_equals_cupys(
    accelerator: str, recorded: Recorded, dtype: str, count: int, max_norm: float
) -> None:
    found = []
    for run in (clip_grad_norm, clip_grad_norm, lambda *args: with_cupy(clip_grad_norm, *args)):
        params = with_gradients("cuda", dtype, count)
        norm = run(params, max_norm)
        assert (norm.device, norm.shape, norm.dtype) == ("cuda:0", (), dtype)
        found.append([norm.numpy(), *(p.grad.numpy() for p in params)])
    for x, y, z in zip(*found, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_allclose(x, z, rtol=TOLERANCE[dtype])
    assert recorded.done == [("clip_gradients", True)] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clipping_of_gradients_that_are_not_finite(accelerator: str, bad: float) -> None:
    for value, clipped in ((False, True), (True, False)):
        params = with_gradients("cuda", "float32")
        params[3].grad = tg.tensor(np.full((90, 100), bad, "f4"), device="cuda")
        before = params[0].grad.numpy()
        if value:
            with pytest.raises(FloatingPointError, match="of the parameters 3;"):
                clip_grad_norm(params, 1.0, error_if_nonfinite=True)
            np.testing.assert_array_equal(params[0].grad.numpy(), before)
        else:
            assert not np.isfinite(clip_grad_norm(params, 1.0).numpy())
            assert clipped
            expected = before * np.float32(0 if np.isinf(bad) else np.nan)
            np.testing.assert_array_equal(params[0].grad.numpy(), expected)


@pytest.mark.parametrize("kind", ["float16", "mixed", "strides", "empty"])
def test_other_gradients_are_left_to_cupy(accelerator: str, recorded: Recorded, kind: str) -> None:
    p, q = parameters("cuda", [np.ones((2, 3), "f4"), np.ones(3, "f4")])
    p.grad, q.grad = (tg.tensor(np.full(x.shape, 2, "f4"), device="cuda") for x in (p, q))
    if kind == "float16":
        p, q = parameters("cuda", [np.ones((2, 3), "f2"), np.ones(3, "f2")])
        p.grad, q.grad = (tg.tensor(np.full(x.shape, 2, "f2"), device="cuda") for x in (p, q))
    if kind == "mixed":
        q = parameters("cuda", [np.ones(3, "f8")])[0]
        q.grad = tg.tensor(np.full(3, 2.0), device="cuda")
    if kind == "strides":
        p.grad._rebind(upload(np.full((2, 6), 2, "f4"))[:, ::2])
    if kind == "empty":
        p, q = parameters("cuda", [np.ones(0, "f4")] * 2)
        p.grad, q.grad = (tg.tensor(np.ones(0, "f4"), device="cuda") for _ in range(2))
    norm = clip_grad_norm([p, q], 1.0)
    np.testing.assert_allclose(norm.numpy(), 0 if kind == "empty" else 6, rtol=1e-3)
    np.testing.assert_allclose(q.grad.numpy(), 1 / 3, rtol=1e-3)
    assert recorded.done == [("clip_gradients", False)]


# -- updates ---------------------------------------------------------------------------------------

RULES: dict[str, Any] = {
    "sgd": (SGD, {"lr": 0.1}),
    "momentum": (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "nesterov": (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adam": (Adam, {"weight_decay": 0.1}),
    "adamw": (AdamW, {}),
    "rmsprop": (RMSprop, {"momentum": 0.9, "weight_decay": 0.1}),
    "adagrad": (Adagrad, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", RULES)
@DTYPES
def test_updates_equal_cupys(accelerator: str, recorded: Recorded, name: str, dtype: str) -> None:
    kind, options = RULES[name]
    rng = np.random.default_rng(0)
    start = [np.asarray(rng.normal(size=s), dtype) for s in [(20, 7), (), (0,), (90, 100)] * 30]
    ours, theirs = (parameters("cuda", start) for _ in range(2))
    optimizers = [kind(params, **options) for params in (ours, theirs)]
    for step in range(3):
        for p, q in zip(ours, theirs, strict=True):
            grad = np.asarray(rng.normal(size=p.shape), dtype)
            made = tg.tensor(grad, device="cuda")
            if step == 1 and p.ndim == 2:  # in another order than the parameter
                made = tg.tensor(grad.T.copy(), device="cuda").T
            p.grad = q.grad = None if rng.random() < 0.2 else made
        ours[3].requires_grad = theirs[3].requires_grad = step != 1
        if step == 2:
            optimizers[0].lr = optimizers[1].lr = 0.01
        versions = [list(p._version) for p in ours]
        optimizers[0].step()
        with_cupy(optimizers[1].step)
        for p, version in zip(ours, versions, strict=True):
            assert (p._version > version) is (p.requires_grad and p.grad is not None)
    assert recorded.done == [("update_parameters", True)] * 3
    states = [optimizer.state_dict()["slots"] for optimizer in optimizers]
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        pairs = [(p.numpy(), q.numpy()), *((states[0][i][k], x) for k, x in states[1][i].items())]
        for x, y in pairs:
            if kind in (Adam, AdamW):  # a power may have another last bit
                np.testing.assert_allclose(x, y, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
            else:
                np.testing.assert_array_equal(x, y)


def test_parameters_that_share_memory_are_left_to_cupy(
    accelerator: str, recorded: Recorded
) -> None:
    data = upload(np.ones(20, "f4"))
    params = parameters("cuda", [np.ones(15, "f4")] * 2)
    for p, view in zip(params, (data[:15], data[5:]), strict=True):
        p._rebind(view)
        p.grad = tg.ones(15, device="cuda")
    SGD(params, lr=0.5).step()
    assert recorded.done == [("update_parameters", False)]
    np.testing.assert_array_equal(data.get(), [0.5] * 5 + [0.0] * 10 + [0.5] * 5)


@pytest.mark.parametrize("kind", ["float16", "own rule", "strides"])
def test_other_updates_are_left_to_cupy(accelerator: str, recorded: Recorded, kind: str) -> None:
    class Own(Optimizer):
        def _update(self, p: Any, g: Any, lr: Any, state: Any) -> None:
            p -= lr.astype(p.dtype) * g

    dtype = "f2" if kind == "float16" else "f4"
    p = parameters("cuda", [np.ones((3, 4), dtype)])[0]
    if kind == "strides":
        p._rebind(upload(np.ones((3, 8), dtype))[:, ::2])
    p.grad = tg.tensor(np.ones((3, 4), dtype), device="cuda")
    (Own if kind == "own rule" else SGD)([p], lr=0.5).step()
    assert recorded.done == [("update_parameters", False)]
    np.testing.assert_array_equal(p.numpy(), np.full((3, 4), 0.5))


def test_steps_are_counted_without_elements(accelerator: str) -> None:
    found = []
    for device in ("cpu", accelerator):
        p = tg.zeros(0, 3, device=device, requires_grad=True)
        optimizer = Adam([p], lr=0.5)
        for _ in range(3):
            p.grad = tg.zeros(0, 3, device=device)
            optimizer.step()
        found.append(str(optimizer.state_dict()))
    assert found[0] == found[1]


# -- cross-entropy ---------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(
    "shape", [(5,), (3, 1), (7, 2), (4, 5, 28), (3, 33), (2, 1024), (3, 2500)], ids=str
)
def test_cross_entropy_equals_numpys(
    accelerator: str, recorded: Recorded, dtype: str, smoothing: float, shape: Any
) -> None:
    rng = np.random.default_rng(0)
    logits = (30 * rng.normal(size=shape)).astype(dtype)
    target = rng.integers(0, shape[-1], shape[:-1])
    weights = rng.normal(size=shape[:-1]).astype(dtype)
    found = []
    for device in ("cpu", "cuda"):
        for weighted in (False, True):
            x = tg.tensor(logits, device=device, requires_grad=True)
            losses = F.cross_entropy(
                x, tg.tensor(target, device=device), label_smoothing=smoothing, reduction="none"
            )
            w = tg.tensor(weights, device=device)
            (losses * w if weighted else losses).sum().backward()
            found += [losses.numpy(), x.grad.numpy()]
    for ours, expected in zip(found[4:], found[:4], strict=True):
        atol = TOLERANCE[dtype] * max(1, np.abs(expected).max())
        np.testing.assert_allclose(ours, expected, rtol=10 * TOLERANCE[dtype], atol=atol)
    assert recorded.done.count(("cross_entropy", True)) == 4


def test_cross_entropy_of_extreme_logits(accelerator: str) -> None:
    x = tg.tensor(
        np.array([[np.inf, 0], [np.nan, 0], [0, np.nan], [-np.inf, 0], [0, -np.inf]], "f4"),
        device="cuda",
    )
    wide = np.zeros((4, 70), "f4")
    wide[0, 69] = wide[1, 1] = np.nan
    wide[2, 40], wide[3] = np.inf, -np.inf
    target = tg.tensor(np.zeros(5, int), device="cuda")
    with np.errstate(invalid="ignore"):
        found = F.cross_entropy(x, target, reduction="none").numpy()
        rows = F.cross_entropy(tg.tensor(wide, device="cuda"), target[:4], reduction="none")
    np.testing.assert_array_equal(found, [np.nan, np.nan, np.nan, np.inf, 0])
    assert np.isnan(rows.numpy()).all()


def test_a_target_that_is_no_class_gives_nan(accelerator: str) -> None:
    """Which classes a device's targets are, the host does not read."""
    logits, target = upload(np.zeros((4, 2), "f4")), upload(np.array([0, 2, -1, 1]))
    losses = training_step.cross_entropy(logits, target, 1, 0.0, None)
    assert np.isnan(losses.get()).tolist() == [False, True, True, False]
    grad = training_step.cross_entropy(logits, target, 1, 0.0, upload(np.ones(4, "f4")))
    assert np.isnan(grad.get()).all(axis=1).tolist() == [False, True, True, False]
    assert np.isnan(grad.get()).any(axis=1).tolist() == [False, True, True, False]


def test_other_layouts_axes_and_dtypes(accelerator: str, recorded: Recorded) -> None:
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(6, 5)).astype("f4"), rng.integers(0, 5, 6)
    expected = F.cross_entropy(tg.tensor(logits), target).item()
    turned = tg.tensor(logits.T.copy(), device="cuda")
    here = tg.tensor(target.astype("i4"), device="cuda")
    assert F.cross_entropy(turned.T, here).item() == pytest.approx(expected, rel=1e-6)
    assert F.cross_entropy(turned, here, axis=0).item() == pytest.approx(expected, rel=1e-6)
    half = tg.tensor(logits.astype("f2"), device="cuda")
    assert F.cross_entropy(half, here).item() == pytest.approx(expected, rel=1e-3)
    assert [done for _, done in recorded.done] == [True, False, True]


# -- a whole step ----------------------------------------------------------------------------------


def launches_of_a_step(kind: Any) -> dict[str, int]:
    """Return the launches of the parts of a training step."""
    found = {}

    def part(name: str) -> None:
        found[name], strict_device.launches = strict_device.launches, 0

    with strict_device.installed(), tg.default_device("cuda"):
        rng = np.random.default_rng(0)
        layers = [tg.nn.Embedding(28, 9), tg.nn.RNN(9, 8), tg.nn.Linear(8, 28)]
        params = [p for layer in layers for p in layer.parameters()]
        optimizer = kind(params, lr=0.01)
        ids, target = (tg.tensor(rng.integers(0, 28, (4, 5)), device="cuda") for _ in range(2))
        for _ in range(2):
            optimizer.zero_grad()
            embedding, rnn, head = layers
            x = embedding(ids)
            made = np.ascontiguousarray(head(rnn(x)[0]).numpy())
            logits = tg.tensor(made, device="cuda", requires_grad=True)
            strict_device.launches = 0
            loss = F.cross_entropy(logits, target)
            part("loss")
            loss.backward()
            part("backward")
            y = embedding(ids).sum()
            strict_device.launches = 0
            y.backward()
            part("embedding")
            for p in params:
                p.grad = tg.ones(*p.shape)
            strict_device.launches = 0
            clip_grad_norm(params, 1.0)
            part("clipping")
            optimizer.step()
            part("update")
    return found


@pytest.mark.parametrize(("kind", "update"), [(SGD, 1), (Adam, 2), (RMSprop, 1)])
def test_launches(kind: Any, update: int) -> None:
    most = {"loss": 6, "backward": 4, "embedding": 5, "clipping": 2, "update": update}
    found = launches_of_a_step(kind)
    assert {name: n for name, n in found.items() if n > most[name]} == {}


# -- without kernels -------------------------------------------------------------------------------


@pytest.fixture
def level() -> Iterator[None]:
    before = module.level(), module.reason()
    yield
    module.use(*before)


def trained() -> Any:
    """Return a parameter after a step: scatter-add, cross-entropy, clipping and Adam."""
    with tg.default_device("cuda"):
        w = parameters("cuda", [np.arange(12, dtype="f4").reshape(4, 3)])[0]
        ids = tg.tensor(np.array([1, 1, 3]), device="cuda")
        F.cross_entropy(tg.functional.embedding(ids, w), ids - 1).backward()
        norm = clip_grad_norm([w], 0.1)
        Adam([w], lr=0.5).step()
    return norm.numpy(), w.numpy()


def test_the_level_operations_means_cupys_functions(
    level: None, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with strict_device.installed():
        expected = trained()
        names = {name for name, done in recorded.done if done}
        assert names == {"add_rows", "clip_gradients", "cross_entropy", "update_parameters"}
        recorded.done.clear()
        module.use("operations")
        found = trained()
    assert recorded.done
    assert not any(done for _, done in recorded.done)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_a_kernel_that_does_not_compile_is_told_once(
    level: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **keywords: Any) -> Any:
        raise RuntimeError("no headers")

    with strict_device.installed() as cupy:
        expected = trained()
        module.kernel.cache_clear()
        monkeypatch.setattr(cupy, "RawModule", broken)
        with pytest.warns(ExecutorWarning, match="the GPU runs operations, not kernels: .*no hea"):
            found = trained()
        found = trained()
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


# -- without a GPU ---------------------------------------------------------------------------------


def texts() -> dict[str, str]:
    """Return all CUDA texts of a training step."""
    found = {"copies": tables.text_of("copies", np.dtype("float32"), 2)}
    for dtype in map(np.dtype, ("float32", "float64")):
        for name in ("training_step", "random_numbers"):
            found[f"{name} {dtype}"] = tables.text_of(name, dtype)
        for name, (kind, options) in RULES.items():
            optimizer = kind([Parameter(np.ones(2, dtype))], **options)
            text = gpu_updates.text_of(updates.rule_of(optimizer, dtype), dtype)
            found[f"{name} {dtype}"] = text
    return found


@pytest.mark.slow
@pytest.mark.skipif(nvcc.unavailable_because() is not None, reason=str(nvcc.unavailable_because()))
@pytest.mark.parametrize("name", texts())
def test_the_kernels_compile_without_spills(name: str, tmp_path: Path) -> None:
    found = texts()
    chosen = nvcc.architectures([*found].index(name))
    assert nvcc.compile_without_spills(found[name], tmp_path, chosen) >= len(chosen)


@pytest.mark.skipif(nvcc.unavailable_because() is not None, reason=str(nvcc.unavailable_because()))
def test_a_spill_is_noticed(tmp_path: Path) -> None:
    lines = "\n".join(f"double x{i} = x[i + {i}];" for i in range(200))
    total = " + ".join(f"x{i} * x{(7 * i + 3) % 200}" for i in range(200))
    head = 'extern "C" __global__ void __launch_bounds__(1024) f(double *x, int i)'
    text = f"{head} {{{lines} __syncthreads(); x[i] = {total};}}"
    with pytest.raises(AssertionError, match="spill stores"):
        nvcc.compile_without_spills(text, tmp_path)
