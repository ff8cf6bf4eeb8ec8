"""A stand-in for CuPy that computes with NumPy and refuses what a GPU would refuse or punish.

``installed()`` makes it the ``cupy`` of the process, so that ``device="cuda"`` works on any
machine. An array of it wraps a NumPy array without being one: nothing turns it into one in silence,
and a NumPy call on device data fails here as it fails on a GPU.

Where CuPy itself says no, so does the stand-in: NumPy arrays in operators and ufuncs, implicit
conversion, functions, methods and keywords that CuPy 14 does not have. Where CuPy's answer differs
from NumPy's, so does the stand-in's:

- an index array that is out of range is read modulo the length;
- an upload has C order, unless the array is contiguous in Fortran order; so has a download;
- arrays of a device that is not the current one: functions answer with a PerformanceWarning and
  move the result, or with an error if there is no access between the devices; a product compares
  no devices, and its result is nan here; a copy lands on the current device, and fails between
  devices if the memory is not contiguous;
- a float modulo another one is x - floor(x / y) y, which is 0 for 1 % 0.1;
- an array without axes has no axis 0;
- more than 8 arrays are joined through tables of pointers, which are uploaded.

It is stricter than CuPy where CuPy agrees but the host would wait for the device, copy in silence,
or get something undefined:

- ``float()``, ``int()``, ``bool()``, an index, iteration, boolean masks: a value is read by
  ``.item()``, an array by ``.get()``, the places of a mask by ``.nonzero()``, and by nothing else;
  ``syncs`` counts these;
- NumPy's functions, which CuPy answers when they are handed its arrays;
- NumPy's arrays and scalars as indices and operands: a hidden transfer, and ``float32 *
  np.float64`` widens; ``transfers`` counts what ``asarray`` uploads;
- writing to repeated places;
- memory from ``empty``, which holds nan or absurd numbers until it is written to.

Results of functions element by element lie in C order, whatever the operands' order was.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.machinery
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import cuda_on_host
from tinygrad_rnn.engine import backend
from tinygrad_rnn.engine.ops import kernels


class StrictError(TypeError):
    """Something was done with device data that a GPU refuses or would have to wait for."""


class PerformanceWarning(RuntimeWarning):
    """Something works, and is slow."""


class _State(threading.local):
    device = 0
    stream = None  # a Stream
    captured: list[Callable[[], Any]] | None = None


devices, peer_access = 1, True  # what the machine has: see `installed`
_current = _State()
syncs = 0  # how often a value was read from the device
transfers = 0  # how often an array was uploaded
launches = 0  # how often a kernel started: a function, a copy, a product, a kernel of CUDA


def _launched(run: Callable[[], Any]) -> None:
    """Compute now or, while a stream is captured, when the graph is started."""
    global launches
    if _current.captured is not None:
        _current.captured.append(run)
        return
    launches += 1
    run()


def _read() -> None:
    global syncs
    if _current.captured is not None:
        raise RuntimeError("the current stream is capturing, so D2H transfers are disallowed")
    syncs += 1


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _operand(value: Any, where: str) -> Any:
    """Return what NumPy computes with for one operand: an array of the current device, a number."""
    if isinstance(value, ndarray):
        if value._number != _current.device:
            text = (
                f"{where}: The device where the array resides ({value._number}) is different from "
                f"the current device ({_current.device}). Peer access"
            )
            if not peer_access:
                raise ValueError(f"{text} is unavailable between these devices.")
            warnings.warn(
                f"{text} has been activated automatically.", PerformanceWarning, stacklevel=2
            )
        return value._array
    if value.__class__ in (bool, int, float):
        return value
    raise StrictError(f"Unsupported type {_kind(value)} in {where}: not an array of the device")


def _operands(value: Any, where: str) -> Any:
    """Do the same for operands in lists and tuples (concatenate, einsum)."""
    if isinstance(value, list | tuple):
        return type(value)(_operands(element, where) for element in value)
    return value if value is None or isinstance(value, str) else _operand(value, where)


def _junk(dtype: Any) -> Any:
    """Return the value of memory that was not written to."""
    return np.nan if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max


def _result(compute: Callable[[], Any], c_order: bool = False) -> Any:
    """Return what NumPy computes as arrays of the current device: 0-d ones stay arrays."""
    global launches
    with np.errstate(all="ignore") if _current.captured is not None else contextlib.nullcontext():
        value = compute()  # in a capture only for its shape: the operands are not computed yet
    if isinstance(value, tuple | list):
        if _current.captured is not None:
            raise StrictError("a function of several results is not captured")
        launches += len(value)
        return type(value)(ndarray._of(np.asarray(element)) for element in value)
    array = np.asarray(value)
    if c_order and not array.flags.c_contiguous:
        array = array.copy(order="C")
    if _current.captured is None:
        launches += 1
        return ndarray._of(array)
    array = array.copy("K")
    array[...] = _junk(array.dtype)
    _launched(lambda: np.copyto(array, compute()))
    return ndarray._of(array)


def _matmul(*values: Any, out: Any = None) -> Any:
    """Return a product: cuBLAS reads whatever the pointers refer to on the current device."""
    given = [x for x in values if isinstance(x, ndarray)]
    elsewhere = any(x._number != _current.device for x in given)
    numbers = [x._array if isinstance(x, ndarray) else _operand(x, "matmul") for x in values]
    if _current.captured is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")

    def compute() -> Any:
        made = np.matmul(*numbers)
        return np.full_like(made, np.nan if made.dtype.kind == "f" else 77) if elsewhere else made

    if out is None:
        return _result(compute)
    _launched(lambda: np.copyto(out._array, compute()))
    return out


def _has_arrays(key: Any) -> bool:
    return any(isinstance(part, ndarray) for part in (key if isinstance(key, tuple) else (key,)))


def _key(array: np.ndarray, key: Any, writing: bool) -> Any:
    """Return an index for NumPy from what CuPy takes, hidden transfers left out."""
    parts = []
    key = key if isinstance(key, tuple) else (key,)
    axis, rest = 0, array.ndim - sum(part is not None and part is not Ellipsis for part in key)
    for part in key:
        if isinstance(part, ndarray):
            indices = _operand(part, "an index")
            if indices.dtype.kind == "b":
                raise StrictError(
                    "a boolean mask as an index waits for the device, to know how many places "
                    "there are: use where(), or say nonzero()"
                )
            if axis < array.ndim:
                indices = indices % max(array.shape[axis], 1)
            parts.append(indices)
        elif part is None or part is Ellipsis or part.__class__ in (int, slice):
            parts.append(part)
        else:
            raise StrictError(f"an index of {_kind(part)} would be uploaded in silence: asarray()")
        axis += rest if part is Ellipsis else part is not None
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if writing and arrays:
        places = np.stack([x.ravel() for x in np.broadcast_arrays(*arrays)])
        if np.unique(places, axis=1).shape != places.shape:
            raise StrictError("writing to repeated places is undefined on a GPU")
    return tuple(parts)


class ndarray:
    """An array on a device: the part of ``cupy.ndarray`` that the library may use."""

    __slots__ = ("__weakref__", "_array", "_base", "_number")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None
    ) -> None:
        if memptr is None:
            raise StrictError("an array of the device is made by asarray, empty, zeros, ...")
        interface = {
            "shape": shape,
            "typestr": np.dtype(dtype).str,
            "data": (memptr.mem.ptr + memptr.offset, False),
            "strides": strides,
            "version": 3,
        }
        memory = types.SimpleNamespace(__array_interface__=interface, kept=memptr.mem)
        self._array, self._number, self._base = np.asarray(memory), memptr.mem.device_id, None

    @classmethod
    def _of(cls, array: np.ndarray) -> ndarray:
        self = object.__new__(cls)
        self._array, self._number, self._base = array, _current.device, None
        if _current.captured is not None:  # kernels know its address: the graph keeps its memory
            _current.captured.append(lambda: array)
        return self

    # -- what it is

    shape = property(lambda self: self._array.shape)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    dtype = property(lambda self: self._array.dtype)
    itemsize = property(lambda self: self._array.itemsize)
    nbytes = property(lambda self: self._array.nbytes)
    strides = property(lambda self: self._array.strides)
    base = property(lambda self: self._base)
    flags = property(lambda self: self._array.flags)
    device = property(lambda self: Device(self._number))
    T = property(lambda self: self._view(self._array.T))
    data = property(lambda self: types.SimpleNamespace(ptr=self._array.ctypes.data))

    def __len__(self) -> int:
        return len(self._array)

    def __repr__(self) -> str:
        return f"<array of {self.dtype} {self.shape} on device {self._number}>"

    def _view(self, array: np.ndarray) -> ndarray:
        """Return an array on the memory of this one; it stays where it is."""
        view = ndarray._of(array)
        view._number = self._number
        view._base = self if self._base is None else self._base
        return view

    def _view_or_copy(self, compute: Callable[[], np.ndarray]) -> ndarray:
        made = compute()
        shared = not made.size or np.may_share_memory(made, self._array)
        return self._view(made) if shared else _result(compute)

    # -- reading values: in these ways, and in no other

    def get(self) -> np.ndarray:
        """Return a copy on the host."""
        _read()
        return self._array.copy()

    def item(self) -> Any:
        """Return the one element as a Python number."""
        _read()
        return self._array.item()

    def nonzero(self) -> tuple[ndarray, ...]:
        """Return the places that are not zero."""
        _read()
        return _result(lambda: np.nonzero(_operand(self, "nonzero")))

    def __array__(self, dtype: Any = None) -> Any:  # np.array(x) misses the argument `copy`
        raise StrictError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        raise StrictError(
            f"numpy.{ufunc.__name__} on data of a device, with {', '.join(map(_kind, inputs))}: "
            "use the array's own module"
        )

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise StrictError(
            f"numpy.{function.__name__} on data of a device: use the array's own module"
        )

    def _hidden(self, *_: Any) -> Any:
        raise StrictError(
            "float(), int(), bool(), an index or a loop over data of a device waits for it behind "
            "the user's back: say .item(), or stay on the device"
        )

    __float__ = __int__ = __bool__ = __index__ = __complex__ = __iter__ = __contains__ = _hidden

    # -- memory

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> ndarray:
        """Return a copy in another dtype."""
        if not copy and self.dtype == dtype:
            return self
        array = _operand(self, "astype")
        return _result(lambda: array.astype(dtype, order=order))

    def copy(self, order: str = "C") -> ndarray:
        """Return a copy."""
        array = _operand(self, "copy")
        return _result(lambda: array.copy(order))

    def view(self, dtype: Any = None) -> ndarray:
        """Return the same memory."""
        return self._view(self._array.view() if dtype is None else self._array.view(dtype))

    def fill(self, value: Any) -> None:
        """Set every element."""
        number = _operand(value, "fill")
        _launched(lambda: self._array.fill(number))

    def reshape(self, *shape: Any, order: str = "C") -> ndarray:
        """Return it in another shape, on the same memory if possible."""
        return self._view_or_copy(lambda: self._array.reshape(*shape, order=order))

    def transpose(self, *axes: Any) -> ndarray:
        """Return the same memory with the axes in another order."""
        return self._view(self._array.transpose(*axes))

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        """Return the same memory with two axes exchanged."""
        return self._view(self._array.swapaxes(axis1, axis2))

    def squeeze(self, axis: Any = None) -> ndarray:
        """Return the same memory without axes of length 1."""
        return self._view(self._array.squeeze(axis))

    def ravel(self) -> ndarray:
        """Return it flat, on the same memory if possible."""
        return self._view_or_copy(self._array.ravel)

    def sum(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> ndarray:
        """Return the sum, 0-d on the device."""
        array = _operand(self, "sum")
        return _result(lambda: array.sum(axis, dtype, keepdims=keepdims))

    def __getitem__(self, key: Any) -> ndarray:
        if _has_arrays(key):
            return _result(lambda: self._array[_key(self._array, key, writing=False)])
        parts = _key(self._array, key, writing=False)
        if Ellipsis not in parts:  # with it, NumPy returns a view of one element as well
            parts = (*parts, Ellipsis)
        return self._view(self._array[parts])

    def __setitem__(self, key: Any, value: Any) -> None:
        operand = _operand(value, "assignment")

        def write() -> None:
            self._array[_key(self._array, key, writing=True)] = operand

        _launched(write)

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def __dlpack__(self, **keywords: Any) -> Any:
        return self._array.__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._number  # kDLCUDA


def _approximately(name: str, x: Any, y: Any) -> Any:
    """Return a quotient or a remainder as CuPy does."""
    with np.errstate(all="ignore"):
        whole = np.floor(np.divide(x, y))
        whole_is_asked_for = name in ("floordiv", "floor_divide")
        return whole if whole_is_asked_for else np.subtract(x, np.multiply(whole, y))


def _floating(values: list[Any]) -> bool:
    return any(np.asarray(x).dtype.kind == "f" for x in values)


def _operator(name: str, of_numpy: Callable[..., Any], swapped: bool, in_place: bool) -> Any:
    def method(self: ndarray, *others: Any) -> Any:
        if any(  # somebody else's class has its own operator, as Tensor has
            not isinstance(x, ndarray | np.ndarray | np.generic | bool | int | float)
            for x in others
        ):
            return NotImplemented
        if name == "matmul":
            return _matmul(*((self, *others)[::-1] if swapped else (self, *others)))
        values = [_operand(x, name) for x in (self, *others)]
        if in_place:
            _launched(lambda: of_numpy(*values, out=self._array))
            return self
        values = values[::-1] if swapped else values
        if name in ("mod", "floordiv") and _floating(values):
            return _result(lambda: _approximately(name, *values))
        return _result(lambda: of_numpy(*values), c_order=True)

    return method


for _name, _ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide,
    "floordiv": np.floor_divide, "mod": np.remainder, "pow": np.power, "matmul": np.matmul,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "rshift": np.right_shift,
    "lshift": np.left_shift,
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", _operator(_name, _ufunc, False, False))
    setattr(ndarray, f"__r{_name}__", _operator(_name, _ufunc, True, False))
    if _name != "matmul":  # CuPy has no @=
        setattr(ndarray, f"__i{_name}__", _operator(_name, _ufunc, False, True))
for _name, _ufunc in {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "neg": np.negative, "abs": np.abs, "invert": np.invert,
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", _operator(_name, _ufunc, False, False))


# -- the module ------------------------------------------------------------------------------------

# Every name that the library calls on an array module: the arguments that CuPy 14 has besides the
# arrays, in their order. `test_the_stand_in_offers_nothing_that_cupy_has_not` compares with CuPy.
UFUNCS = """
    abs absolute add copysign cos divide equal exp expm1 floor_divide fmod greater greater_equal
    isfinite isinf isnan less less_equal log log1p logaddexp matmul maximum minimum multiply
    negative not_equal power remainder sign sin sqrt subtract tanh bitwise_and bitwise_or
    bitwise_xor right_shift left_shift invert
""".split()
FUNCTIONS = {
    "argmax": "axis dtype out keepdims", "argmin": "axis dtype out keepdims", 
    "argsort": "axis kind",
    "ascontiguousarray": "dtype", "broadcast_to": "shape", "clip": "a_min a_max out",
    "concatenate": "axis out", "cumsum": "axis dtype out", "einsum": "dtype optimize",
    "expand_dims": "axis", "flip": "axis", "max": "axis out keepdims",
    "mean": "axis dtype out keepdims", "min": "axis out keepdims", "pad": "pad_width mode",
    "prod": "axis dtype out keepdims", "squeeze": "axis", "stack": "axis out",
    "sum": "axis dtype out keepdims", "take_along_axis": "indices axis", "where": "x y",
    "zeros_like": "dtype", "ones_like": "dtype",
}  # fmt: skip
_PLAIN = {"axis", "dtype", "keepdims", "kind", "mode", "optimize", "order", "pad_width", "shape"}
_VIEWS = {"broadcast_to", "expand_dims", "flip", "squeeze"}


class _Ufunc:
    def __init__(self, name: str) -> None:
        self.__name__ = name
        self._ufunc = getattr(np, name)

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None) -> Any:
        if len(args) != self._ufunc.nin:
            raise TypeError(f"{self.__name__} takes {self._ufunc.nin} arrays, and out by name")
        if self.__name__ == "matmul" and all(isinstance(x, ndarray) for x in args):
            return _matmul(*args, out=out)
        values = [_operand(x, self.__name__) for x in args]
        if self.__name__ in ("remainder", "floor_divide") and out is None and _floating(values):
            return _result(lambda: _approximately(self.__name__, *values), c_order=True)
        if out is None:
            return _result(lambda: self._ufunc(*values, dtype=dtype), c_order=True)
        if not isinstance(out, ndarray):
            raise StrictError(f"{self.__name__}: Output arguments must be arrays of the device")
        array = _operand(out, self.__name__)
        _launched(lambda: self._ufunc(*values, dtype=dtype, out=array))
        return out

    def at(self, *args: Any) -> None:
        """Refuse: the order of the additions of CuPy's ``add.at`` is undefined."""
        raise StrictError(f"{self.__name__}.at adds in another order in each run")


def _function(name: str) -> Callable[..., Any]:
    known = FUNCTIONS[name].split()
    count = 0 if name == "einsum" else 1

    def function(*args: Any, **keywords: Any) -> Any:
        unknown = set(keywords) - {*known, *(["constant_values"] if name == "pad" else [])}
        if unknown or (count and len(args) > count + len(known)):
            raise TypeError(f"CuPy's {name} has no argument {', '.join(unknown) or len(args)}")
        first = args[0] if args else None
        if name == "where" and not isinstance(first, ndarray):
            raise StrictError(f"where: the condition is a {_kind(first)}, not an array")
        if count and name not in ("concatenate", "stack") and not isinstance(first, ndarray):
            raise StrictError(f"Unsupported type {_kind(first)} in {name}")
        out = keywords.pop("out", None)
        plain = {k: v for k, v in zip(known, args[count:], strict=False) if k in _PLAIN and count}
        values = [
            x
            if count and i >= count and known[i - count] in plain
            else _einsum_operand(x)
            if name == "einsum"
            else _operands(x, name)
            for i, x in enumerate(args)
        ]
        keywords = {
            k: v if k in _PLAIN or k == "constant_values" else _operand(v, name)
            for k, v in keywords.items()
        }
        if name in ("concatenate", "stack"):
            _count_tables(values[0], keywords)
        _refuse_as_cupy(name, values, {**plain, **keywords})
        if out is not None:
            array = _operand(out, name)
            _launched(lambda: getattr(np, name)(*values, **keywords, out=array))
            return out
        if name == "einsum" and _current.captured is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")
        if name in _VIEWS or (name == "ascontiguousarray" and values[0].flags.c_contiguous):
            return ndarray._of(getattr(np, name)(*values, **keywords))

        def compute() -> Any:
            given = list(values)
            if name == "take_along_axis":  # through indexing, modulo the length
                given[1] = given[1] % given[0].shape[keywords["axis"]]
            return getattr(np, name)(*given, **keywords)

        return _result(compute)

    function.__name__ = name
    return function


def _refuse_as_cupy(name: str, values: list[Any], options: dict[str, Any]) -> None:
    """Raise for what NumPy accepts: the first axis of a number, and one limit of booleans."""
    if "axis" in FUNCTIONS[name] and isinstance(options.get("axis"), int):
        if isinstance(values[0], np.ndarray) and not values[0].ndim and name != "expand_dims":
            raise np.exceptions.AxisError(options["axis"], 0)
    if name == "clip" and values[0].dtype.kind == "b" and None in values:
        raise TypeError("Unsupported type <class 'NoneType'>")


def _count_tables(arrays: Any, keywords: dict[str, Any]) -> None:
    """Count what CuPy uploads to join arrays, and make the axis an integer as C does."""
    global transfers
    keywords["axis"] = int(keywords.get("axis", 0))
    if len(arrays) > 8 and len({x.dtype for x in arrays}) == 1:
        alike = len({x.shape for x in arrays}) == 1 and all(x.flags.c_contiguous for x in arrays)
        transfers += 1 if alike else 3


def _einsum_operand(x: Any) -> Any:
    return x if isinstance(x, str | list) else _operand(x, "einsum")


def _full(shape: Any, value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    number = _operand(value, "full")
    return _result(lambda: np.full(shape, number, dtype, order))


def _empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray._of(np.full(shape, _junk(np.dtype(dtype)), dtype, order))


def _asarray(a: Any, dtype: Any = None, order: Any = None) -> ndarray:
    """Return an array of the current device: a copy of what is on the host or on another one."""
    global transfers
    if isinstance(a, ndarray):
        here = a._number == _current.device
        if not here and not (a.flags.c_contiguous or a.flags.f_contiguous):
            raise NotImplementedError("CuPy cannot copy non-contiguous array between devices.")
        same = here and (dtype is None or a.dtype == dtype)
        wanted = a.dtype if dtype is None else dtype
        return a if same else _result(lambda: a._array.astype(wanted))
    if _current.captured is not None and np.ndim(a):
        raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")
    fortran = isinstance(a, np.ndarray) and a.flags.fnc
    array = np.array(a, dtype, order="F" if fortran else "C")
    if array.dtype.kind not in "fiubc":
        raise ValueError(f"Unsupported dtype {array.dtype}")
    if array.ndim:
        transfers += 1
    else:  # its value is an argument of the kernel that fills the array
        return _result(lambda: array.copy())
    return ndarray._of(array)


def _raw_module(**keywords: Any) -> cuda_on_host.RawModule:
    def pointer(x: Any) -> Any:
        return _operand(x, "an argument of a kernel") if isinstance(x, ndarray) else None

    return cuda_on_host.RawModule(pointer, _launched, **keywords)


def _array(a: Any, dtype: Any = None, copy: bool = True) -> ndarray:
    made = _asarray(a, dtype)
    return made.copy("K") if made is a and copy else made


class Device:
    """A device by its number: a context that makes it the current one of the thread."""

    def __init__(self, number: int | None = None) -> None:
        self.id = _current.device if number is None else int(number)
        self._before: list[int] = []

    def use(self) -> None:
        """Make it the current one until another is."""
        if not 0 <= self.id < _device_count():
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        _current.device = self.id

    def __enter__(self) -> Device:
        self._before.append(_current.device)
        self.use()
        return self

    def __exit__(self, *_: Any) -> None:
        _current.device = self._before.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Device {self.id}>"


class Stream:
    """A stream: it can only capture, since all else is computed at once."""

    def __init__(self, *, non_blocking: bool) -> None:
        if not non_blocking:
            raise StrictError("a blocking stream waits for the default one, which ends a capture")
        self.ptr = id(self)

    def __enter__(self) -> Stream:
        self._before, _current.stream = _current.stream, self
        return self

    def __exit__(self, *_: Any) -> None:
        _current.stream = self._before

    def begin_capture(self) -> None:
        """Record what is launched, in place of computing it."""
        if _current.stream is not self or _current.captured is not None:
            raise RuntimeError("cudaErrorIllegalState: begin_capture")
        _current.captured = []

    def end_capture(self) -> Graph:
        """Return what was recorded."""
        captured, _current.captured = _current.captured, None
        if captured is None:
            raise RuntimeError("cudaErrorIllegalState: end_capture")
        return Graph(captured)


class Graph:
    """Kernels that were captured, with their arguments."""

    def __init__(self, kernels: list[Callable[[], Any]]) -> None:
        self.kernels = kernels

    def launch(self) -> None:
        """Run them all."""
        _launched(lambda: [run() for run in self.kernels])


def _device_count() -> int:
    return devices


class PinnedMemory(bytearray):
    """Memory of the host that the device can read and write."""

    ptr = property(lambda self: ctypes.addressof(ctypes.c_char.from_buffer(self)))


class UnownedMemory:
    """Memory that somebody else allocated."""

    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1) -> None:
        self.ptr, self.size, self.owner = ptr, size, owner
        self.device_id = _current.device if device_id < 0 else device_id


class MemoryPointer:
    """A place in memory."""

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.offset = mem, offset


def _copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    if not isinstance(dst, ndarray):
        raise StrictError("copyto: the destination must be an array of the device")
    mask = True if where is None else _operand(where, "copyto")
    to, values = _operand(dst, "copyto"), _operand(src, "copyto")
    _launched(lambda: np.copyto(to, values, casting=casting, where=mask))  # type: ignore[arg-type]


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the stand-in for CuPy has no {name!r}: if CuPy has it, add it to strict_device.py"
        )


def _make_module() -> _Module:
    module = _Module("cupy", "CuPy without a device: see strict_device.py")
    module.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    names: dict[str, Any] = {name: _Ufunc(name) for name in UFUNCS}
    names |= {name: _function(name) for name in FUNCTIONS}
    names |= {"ndarray": ndarray, "asarray": _asarray, "array": _array, "full": _full}
    names |= {
        "empty": _empty,
        "empty_like": lambda a, dtype=None: _empty(a.shape, dtype or a.dtype),
    }
    names |= {"copyto": _copyto}
    names |= {"zeros": lambda shape, dtype=float: _full(shape, 0, dtype)}
    names |= {"full_like": lambda a, value, dtype=None: _full(a.shape, value, dtype or a.dtype)}
    names |= {
        "arange": lambda start, stop=None, step=1, dtype=None: _result(
            lambda: (
                np.arange(start, dtype=dtype)
                if stop is None
                else np.arange(start, stop, step, dtype=dtype)
            )
        )
    }
    names |= {"asnumpy": lambda a: a.get(), "RawModule": _raw_module}
    runtime = types.SimpleNamespace(getDeviceCount=_device_count)
    cuda = types.SimpleNamespace(Device=Device, Stream=Stream, runtime=runtime)
    cuda.alloc_pinned_memory, cuda.UnownedMemory = PinnedMemory, UnownedMemory
    cuda.MemoryPointer = MemoryPointer
    cuda.MemoryPool = lambda: types.SimpleNamespace(malloc=None)
    cuda.using_allocator = lambda allocator: contextlib.nullcontext()
    cuda.device = types.SimpleNamespace(get_cublas_handle=lambda: 1)
    cuda.get_current_stream = lambda: _current.stream or types.SimpleNamespace(ptr=0)
    names |= {"cuda": cuda}
    names |= {"__file__": __file__}
    for name, value in names.items():
        setattr(module, name, value)
    return module


cupy = _make_module()


@contextlib.contextmanager
def installed(count: int = 1, peers: bool = True) -> Iterator[types.ModuleType]:
    """Make the stand-in the ``cupy`` of the process, and a real one again afterwards.

    The machine has `count` devices, and `peers` tells whether one reads the memory of another.
    """
    global devices, peer_access
    with contextlib.suppress(ImportError):  # the core alone; it registers types and functions
        importlib.import_module("tinygrad_rnn.speed")
    known = backend.modules, backend.one_device
    before, libraries = sys.modules.get("cupy"), [dict(x) for x in known]
    outer = devices, peer_access
    devices, peer_access = count, peers
    with contextlib.suppress(ImportError):  # the core alone
        from tinygrad_rnn.speed import side_effects
        from tinygrad_rnn.speed.cuda import cublas

        side_effects.PURE_PACKAGES |= {"strict_device", "cuda_on_host"}
        cublas.use(cupy, cublas.CuBlas(cupy, cuda_on_host.Blas(_launched)))
    on_gpu = dict(kernels.on_gpu)
    sys.modules["cupy"] = cupy
    if cuda_on_host.unavailable_because():  # CuPy's functions compute all
        kernels.on_gpu.clear()
    try:
        yield cupy
    finally:
        _current.device, _current.stream, _current.captured = 0, None, None
        kernels.on_gpu.update(on_gpu)
        devices, peer_access = outer
        for now, then in zip(known, libraries, strict=True):
            now.clear()
            now.update(then)
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before
