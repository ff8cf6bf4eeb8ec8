"""Modules: what is registered, in which order, under which names, and what survives what."""

from __future__ import annotations

import contextlib
import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ArgumentError, DTypeError
from tinygrad_rnn.nn import Linear, Module, ModuleList, Parameter, Sequential

SHAPES = st.sampled_from([(), (1,), (3,), (2, 3), (0,), (2, 1, 2)])
NAMES = st.sampled_from(["a", "b", "weight", "cells", "x0"])


def _tree(leaf):
    """Return nested lists, dicts and modules of leaves; a module is written ("module", dict)."""
    return st.recursive(
        leaf,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(NAMES, inner, max_size=3)
            | st.dictionaries(NAMES, inner, max_size=3).map(lambda parts: ("module", parts))
        ),
        max_leaves=12,
    )


MODULES = st.dictionaries(NAMES, _tree(SHAPES.map(lambda shape: ("parameter", shape))), max_size=4)


def build(spec):
    """Return what a spec describes, every parameter filled with different numbers."""
    count = 0

    def make(part):
        nonlocal count
        if isinstance(part, list):
            return [make(item) for item in part]
        if isinstance(part, dict):
            return {name: make(item) for name, item in part.items()}
        kind, content = part
        if kind == "parameter":
            size = int(np.prod(content))
            count += size
            return Parameter(np.arange(count - size, count, dtype=np.float64).reshape(content))
        module = Module()
        for name, item in content.items():
            setattr(module, name, make(item))
        return module

    return make(("module", spec))


def resolve(module, name):
    """Follow a dotted name through attributes, keys and indices."""
    value = module
    for part in name.split("."):
        if isinstance(value, list):
            value = value[int(part)]
        elif isinstance(value, dict):
            value = value[part]
        else:
            value = getattr(value, part)
    return value


def leaves(part):
    """Count the parameters in a spec."""
    if isinstance(part, list):
        return sum(leaves(item) for item in part)
    if isinstance(part, dict):
        return sum(leaves(item) for item in part.values())
    return 1 if part[0] == "parameter" else leaves(part[1])


@given(MODULES)
def test_every_parameter_is_found_once_under_the_name_that_leads_to_it(spec):
    module = build(spec)
    named = list(module.named_parameters())
    assert len(named) == leaves(spec)
    assert len({name for name, _ in named}) == len(named)
    assert all(resolve(module, name) is parameter for name, parameter in named)
    pairs = zip(named, module.parameters(), strict=True)
    assert all(p is q for (_, p), q in pairs)
    assert all(resolve(module, name) is m for name, m in module.named_modules() if name)


@given(MODULES)
def test_state_dict_round_trip_is_exact_and_in_place(spec):
    module, other = build(spec), build(spec)
    state = module.state_dict()
    for parameter in other.parameters():
        parameter.data = np.full(parameter.shape, -1.0)
    held = list(other.parameters())
    assert other.load_state_dict(state) == ([], [])
    assert all(a is b for a, b in zip(held, other.parameters(), strict=True))
    for name, value in other.state_dict().items():
        assert isinstance(value, np.ndarray)
        np.testing.assert_array_equal(value, state[name], strict=True)


@given(MODULES, st.data())
def test_state_dict_is_a_copy(spec, data):
    module = build(spec)
    state = module.state_dict()
    before = {name: value.copy() for name, value in state.items()}
    for parameter in module.parameters():
        parameter.data = np.full(parameter.shape, -1.0)
    for name in state:
        np.testing.assert_array_equal(state[name], before[name])


@given(MODULES.filter(lambda spec: leaves(spec) > 0), st.data())
def test_a_state_that_does_not_fit_is_refused_before_anything_is_written(spec, data):
    module, state = build(spec), build(spec).state_dict()
    state = {name: value + 100 for name, value in state.items()}
    before = module.state_dict()
    name = data.draw(st.sampled_from(sorted(state)))
    fault = data.draw(st.sampled_from(["missing", "unexpected", "shape", "dtype", "kind"]))
    if fault == "missing":
        del state[name]
    elif fault == "unexpected":
        state[name + ".more"] = np.zeros(2)
    elif fault == "shape":
        state[name] = np.zeros((7, *state[name].shape))
    elif fault == "dtype":
        state[name] = state[name].astype(np.longdouble if np.finfo("g").bits > 64 else np.int64)
    else:
        state[name] = state[name].tolist()
    with pytest.raises(ArgumentError, match=name.replace(".", r"\.")):
        module.load_state_dict(state)
    for key, value in module.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_the_error_of_a_wrong_state_lists_every_fault():
    model = Sequential(Linear(2, 3), Linear(3, 1))
    state = model.state_dict()
    del state["0.bias"]
    state["2.weight"] = np.zeros(1, np.float32)
    state["1.weight"] = np.zeros((1, 4), np.float32)
    state["1.bias"] = np.zeros(1, np.float64)
    with pytest.raises(ArgumentError) as caught:
        model.load_state_dict(state)
    message = str(caught.value)
    assert message.startswith("Sequential.load_state_dict: nothing was loaded")
    for part in (
        "missing: 0.bias",
        "unexpected: 2.weight",
        "1.weight is float32 (1, 4), the module's is float32 (1, 3)",
        "1.bias is float64 (1,), the module's is float32 (1,): convert the module by "
        ".to('float64'), or round the values, {name: x.astype('float32')",
    ):
        assert part in message


SMALLER = [("float16", "float32"), ("float16", "float64"), ("float32", "float64")]


@pytest.mark.parametrize(("given_dtype", "dtype"), SMALLER)
def test_values_of_a_smaller_dtype_are_converted_exactly(given_dtype, dtype):
    model = Linear(2, 3, dtype=dtype)
    values = np.random.default_rng(0).normal(size=(3, 2)).astype(given_dtype)
    state = {"weight": values, "bias": tg.tensor([1, 2, 3], dtype=given_dtype)}
    model.load_state_dict(state)
    assert model.weight.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(model.weight.numpy(), values)
    back = Linear(2, 3, dtype=given_dtype)
    with pytest.raises(ArgumentError, match=rf"by \.to\('{dtype}'\), or round the values, "):
        back.load_state_dict(model.state_dict())
    back.load_state_dict({k: x.astype(given_dtype) for k, x in model.state_dict().items()})
    np.testing.assert_array_equal(back.weight.numpy(), values)


@pytest.mark.parametrize(("given_dtype", "fits"), [("int32", True), ("uint8", True),
                         ("float32", False), ("uint64", False), ("bool", False)])  # fmt: skip
def test_integer_buffers_take_only_integers_that_they_can_hold(given_dtype, fits):
    module = tg.nn.Module()
    module.register_buffer("count", np.array([7], np.int64))
    state = {"count": np.array([1], given_dtype)}
    if fits:
        module.load_state_dict(state)
        assert (module.count.dtype, module.count.item()) == (np.int64, 1)
        return
    with pytest.raises(ArgumentError, match=r"convert the value by .astype\('int64'\)"):
        module.load_state_dict(state)
    assert module.count.item() == 7


class Exporter:
    """A value of another library, which NumPy reads by one protocol."""

    def __init__(self, values, error=None):
        self.values, self.error = values, error

    def __array__(self, dtype=None, copy=None):
        if self.error is not None:
            raise self.error
        return self.values


def test_values_are_read_by_the_protocols_of_arrays():
    model = Linear(2, 1)
    weight = np.array([[1.0, 2.0]], np.float32)
    model.load_state_dict({"weight": Exporter(weight), "bias": Exporter(np.ones(1, np.float16))})
    np.testing.assert_array_equal(model.weight.numpy(), weight)
    assert model.bias.item() == 1.0
    weight[:] = 0  # the values were copied
    assert model.weight.numpy().any()
    before = model.state_dict()
    graph = Exporter(weight)
    graph.requires_grad = True
    for value, message in (
        (
            graph,
            r"has a graph of its library: weight is a .*Exporter: pass the state_dict\(\) there",
        ),
        (Exporter(weight, TypeError("no bits")), "weight is a .*: no bits: convert it there"),
        ([[1.0, 2.0]], "not an array: weight is a list"),
        (None, "not an array: weight is a NoneType"),
    ):
        with pytest.raises(ArgumentError, match=message):
            model.load_state_dict({"weight": value, "bias": np.ones(1, np.float32)})
        np.testing.assert_equal(model.state_dict(), before)


@pytest.mark.oracle
def test_the_state_of_a_module_of_pytorch_is_loaded():
    torch = pytest.importorskip("torch")
    peer = torch.nn.LSTM(3, 4, num_layers=2)
    model = tg.nn.LSTM(3, 4, num_layers=2)
    model.load_state_dict(peer.state_dict())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, peer.state_dict()[name].numpy())
    model.load_state_dict(peer.half().state_dict())  # float16 to float32
    with pytest.raises(ArgumentError, match=r"weight_hh_l0 .*state_dict\(\) there"):
        model.load_state_dict(dict(peer.named_parameters()))
    with pytest.raises(ArgumentError, match="convert it there, to float32 on the CPU"):
        model.load_state_dict(peer.bfloat16().state_dict())
    with pytest.raises(ArgumentError, match=r"by \.to\('float64'\)"):
        model.load_state_dict(peer.double().state_dict())


def test_strict_false_reports_names_and_still_refuses_wrong_shapes():
    model = Linear(2, 3)
    weight = np.ones((3, 2), np.float32)
    report = model.load_state_dict({"weight": weight, "extra": weight}, strict=False)
    assert report == (["bias"], ["extra"])
    np.testing.assert_array_equal(model.weight.numpy(), weight)
    with pytest.raises(ArgumentError, match="does not fit: weight"):
        model.load_state_dict({"weight": weight.T}, strict=False)


def test_loading_accepts_tensors_and_makes_a_pending_backward_raise():
    model = Linear(2, 3)
    x = tg.ones(1, 2, requires_grad=True)
    loss = (model(x) ** 2).sum()
    model.load_state_dict({"weight": tg.ones(3, 2), "bias": tg.ones(3)})
    np.testing.assert_array_equal(model.weight.numpy(), np.ones((3, 2), np.float32))
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_order_is_that_of_assignment_a_modules_own_first():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.z = Linear(1, 1)
            self.b = Parameter(tg.zeros(1))
            self.a = [Parameter(tg.zeros(1)), Linear(1, 1, bias=False)]

    names = [name for name, _ in Net().named_parameters()]
    assert names == ["b", "a.0", "z.weight", "z.bias", "a.1.weight"]
    assert list(Net().state_dict()) == names


@pytest.mark.oracle
def test_names_and_order_are_pytorchs():
    torch = pytest.importorskip("torch")

    def net(base, linear):
        class Net(base):
            def __init__(self):
                super().__init__()
                self.first = linear(2, 3)
                self.second = linear(3, 1)
                self.again = self.first

        return Net()

    ours = net(Module, Linear)
    theirs = net(torch.nn.Module, torch.nn.Linear)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    x = np.ones((5, 2), np.float32)
    np.testing.assert_array_equal(ours.first.weight.numpy(), theirs.first.weight.detach().numpy())
    np.testing.assert_allclose(
        ours.second(ours.first(tg.tensor(x))).numpy(),
        theirs.second(theirs.first(torch.tensor(x))).detach().numpy(),
        rtol=1e-5,
    )


def test_tied_parameters_come_once_and_stand_in_the_state_under_every_name():
    model = Sequential(Linear(2, 2, bias=False), Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    assert [name for name, _ in model.named_parameters()] == ["0.weight"]
    state = model.state_dict()
    assert list(state) == ["0.weight", "1.weight"]
    model.load_state_dict(state)
    state["1.weight"] = state["1.weight"] + 1
    with pytest.raises(ArgumentError, match=r"1\.weight and 0\.weight are one tensor"):
        model.load_state_dict(state)


def test_a_module_that_contains_itself_is_walked_once():
    parent, child = Module(), Module()
    parent.child, child.parent, child.me = child, parent, child
    child.weight = Parameter(tg.zeros(2))
    assert [name for name, _ in parent.named_parameters()] == ["child.weight"]
    assert [name for name, _ in parent.named_modules()] == ["", "child"]
    assert list(parent.state_dict()) == ["child.weight"]
    assert "weight (2,)" in repr(parent)


def test_two_entries_of_one_name_are_refused():
    module = Module()
    module.a = {"b.c": Parameter(tg.zeros(1)), "b": {"c": Parameter(tg.ones(1))}}
    with pytest.raises(ArgumentError, match=r"'a\.b\.c'"):
        module.state_dict()


# -- attributes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, [1], "x", Parameter(np.zeros(1)), Linear(1, 1), None])
def test_a_forgotten_super_init_is_named(value):
    class Forgetful(Module):
        def __init__(self):
            self.part = value

    with pytest.raises(AttributeError, match=r"Forgetful.*super\(\).__init__\(\)"):
        Forgetful()


def test_a_forgotten_super_init_is_named_when_an_attribute_is_read():
    class Forgetful(Linear):
        def __init__(self):
            pass

    with pytest.raises(AttributeError, match=r"Forgetful.*super\(\).__init__\(\)"):
        Forgetful()(tg.ones(1, 1))


def test_an_unknown_attribute_suggests_near_spellings():
    layer = Linear(2, 3)
    with pytest.raises(AttributeError, match=r"did you mean .*weight"):
        _ = layer.wieght
    with pytest.raises(AttributeError, match=r"Linear has no attribute 'qqqq'$"):
        _ = layer.qqqq
    with pytest.raises(AttributeError, match=r'to\("cuda"\)'):
        layer.cuda()
    assert not hasattr(layer, "qqqq")
    assert getattr(layer, "qqqq", 7) == 7


def test_a_parameter_is_not_overwritten_by_something_that_is_none():
    layer = Linear(2, 3)
    for value in (np.zeros((3, 2)), tg.zeros(3, 2), 1.0):
        with pytest.raises(ArgumentError, match="weight is a Parameter"):
            layer.weight = value
    layer.weight = Parameter(tg.zeros(3, 2))
    layer.bias = None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    layer.bias = Parameter(tg.zeros(3))
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    del layer.bias
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_a_module_is_not_overwritten_by_a_value():
    model = Sequential(Linear(2, 3))
    model.part = Linear(2, 2)
    for value in (tg.zeros(2), np.zeros(2), 1.0, "x"):
        with pytest.raises(ArgumentError, match=r"part is a module, Linear, .* not "):
            model.part = value
    assert len(list(model.parameters())) == 4
    for value in (tg.tanh, Linear(1, 1), None, Linear(1, 1), [Linear(1, 1)], Linear(1, 1)):
        model.part = value
        assert model.part is value
    model.part = Parameter(tg.ones(1))
    assert [name for name, _ in model.named_parameters()] == ["part", "0.weight", "0.bias"]


def test_plain_values_tensors_and_classes_are_not_registered():
    module = Module()
    module.number, module.text, module.kind, module.nothing = 3, "x", Linear, None
    module.tensor = tg.ones(2, requires_grad=True)
    module.call = tg.tanh
    assert list(module.parameters()) == []
    assert module.state_dict() == {}
    assert repr(module) == "Module\n  call: tanh"


def test_forward_that_is_missing_is_named():
    class Empty(Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty"):
        Empty()(1)


# -- buffers ---------------------------------------------------------------------------------------


def test_buffers_belong_to_the_state_and_not_to_the_parameters():
    module = Module()
    module.weight = Parameter(tg.zeros(2))
    module.register_buffer("mean", np.arange(2.0))
    module.register_buffer("count", tg.tensor(np.array([3])))
    assert [name for name, _ in module.named_buffers()] == ["mean", "count"]
    assert all(a is b for a, b in zip(module.buffers(), [module.mean, module.count], strict=True))
    assert list(module.parameters()) == [module.weight]
    assert list(module.state_dict()) == ["weight", "mean", "count"]
    module.mean = tg.tensor(np.array([5.0, 6.0]))
    np.testing.assert_array_equal(module.state_dict()["mean"], [5.0, 6.0])
    assert repr(module) == "Module(weight (2,), mean (2,), count (1,))  2 parameters"
    module.load_state_dict({k: np.zeros_like(v) for k, v in module.state_dict().items()})
    np.testing.assert_array_equal(module.mean.numpy(), [0.0, 0.0])


@pytest.mark.parametrize("recorded", [False, True])
def test_a_buffer_that_was_computed_is_loaded_copied_and_converted(recorded, tmp_path):
    class Running(Module):
        def __init__(self):
            super().__init__()
            self.first = Parameter(np.zeros(2))
            self.register_buffer("mean", tg.zeros(2, dtype="float64"))
            self.register_buffer("steps", tg.tensor(0))
            self.last = Parameter(np.zeros(2))

        def forward(self, x):
            self.mean = 0.9 * self.mean + 0.1 * x.mean(axis=0)
            self.steps += 1
            return (x - self.mean).sum()

    module, x = Running(), tg.tensor(np.ones((3, 2)), requires_grad=True)
    with contextlib.nullcontext() if recorded else tg.no_grad():
        loss = module(x)
    state = module.state_dict()
    assert state["steps"] == 1
    np.testing.assert_allclose(state["mean"], [0.1, 0.1])
    held = module.mean
    module.load_state_dict({name: np.full_like(value, 7) for name, value in state.items()})
    assert module.mean is held and not held.requires_grad
    for value in module.state_dict().values():
        np.testing.assert_array_equal(value, np.full_like(value, 7))
    if recorded:  # the graph saved what it computed with
        loss.backward()
        np.testing.assert_allclose(x.grad.numpy(), np.full((3, 2), 0.9))
    copied = copy.deepcopy(module)
    copied.load_state_dict(state)
    np.testing.assert_array_equal(module.mean.numpy(), [7, 7])
    with contextlib.nullcontext() if recorded else tg.no_grad():
        module(x)
    assert module.to("float32").mean.is_leaf and not module.mean.requires_grad


@pytest.mark.parametrize("stretched", [False, True])
def test_a_buffer_on_read_only_memory_is_loaded(stretched):
    array = np.zeros(2)
    array.flags.writeable = False
    module = Module()
    module.first = Parameter(np.zeros(2))
    module.register_buffer(
        "fixed", tg.broadcast_to(tg.zeros(1), (2,)) if stretched else tg.from_dlpack(array)
    )
    module.load_state_dict(
        {k: v + np.array([1, 2], v.dtype) for k, v in module.state_dict().items()}
    )
    np.testing.assert_array_equal(module.fixed.numpy(), [1, 2])
    np.testing.assert_array_equal(array, [0, 0])


def test_buffers_refuse_what_makes_no_sense():
    module = Module()
    module.weight = Parameter(tg.zeros(2))
    for name in ("weight", "forward", "training", "a.b", ""):
        with pytest.raises(ArgumentError, match="register_buffer"):
            module.register_buffer(name, tg.zeros(1))
    with pytest.raises(ArgumentError, match="requires a gradient"):
        module.register_buffer("b", tg.zeros(1, requires_grad=True))
    module.register_buffer("b", tg.zeros(1))
    module.register_buffer("b", tg.ones(1))  # a buffer may be replaced
    with pytest.raises(ArgumentError, match="b is a buffer"):
        module.b = 3


def test_a_buffer_that_is_deleted_or_becomes_a_parameter_is_one_no_more():
    module = Module()
    module.register_buffer("a", tg.zeros(1))
    module.register_buffer("b", tg.zeros(1))
    del module.a
    module.a = 3
    module.b = Parameter(tg.ones(2))
    assert list(module.buffers()) == []
    assert [name for name, _ in module.named_parameters()] == ["b"]
    assert list(module.state_dict()) == ["b"]


# -- switches --------------------------------------------------------------------------------------


@given(MODULES)
def test_train_and_eval_reach_every_module_and_leave_the_grad_mode_alone(spec):
    module = build(spec)
    for recording in (tg.enable_grad, tg.no_grad):
        with recording():
            before = tg.is_grad_enabled()
            assert module.eval() is module
            assert not any(m.training for m in module.modules())
            assert module.train() is module
            assert all(m.training for m in module.modules())
            assert tg.is_grad_enabled() is before


@given(MODULES)
def test_to_changes_the_dtype_and_keeps_the_objects(spec):
    module = build(spec)
    module.register_buffer("ids", np.arange(3))
    module.register_buffer("scale", np.ones(3))
    held = list(module.parameters())
    values = [p.numpy().copy() for p in held]
    for p in held:
        (p * 1.0).sum().backward()
    assert module.to("float32") is module
    for p, q, value in zip(held, module.parameters(), values, strict=True):
        assert p is q
        assert p.dtype == np.float32
        assert p.requires_grad
        assert p.grad is None
        np.testing.assert_array_equal(p.numpy(), value.astype(np.float32))
        (p * 1.0).sum().backward()
        assert p.grad.dtype == np.float32
    assert module.ids.dtype == np.int64
    assert module.scale.dtype == np.float32


def test_to_keeps_ties_and_makes_a_pending_backward_raise():
    model = Sequential(Linear(2, 2, bias=False), Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    loss = model(tg.ones(1, 2)).sum()
    assert model.to(np.float32).to("cpu") is model  # nothing to do
    loss.backward()
    assert model[0].weight.grad is not None
    loss = model(tg.ones(1, 2)).sum()
    model.to(np.float64)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()
    assert model[1].weight is model[0].weight
    assert model(tg.ones(1, 2, dtype="float64")).dtype == np.float64


@pytest.mark.parametrize("target", ["int64", "bool", "cpuu", "cuda:x", None, 3])
def test_to_refuses_other_targets_and_changes_nothing(target):
    layer = Linear(2, 3)
    with pytest.raises((ValueError, TypeError)):
        layer.to(target)
    assert layer.weight.dtype == np.float32
    assert layer.weight.device == "cpu"


def test_requires_grad_freezes_every_parameter_below():
    model = Sequential(Linear(2, 3), tg.tanh, ModuleList([Linear(3, 1)]))
    model.register_buffer("scale", np.ones(1))
    assert model.requires_grad_(False) is model
    assert not any(p.requires_grad for p in model.parameters())
    model.zero_grad()
    assert not model[0](tg.ones(1, 2)).requires_grad
    model[0].requires_grad_()
    model[0](tg.ones(1, 2)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "0.weight",
        "0.bias",
    ]
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    for value in (True, False):
        with pytest.raises(ArgumentError, match=rf"requires_grad_\({value}\)"):
            model.requires_grad = value
    with pytest.raises(AttributeError, match=r"requires_grad_"):
        _ = model.requires_grad
    assert not hasattr(model, "requires_grad")


def test_zero_grad_forgets_every_gradient():
    model = Sequential(Linear(2, 3), tg.tanh, Linear(3, 1))
    model(tg.ones(4, 2)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@given(MODULES)
def test_deepcopy_is_equal_independent_and_keeps_ties(spec):
    module = build(spec)
    module.tie = [Parameter(tg.ones(2))] * 2
    module.register_buffer("scale", np.ones(3))
    twin = copy.deepcopy(module)
    assert list(twin.state_dict()) == list(module.state_dict())
    assert len(list(twin.parameters())) == len(list(module.parameters()))
    for a, b in zip(module.parameters(), twin.parameters(), strict=True):
        assert a is not b
        assert type(b) is Parameter
        assert b.requires_grad
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    before = module.state_dict()
    for p in twin.parameters():
        p.data = np.full(p.shape, -9.0)
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert twin.tie[0] is twin.tie[1]


# -- parameters ------------------------------------------------------------------------------------


def test_a_parameter_copies_what_it_is_made_of():
    array = np.zeros(3)
    tensor = tg.tensor(np.zeros(3))
    for source in (array, tensor):
        parameter = Parameter(source)
        parameter.data = np.ones(3)
        assert parameter.dtype == np.float64
        assert parameter.requires_grad
    np.testing.assert_array_equal(array, np.zeros(3))
    np.testing.assert_array_equal(tensor.numpy(), np.zeros(3))
    assert Parameter([1.0, 2.0]).dtype == tg.get_default_dtype()
    assert Parameter(array, dtype="float32").dtype == np.float32
    assert isinstance(Parameter(array), tg.Tensor)


def test_a_parameter_of_a_result_is_a_leaf():
    x = tg.ones(2, requires_grad=True)
    parameter = Parameter(x * 3)
    (parameter * 2).sum().backward()
    np.testing.assert_array_equal(parameter.grad.numpy(), [2.0, 2.0])
    assert x.grad is None


def test_a_parameter_must_be_floating():
    with pytest.raises(DTypeError, match="int64"):
        Parameter(np.arange(3))


def test_results_of_operations_on_parameters_are_plain_tensors():
    assert type(Parameter(tg.ones(2)) * 2) is tg.Tensor


# -- containers ------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([2.0, 3.0, 5.0]), min_size=1, max_size=6), st.data())
def test_sequential_is_composition_and_its_slices_share(factors, data):
    layers = [lambda x, f=f: x * f for f in factors]
    model = Sequential(*layers)
    assert model(tg.tensor(1.0, dtype="float64")).item() == np.prod(factors)
    assert len(model) == len(factors)
    assert list(model) == layers
    i = data.draw(st.integers(-len(factors), len(factors) - 1))
    assert model[i] is layers[i]
    start = data.draw(st.integers(0, len(factors)))
    part = model[start:]
    assert isinstance(part, Sequential)
    assert list(part) == layers[start:]


def test_sequential_refuses_what_cannot_be_called():
    with pytest.raises(ArgumentError, match="layer 1 must be a module or a function"):
        Sequential(Linear(1, 1), 3)
    with pytest.raises(ArgumentError, match=r"write Linear\(\.\.\.\)"):
        Sequential(Linear)


def test_a_subclass_of_a_container_keeps_its_own_parts():
    class Net(Sequential):
        def __init__(self):
            super().__init__(Linear(1, 1))
            self.scale = Parameter(tg.ones(1))

    assert [name for name, _ in Net().named_parameters()] == ["scale", "0.weight", "0.bias"]
    assert len(Net()) == 1


def test_module_list():
    items = [Linear(1, 1), Linear(1, 1)]
    modules = ModuleList(items)
    modules.append(extra := Linear(1, 1))
    assert list(modules) == [*items, extra]
    assert modules[-1] is extra
    assert isinstance(modules[1:], ModuleList)
    assert list(modules[1:]) == [items[1], extra]
    with pytest.raises(ArgumentError, match="members must be modules"):
        modules.append(tg.tanh)
    with pytest.raises(NotImplementedError, match="ModuleList"):
        modules(1)


def test_repr_is_a_tree_with_shapes_and_counts():
    class Net(Module):
        def __init__(self):
            super().__init__()
            self.layers = [Linear(4, 300), Linear(300, 2, bias=False)]
            self.drop = tg.nn.Dropout(0.25)

    assert repr(Sequential(Net(), tg.tanh)) == (
        "Sequential  2,100 parameters\n"
        "  0: Net  2,100 parameters\n"
        "    layers.0: Linear(weight (300, 4), bias (300,))  1,500 parameters\n"
        "    layers.1: Linear(weight (2, 300))  600 parameters\n"
        "    drop: Dropout(p=0.25)\n"
        "  1: tanh"
    )


class Model(tg.nn.Module):
    """A recurrent layer inside a module, two deep."""

    def __init__(self):
        super().__init__()
        self.body = tg.nn.Sequential(tg.nn.LSTM(2, 3, num_layers=2, bidirectional=True))
        self.head = tg.nn.Linear(6, 2)


def test_a_layer_names_its_parameters_wherever_it_stands():
    model = Model()
    layer = [f"body.0.{name}" for name in model.body[0].state_dict()]
    assert layer[0] == "body.0.weight_ih_l0" and "body.0.bias_hh_l1_reverse" in layer
    names = [*layer, "head.weight", "head.bias"]
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()] == names
    other = Model()
    other.load_state_dict(model.state_dict())
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.oracle
def test_the_weights_of_a_module_of_pytorchs_load_as_they_are():
    torch = pytest.importorskip("torch")

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.LSTM(2, 3, num_layers=2, bidirectional=True))
            self.head = torch.nn.Linear(6, 2)

    theirs, ours = Theirs(), Model()
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(5, 4, 2)).astype(np.float32)
    expected = theirs.head(theirs.body[0](torch.from_numpy(x))[0]).detach().numpy()
    found = ours.head(ours.body[0](tg.tensor(x))[0])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
