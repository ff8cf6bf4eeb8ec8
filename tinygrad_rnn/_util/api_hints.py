"""Error messages for users of NumPy and PyTorch: an unknown name is answered with ours.

Also the translation of the array libraries' errors, and class names as messages print them.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ..errors import ArgumentError, DTypeError, ShapeError
from . import LIBRARY

Function = TypeVar("Function", bound=Callable[..., Any])

_IN_PLACE = "inside `with tinygrad_rnn.no_grad()`, of a leaf"
TENSOR_HINTS = {
    "view": "reshape(shape)",
    "unsqueeze": "expand_dims(axis)",
    "permute": "transpose(axes)",
    "contiguous": "nothing: the library chooses the memory layout",
    "cpu": 'to("cpu")',
    "cuda": 'to("cuda")',
    "float": "astype(tinygrad_rnn.float32)",
    "double": "astype(tinygrad_rnn.float64)",
    "long": "astype(tinygrad_rnn.int64)",
    "requires_grad_": "requires_grad = True",
    "mm": "@",
    "t": ".T",
    "numel": ".size",
    "cat": "concatenate",
    "expand": "broadcast_to(shape)",
    "clamp": "clip(min, max)",
    "add": "+",
    "mul": "*",
    "sub": "-",
    "div": "/",
    "pow": "**",
    "matmul": "@",
    "dot": "@",
    "dim": ".ndim",
    "chunk": "split(sections, axis)",
    "index_select": "take(indices, axis)",
    "gather": "take_along_axis(indices, axis)",
    "masked_fill": "tinygrad_rnn.where(mask, value, x)",
    "flatten": "reshape(-1)",
    "ravel": "reshape(-1)",
    "repeat": "x.take(numpy.arange(x.size).repeat(n)) for NumPy's, for PyTorch's "
    "tinygrad_rnn.concatenate([x] * n)",
    "repeat_interleave": "x.take(numpy.arange(x.size).repeat(n))",
    "mT": "swapaxes(-1, -2)",
    "norm": "(x * x).sum() ** 0.5",
    "tolist": ".numpy().tolist()",
    "any": ".numpy().any()",
    "all": ".numpy().all()",
    "argsort": ".numpy().argsort(axis)",
    "cumprod": "tinygrad_rnn.stack of the products of the first 1, 2, … elements",
    "diagonal": 'tinygrad_rnn.einsum("...ii->...i", x)',
    "diff": "x[..., 1:] - x[..., :-1]",
    "floor": "x // 1, which has no gradient",
    "hstack": "tinygrad_rnn.concatenate(list, axis=1), of vectors axis=0",
    "inner": "x @ y.T",
    "log10": "log(x) / math.log(10)",
    "nonzero": ".numpy().nonzero()",
    "outer": "x.reshape(-1, 1) * y.reshape(-1)",
    "reciprocal": "1 / x",
    "roll": "tinygrad_rnn.concatenate([x[-n:], x[:-n]])",
    "sort": "take_along_axis(x.numpy().argsort(axis), axis)",
    "square": "x * x",
    "tile": "tinygrad_rnn.concatenate([x] * n), or broadcast_to(shape)",
    "topk": "take_along_axis(x.numpy().argsort(axis), axis), the last k of it",
    "trace": 'tinygrad_rnn.einsum("ii", x)',
    "tril": "tinygrad_rnn.where(numpy.tri(n, m, dtype=bool), x, 0.0)",
    "triu": "tinygrad_rnn.where(numpy.tri(n, m, -1, dtype=bool), 0.0, x)",
    "vstack": "tinygrad_rnn.concatenate(list), of vectors tinygrad_rnn.stack(list)",
    "round": ".numpy().round(digits), which has no gradient",
    "half": "astype(tinygrad_rnn.float16)",
    "type": "astype(dtype)",
    "type_as": "astype(other.dtype)",
    "clone": "x itself, since no operation changes it; tinygrad_rnn.tensor(x) for a new leaf",
    "copy": "x itself, since no operation changes it; tinygrad_rnn.tensor(x) for a new leaf",
    "is_cuda": ".device",
    "new_zeros": "tinygrad_rnn.zeros(shape, dtype=x.dtype, device=x.device)",
    "retain_grad": "tinygrad_rnn.grad(output, x)",
    "register_hook": "tinygrad_rnn.grad(output, x)",
    "ceil": ".numpy(), which has no gradient",
    "median": ".numpy(), which has no gradient",
    "unique": ".numpy(), which has no gradient",
    "isnan": "x != x",
    "masked_select": "x[mask]",
    "select": "x[i]",
    "narrow": "x[start:stop]",
    "view_as": "reshape(other.shape)",
    "reshape_as": "reshape(other.shape)",
    "expand_as": "broadcast_to(other.shape)",
    "bmm": "@",
    "rsqrt": "x ** -0.5",
    "neg": "-x",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "ndimension": ".ndim",
    "is_contiguous": "nothing: the library chooses the memory layout",
    "get_device": ".device",
    "grad_fn": "repr(x), or tinygrad_rnn.viz.graph(x)",
    "detach_": "detach()",
    "new_ones": "tinygrad_rnn.ones(shape, dtype=x.dtype, device=x.device)",
    "new_tensor": "tinygrad_rnn.tensor(data, dtype=x.dtype, device=x.device)",
    "normal_": "tinygrad_rnn.nn.init.normal(x, mean, std)",
    "uniform_": "tinygrad_rnn.nn.init.uniform(x, low, high)",
    "fill": f"x[...] = value {_IN_PLACE}",
    "fill_": f"x[...] = value {_IN_PLACE}",
    "zero_": f"x[...] = 0 {_IN_PLACE}",
    "add_": f"x += y {_IN_PLACE}",
    "mul_": f"x *= y {_IN_PLACE}",
    "copy_": f"x[...] = y {_IN_PLACE}",
    "sub_": f"x -= y {_IN_PLACE}",
    "div_": f"x /= y {_IN_PLACE}",
    "clamp_": f"x[...] = x.clip(min, max) {_IN_PLACE}",
    "masked_fill_": f"x[mask] = value {_IN_PLACE}",
    "index_put_": f"x[indices] = values {_IN_PLACE}",
    "index_fill_": f"x[indices] = value {_IN_PLACE}",
    "put": f"x[indices] = values {_IN_PLACE}",
    "absolute": "abs()",
    "amax": "max(axis)",
    "amin": "min(axis)",
    "bool": "x != 0",
    "int": "astype(tinygrad_rnn.int32)",
    "nelement": ".size",
    "clamp_min": "clip(min=value)",
    "clamp_max": "clip(max=value)",
    "mod": "%",
    "remainder": "%",
    "floor_divide": "//",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "power": "**",
    "negative": "-x",
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "where": "tinygrad_rnn.where(condition, x, y)",
    "logaddexp": "tinygrad_rnn.logaddexp(x, y)",
    "tensordot": "tinygrad_rnn.tensordot(x, y, axes)",
    "pad": "tinygrad_rnn.pad(x, widths)",
    "fmod": "x - y * numpy.trunc((x / y).numpy())",
    "true_divide": "/",
    "isfinite": "abs(x) < math.inf",
    "isinf": "abs(x) == math.inf",
    "logical_not": "x == 0",
    "logical_and": "(x != 0) * (y != 0)",
    "logical_or": "(x != 0) + (y != 0)",
    "logical_xor": "(x != 0) != (y != 0)",
    "count_nonzero": "(x != 0).sum()",
    "allclose": "numpy.allclose(x.numpy(), y.numpy())",
    "isclose": "numpy.isclose(x.numpy(), y.numpy())",
    "array_equal": "numpy.array_equal(x.numpy(), y.numpy())",
    "log2": "log(x) / math.log(2)",
    "exp2": "2.0 ** x",
    "hypot": "sqrt(x * x + y * y)",
    "tan": "sin(x) / cos(x)",
    "sinh": "(exp(x) - exp(-x)) / 2",
    "cosh": "(exp(x) + exp(-x)) / 2",
    "mv": "@",
    "vdot": "(x * y).sum()",
    "ger": "x.reshape(-1, 1) * y.reshape(-1)",
    "nansum": "tinygrad_rnn.where(x == x, x, 0.0).sum()",
    "diag": 'tinygrad_rnn.einsum("ii->i", x) of a matrix, x * numpy.eye(n) of a vector',
    "new_full": "tinygrad_rnn.full(shape, value, dtype=x.dtype, device=x.device)",
    "new_empty": "tinygrad_rnn.zeros(shape, dtype=x.dtype, device=x.device)",
    "swapdims": "swapaxes(axis1, axis2)",
    "movedim": "moveaxis(source, destination)",
    "unflatten": "reshape(shape)",
    "resize": "reshape(shape)",
    "flat": "reshape(-1)",
    "is_floating_point": 'x.dtype.kind == "f"',
    "element_size": "x.dtype.itemsize",
    "itemsize": "x.dtype.itemsize",
    "nbytes": "x.data.nbytes",
    "strides": "x.data.strides",
    "stride": "x.data.strides, in bytes",
    "flags": "x.data.flags",
    "tobytes": ".numpy().tobytes()",
    "tofile": ".numpy().tofile(file)",
    "searchsorted": "x.numpy().searchsorted(values)",
    "partition": "take_along_axis(x.numpy().argpartition(k, axis), axis)",
}
PACKAGE_HINTS = TENSOR_HINTS | {
    "array": "tensor(data)",
    "from_numpy": "tensor(array), which copies, or from_dlpack(array), which does not",
    "as_tensor": "tensor(array), which copies, or from_dlpack(array), which does not",
    "asarray": "tensor(array), which copies, or from_dlpack(array), which does not",
    "ndarray": "Tensor",
    "Variable": "tensor(data, requires_grad=True)",
    "FloatTensor": "tensor(data, dtype=tinygrad_rnn.float32)",
    "LongTensor": "tensor(data, dtype=tinygrad_rnn.int64)",
    "is_tensor": "isinstance(x, tinygrad_rnn.Tensor)",
    "empty": "zeros(shape)",
    "array_split": "split(x, indices)",
    "astype": "x.astype(dtype)",
    "average": "(x * w).sum() / w.sum()",
    "empty_like": "zeros_like(x)",
    "float_power": "x ** y",
    "full_like": "full(x.shape, value, dtype=x.dtype, device=x.device)",
    "rand_like": "rand(x.shape, dtype=x.dtype, device=x.device)",
    "randn_like": "randn(x.shape, dtype=x.dtype, device=x.device)",
    "randint": "tensor(tinygrad_rnn.random.generator().integers(low, high, shape))",
    "randperm": "tensor(tinygrad_rnn.random.generator().permutation(n))",
    "Generator": "numpy.random.Generator, as rng=",
    "seed": "manual_seed(seed)",
    "get_rng_state": "random.get_state()",
    "set_rng_state": "random.set_state(state)",
    "device": 'a string, "cpu" or "cuda:0"',
    "dtype": "numpy.dtype, or a name such as tinygrad_rnn.float32",
    "newaxis": "None",
    "nan": "math.nan",
    "inf": "math.inf",
    "pi": "math.pi",
    "concat": "concatenate(arrays, axis)",
    "column_stack": "concatenate(arrays, axis=1), of vectors stack(arrays, axis=1)",
    "linalg": "einsum and @, or numpy.linalg on x.numpy(), which has no gradient",
    "Size": "tuple",
    "swapdims": "swapaxes(x, axis1, axis2)",
    "movedim": "moveaxis(x, source, destination)",
    "compile": "fuse(function), for an elementwise function",
    "set_printoptions": "numpy.set_printoptions",
    "matrix_transpose": "swapaxes(x, -1, -2)",
    "set_grad_enabled": "no_grad() and enable_grad()",
    "inference_mode": "no_grad()",
    "autograd": "tinygrad_rnn.grad, .backward()",
    "mse_loss": "functional.mse_loss",
    "cross_entropy": "functional.cross_entropy",
    "binary_cross_entropy_with_logits": "functional.binary_cross_entropy_with_logits",
    "linear": "functional.linear",
    "embedding": "functional.embedding",
    "dropout": "functional.dropout",
    "one_hot": "functional.one_hot",
    "Linear": "nn.Linear",
    "Module": "nn.Module",
    "Parameter": "nn.Parameter",
    "LSTM": "nn.LSTM",
    "GRU": "nn.GRU",
    "RNN": "nn.RNN",
    "Embedding": "nn.Embedding",
    "Sequential": "nn.Sequential",
    "Adam": "optim.Adam",
    "SGD": "optim.SGD",
}
ARGUMENT_SYNONYMS = {
    "dim": "axis",
    "dims": "axes",
    "keepdim": "keepdims",
    "unbiased": "ddof",
    "correction": "ddof",
    "generator": "rng",
    "a_min": "min",
    "a_max": "max",
    "end": "stop",
    "f": "step",
    "init": "state",
    "steps": "num",
    "size": "shape",
    "N": "n",
    "M": "m",
}
ARGUMENT_HINTS = {  # for arguments of NumPy's functions that ours lack
    "casting": ".astype(dtype)",
    "dtype": ".astype(dtype)",
    "initial": "result + initial, and the like",
    "order": "always 'C'",
    "out": "the result, which is always a new tensor",
    "where": "tinygrad_rnn.where(mask, x, 0) in place of x",
}


def hint(name: str, others: Mapping[str, str], known: Iterable[str] = ()) -> str:
    """Return the end of an error for an unknown name: our name for it, or similar names."""
    if name in others:
        return f"; here it is {others[name]}"
    import difflib  # here, since an import of the library is light

    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def class_name(value: Any) -> str:
    """Return the name of a value's class, with its module unless that is Python's or ours.

    Without the module, another library's Tensor would read as ours.
    """
    kind = type(value)
    ours = kind.__module__.partition(".")[0] in ("builtins", LIBRARY)
    return kind.__qualname__ if ours else f"{kind.__module__}.{kind.__qualname__}"


def conversion_hint(value: Any) -> str:
    """Return the end of a message that a Tensor is expected: how to convert a foreign array."""
    ours = type(value).__module__.partition(".")[0] == LIBRARY
    if ours or not hasattr(type(value), "__dlpack__"):
        return ""
    return f": convert it by {CONVERSIONS}"


def foreign_array_hint(value: Any) -> str:
    """Return a parenthesis for a message about a Tensor if the value is a foreign array, or ""."""
    cure = conversion_hint(value)
    return cure and f" (it is a {class_name(value)}{cure})"


CONVERSIONS = "tinygrad_rnn.from_dlpack(x), or tinygrad_rnn.tensor(x), which copies"


class MissingAttribute:
    """A descriptor for a name of other libraries: the AttributeError names our equivalent.

    A ``__getattr__`` of the class would do the same, but would make every attribute look-up slower.
    """

    def __init__(self, name: str, ours: str) -> None:
        self.name, self.ours = name, ours

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError(
            f"{owner.__name__} has no attribute {self.name!r}; here it is {self.ours}"
        )


class UnassignableAttribute(MissingAttribute):
    """A `MissingAttribute` that raises on assignment too, since that would have no effect."""

    def __set__(self, instance: Any, value: Any) -> None:
        self.__get__(instance, type(instance))


# Words of the array libraries' errors about shapes; any other ValueError is about a value.
_SHAPE_WORDS = "shape|broadcast|dimension|axis|axes|size|length|slice|array to|sequence"
_CURES = {  # for errors of the array libraries whose text names no cure
    "negative integer powers": "make one operand floating, x.astype(tinygrad_rnn.float32) "
    "or a number such as -1.0",
    "boolean subtract": "for Tensors it is x != y, or x.astype(tinygrad_rnn.int64) first",
    "boolean negative": "for Tensors it is x == False",
    "as an integer": "pass an integer, or a tuple of integers where several are accepted",
    "scalar index": "pass an integer, or a tuple of integers where several are accepted",
}


def translate_error(error: Exception) -> tuple[type[Exception], str]:
    """Return our exception class for an array library's error, and its text with the cure."""
    text = str(error)
    cures = [cure for words, cure in _CURES.items() if words in text]
    text = f"{text.rstrip('.')}: {cures[0]}" if cures else text
    if isinstance(error, TypeError):
        return DTypeError, text
    if isinstance(error, IndexError) and not isinstance(error, ValueError):  # AxisError is both
        return IndexError, text
    return (ShapeError if re.search(_SHAPE_WORDS, text, re.IGNORECASE) else ArgumentError), text


def unknown_argument(function: str, name: str, names: list[str]) -> str:
    """Return the message for an argument that a function lacks."""
    takes = f"it takes {', '.join(names)}" if names else "it takes no arguments"
    ours = ARGUMENT_SYNONYMS.get(name, name)
    if f"*{ours}" in names:
        return f"{function} has no argument {name!r}: {takes}; pass {ours} by position"
    if ours in names:
        return f"{function} has no argument {name!r}: {takes}; {name}= is {ours}= here"
    if name == "create_graph":
        takes += "; tinygrad_rnn.grad computes derivatives of derivatives"
    return f"{function} has no argument {name!r}{hint(name, ARGUMENT_HINTS, names)}: {takes}"


def module_getattr(module: str, others: Mapping[str, str], known: Mapping[str, Any]) -> Any:
    """Return a module's ``__getattr__``, whose AttributeError names our equivalent."""

    def __getattr__(name: str) -> Any:
        public = [other for other in known if not other.startswith("_")]
        raise AttributeError(
            f"module {module!r} has no attribute {name!r}{hint(name, others, public)}"
        )

    return __getattr__


def explain_errors(function: Function) -> Function:
    """Decorate a public function: its errors begin with its name and list its arguments.

    A call that does not fit the signature raises a TypeError with the names of the arguments. An
    error of the library from inside the function begins with the function's name.
    """

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        try:
            return function(*args, **keywords)
        except (TypeError, ValueError, IndexError) as error:
            name = function.__qualname__
            if function.__name__ == "__init__" and args:
                name = type(args[0]).__name__
            problem = _mismatch(name, args, keywords) if type(error) is TypeError else None
            if problem is None:  # the call fits the signature: the error comes from inside
                prefix_message(error, name)
                raise
        raise TypeError(problem)

    def _mismatch(name: str, args: Any, keywords: Any) -> str | None:
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.name != "self"]
        names = [f"{'*' * (p.kind is p.VAR_POSITIONAL)}{p.name}" for p in parameters]
        by_name = bool(names) and all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters)
        try:
            signature.bind(*args, **keywords)
        except TypeError as error:
            unknown = [k for k in keywords if k not in names]
            if unknown:
                return unknown_argument(name, unknown[0], names)
            takes = f"it takes {', '.join(names)}{', by keyword only' * by_name}"
            if not names:
                takes = f"it takes no arguments; as a decorator it is written @{name}()"
            return f"{name}: {error}; {takes}"
        return None

    return call  # type: ignore[return-value]


def prefix_message(error: Exception, name: str) -> Exception:
    """Let the message of a library error begin with the name of the function that was called."""
    ours = isinstance(error, IndexError) or type(error).__module__.startswith(LIBRARY)
    text = str(error).removeprefix(getattr(error, "prefix", ""))
    begins = text.lower().replace("_", "").startswith(name.lower().replace("_", ""))
    if ours and error.args:
        error.args = (text if begins else f"{name}: {text}", *error.args[1:])
    return error


def call_named(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function; the messages of its library errors begin with an operation's name.

    If a public function called that operation, `explain_errors` replaces the name by its own.
    """
    try:
        return function(*args)
    except (TypeError, ValueError) as error:
        prefix_message(error, name)
        error.prefix = f"{name}: "  # type: ignore[union-attr]
        raise
