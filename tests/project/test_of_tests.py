"""The tests of the tests: each mistake planted here is caught by a test that is named.

A planted mistake replaces one rule or one function of the library; then the test, called as a
function, must fail. (A wrong rule of a user's operation is planted in test_testing.py.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import test_device
import test_dlpack
import test_gpu
import test_gpu_indices
import test_graph
import test_layers
import test_module
import test_ops
import test_recurrent
from hypothesis import Phase, is_hypothesis_test, settings

import strict_device
import tinygrad_rnn as tg
from op_table import ROWS
from tinygrad_rnn import tensors as ops
from tinygrad_rnn._util import gpu, gpu_indices
from tinygrad_rnn.engine import backend, backward_pass, tensor
from tinygrad_rnn.engine.codegen import OpDefinition
from tinygrad_rnn.engine.namespaces import PRIMITIVES
from tinygrad_rnn.engine.ops import kernels
from tinygrad_rnn.errors import GraphError
from tinygrad_rnn.nn import cells

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_plans")]

Plant = pytest.MonkeyPatch
TABLE = {row.name: row for row in ROWS}
WRONG_RESULT = (
    AssertionError,
    GraphError,
    ValueError,
    pytest.fail.Exception,
    strict_device.PerformanceWarning,
    strict_device.StrictError,
)
# Which examples are drawn depends on the modules that are imported: hypothesis collects their
# constants. So enough are drawn that no order of the test files lets a mistake pass.
QUICK = settings(
    settings.get_profile("ci"),
    derandomize=True,
    database=None,
    max_examples=500,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)


def catches(test: Callable[..., Any], *args: Any, **keywords: Any) -> None:
    """Fail unless the test fails; the first example that fails is enough, nothing is shrunk."""
    with pytest.MonkeyPatch.context() as patch:
        if is_hypothesis_test(test):
            patch.setattr(test, "_hypothesis_internal_use_settings", QUICK)
        try:
            test(*args, **keywords)
        except WRONG_RESULT:
            return
    raise AssertionError(f"{test.__name__} passes with a mistake planted")


def plant_rule(plant: Plant, name: str, **vjps: Any) -> None:
    """Give a primitive of the table other vjps: another row's code and all that it refers to."""
    operation = PRIMITIVES[name]
    row = OpDefinition(operation.definition.forward, vjps, None)
    row.floating, row.view = operation.definition.floating, operation.definition.view
    planted = row.operation()
    for key, value in planted.__globals__.items():
        plant.setitem(operation.__globals__, key, value)
    plant.setattr(operation, "__code__", planted.__code__)


def catches_in_derivatives(*names: str) -> None:
    """Fail unless the test of the derivatives of each of these operations of the table fails."""
    for name in names:
        catches(test_ops.test_gradients_of_two_orders_equal_differences, row=TABLE[name])


# -- rules -----------------------------------------------------------------------------------------

FIRST_ORDER = {
    "a factor is missing": ("tanh", {"x": lambda F, g, out: g * (1 - out)}),
    "a sign": ("subtract", {"x": lambda F, g: g, "y": lambda F, g: g}),
    "the other argument's": (
        "multiply",
        {"x": lambda F, g, x: g * x, "y": lambda F, g, y: g * y},
    ),
    "the shape is right, the axis is not": (
        "softmax",
        {"x": lambda F, g, out, axis: out * (g - F.sum(g * out, axis=0, keepdims=True))},
    ),
    "the mean's count": (
        "mean",
        {
            "x": lambda F, g, x_shape, axis, keepdims: PRIMITIVES["sum"].definition.rules[0](
                F, g, x_shape, axis, keepdims
            )
        },
    ),
    "a transpose is not undone": (
        "transpose",
        {"x": lambda F, g, axes: F.transpose(g, axes=axes)},
    ),
}


@pytest.mark.parametrize("what", FIRST_ORDER)
def test_a_wrong_gradient_is_caught(what: str, monkeypatch: Plant) -> None:
    name, rules = FIRST_ORDER[what]
    plant_rule(monkeypatch, name, **rules)
    catches_in_derivatives(name)


def hidden(F: Any, x: Any) -> Any:
    """The same values without their graph: what makes a derivative a constant."""
    return x.detach() if F.records else x


SECOND_ORDER = {
    "tanh": {"x": lambda F, g, out: g * (1 - hidden(F, out) * hidden(F, out))},
    "sigmoid": {"x": lambda F, g, out: g * (hidden(F, out) * (1 - out))},
    "multiply": {"x": lambda F, g, y: g * hidden(F, y), "y": lambda F, g, x: g * x},
    "log": {"x": lambda F, g, x: hidden(F, g) / x},
}


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_a_gradient_that_is_right_once_and_wrong_twice_is_caught(
    name: str, monkeypatch: Plant
) -> None:
    plant_rule(monkeypatch, name, **SECOND_ORDER[name])
    catches_in_derivatives(name)


# -- broadcasting, repeated indices ----------------------------------------------------------------


honest_fit = backward_pass.unbroadcast


def first_of_each(grad: Any, node: Any, F: Any) -> Any:
    """Cut a gradient down to its argument's shape instead of summing it."""
    extra = len(grad.shape) - len(node.shape)
    key = (*[slice(0, 1)] * extra, *[slice(0, n) for n in node.shape])
    return honest_fit(F.getitem(grad, key=key), node, F)


@pytest.mark.parametrize("fit", [lambda grad, node, F: grad, first_of_each], ids=["none", "cut"])
def test_a_missing_unbroadcast_is_caught(fit: Any, monkeypatch: Plant) -> None:
    monkeypatch.setattr(backward_pass, "unbroadcast", fit)
    catches_in_derivatives("add", "multiply", "where")


def test_an_overwritten_repeated_index_is_caught(monkeypatch: Plant) -> None:
    def overwrite(target: Any, key: Any, values: Any) -> None:
        target[key] += values  # NumPy reads all, adds, writes all: the last one wins

    monkeypatch.setattr(kernels, "add_at", overwrite)
    catches_in_derivatives("getitem", "F.getitem", "take")
    catches(test_ops.test_forward_equals_numpy, row=TABLE["F.scatter"])
    catches(test_layers.test_embedding_looks_up_rows_and_adds_up_their_gradients)


# -- recurrent cells -------------------------------------------------------------------------------


class SwappedGates:
    """The operations, but for the order of the first two gates."""

    def __getattr__(self, name: str) -> Any:
        return getattr(ops, name)

    def split(self, x: Any, count: int, axis: int) -> Any:
        first, second, *rest = ops.split(x, count, axis=axis)
        return [second, first, *rest]


def test_a_swapped_gate_is_caught(monkeypatch: Plant) -> None:
    monkeypatch.setattr(cells, "ops", SwappedGates())
    catches(test_recurrent.test_outputs_and_states_equal_the_equations, device="cpu")
    catches(test_recurrent.test_gradients_equal_differences_of_the_equations)


@pytest.mark.oracle
def test_a_swapped_gate_is_seen_by_pytorch(monkeypatch: Plant) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(cells, "ops", SwappedGates())
    catches(test_recurrent.test_outputs_states_and_every_gradient_equal_pytorch)


# -- memory ----------------------------------------------------------------------------------------


def three() -> Any:
    return test_graph.leaf([0.5, -1.0, 2.0])


def test_an_aliasing_gradient_is_caught(monkeypatch: Plant) -> None:
    monkeypatch.setattr(backend, "copy", lambda array: array)
    catches(test_graph.test_gradients_of_two_leaves_never_share_memory)
    catches(test_graph.test_a_gradient_shares_no_memory_with_what_it_was_started_from)
    catches(test_graph.test_gradients_given_back_together_never_share_memory, three())
    catches(test_graph.test_a_stored_gradient_is_a_whole_array, three())


def test_adding_into_somebody_elses_gradient_is_caught(monkeypatch: Plant) -> None:
    before = backward_pass.Accumulator.__init__

    def take_over(self: Any, F: Any, first: Any) -> None:
        before(self, F, first)
        self.owned = True

    monkeypatch.setattr(backward_pass.Accumulator, "__init__", take_over)
    catches(test_graph.test_a_gradient_that_two_arguments_get_is_not_added_into)


def test_a_stale_saved_array_is_caught(monkeypatch: Plant) -> None:
    monkeypatch.setattr(tensor.Tensor, "_bump", lambda self: None)
    catches(test_graph.test_changing_a_value_that_was_saved_is_refused, three())
    catches(test_graph.test_views_and_detached_tensors_share_the_version, three())
    catches(test_module.test_loading_accepts_tensors_and_makes_a_pending_backward_raise)
    catches(test_dlpack.test_a_tensor_of_our_own_keeps_its_version)


# -- a GPU -----------------------------------------------------------------------------------------


def reads(x: Any) -> Any:
    """Return x, with its first element read by the host."""
    return x * (1.0 if float(x.sum()) < 1e30 else 2.0)


def calls_numpy(x: Any) -> Any:
    """Return x, after a call of NumPy on its array."""
    return x * float(np.isfinite(x._data).all())


def uploads(x: Any) -> Any:
    """Return x plus zeros that are made on the host."""
    return x + tg.tensor(np.zeros(x.shape, x.dtype), device=x.device)


HIDDEN = {"a read": reads, "a call of NumPy": calls_numpy, "an upload": uploads}


@pytest.mark.usefixtures("plain_loops")
@pytest.mark.parametrize("what", HIDDEN)
@pytest.mark.parametrize("where", ["a step of the loop", "a layer", "the loss", "the update"])
def test_what_makes_a_training_step_wait_for_the_device_is_caught(
    what: str, where: str, monkeypatch: Plant
) -> None:
    planted = HIDDEN[what]
    test_device.test_a_training_step_never_waits_for_the_device()  # passes without a mistake
    if where == "a step of the loop":
        step = cells.LSTMCell.step
        monkeypatch.setattr(
            cells.LSTMCell, "step", lambda self, z, state: step(self, planted(z), state)
        )
    elif where == "a layer":
        linear = tg.functional.linear
        monkeypatch.setattr(tg.functional, "linear", lambda x, w, b: linear(planted(x), w, b))
    elif where == "the loss":
        loss = tg.functional.cross_entropy
        monkeypatch.setattr(
            tg.functional, "cross_entropy", lambda x, ids, **o: loss(planted(x), ids, **o)
        )
    else:
        step = tg.optim.Adam.step
        monkeypatch.setattr(
            tg.optim.Adam, "step", lambda self: (planted(self.params[0]), step(self))
        )
    catches(test_device.test_a_training_step_never_waits_for_the_device)


def test_an_unchecked_index_on_the_device_is_caught(monkeypatch: Plant) -> None:
    monkeypatch.setattr(gpu_indices, "record", lambda *args: None)
    with strict_device.installed():
        catches(
            test_gpu_indices.test_an_index_out_of_range_is_an_error_wherever_the_indices_are,
            accelerator="cuda",
        )


def test_an_unchecked_index_of_the_host_is_caught(monkeypatch: Plant) -> None:
    monkeypatch.setattr("tinygrad_rnn.tensors.checks.in_range", lambda *args: None)
    with strict_device.installed():
        catches(
            test_gpu_indices.test_an_index_out_of_range_is_an_error_wherever_the_indices_are,
            accelerator="cuda",
        )


@pytest.mark.parametrize("direction", ["there", "back"])
def test_a_lost_memory_order_is_caught(direction: str, monkeypatch: Plant) -> None:
    if direction == "there":
        monkeypatch.setattr(gpu, "to_current_device", lambda cupy, array: cupy.asarray(array))
    else:
        monkeypatch.setattr(gpu, "to_host", lambda array: array.get())
    with strict_device.installed():
        catches(test_gpu.test_an_array_keeps_its_memory_order_there_and_back, accelerator="cuda")


def test_devices_that_are_not_compared_are_caught(monkeypatch: Plant) -> None:
    """A product of CuPy compares none; in strict_device.py its result is nan."""
    monkeypatch.setattr(backend, "check_devices", lambda values, name: {strict_device.cupy})
    with strict_device.installed(2):
        catches(test_gpu.TestTwoDevices().test_they_do_not_mix)
        catches(test_gpu.TestTwoDevices().test_a_thread_computes_on_its_default_device)


def test_a_device_that_is_not_tried_is_caught(monkeypatch: Plant) -> None:
    monkeypatch.setattr(gpu, "unusable_because", lambda cupy: None)
    with strict_device.installed() as cupy:
        for name, error in (("matmul", ImportError("cuBLAS")), ("full", RuntimeError("headers"))):
            catches(
                test_gpu.test_a_device_that_is_found_and_cannot_compute_is_not_available,
                cupy,
                monkeypatch,
                name,
                error,
            )
