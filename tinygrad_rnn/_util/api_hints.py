"""What other libraries call by another name: the errors for unknown names answer with ours.

The same for what the array libraries say, and for the classes of values: how a message puts them.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ..errors import ArgumentError, DTypeError, ShapeError
from . import LIBRARY

Function = TypeVar("Function", bound=Callable[..., Any])

_IN_PLACE = "inside `with tinygrad_rnn.no_grad()`, of a leaf"
OTHER_NAMES = {
    "view": "reshape(shape)",
    "unsqueeze": "expand_dims(axis)",
    "permute": "transpose(axes)",
    "contiguous": "nothing: layout is the library's business",
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
    "clone": "x itself, which no operation changes; tinygrad_rnn.tensor(x) for a new leaf",
    "copy": "x itself, which no operation changes; tinygrad_rnn.tensor(x) for a new leaf",
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
    "is_contiguous": "nothing: layout is the library's business",
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
OF_THE_PACKAGE = OTHER_NAMES | {
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
    "array_split": "split(x, places)",
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
    "compile": "fuse(function), of what is computed element by element",
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
OTHER_ARGUMENTS = {
    "dim": "axis",
    "dims": "axes",
    "keepdim": "keepdims",
    "unbiased": "ddof",
    "correction": "ddof",
    "generator": "rng",
    "a_min": "min",
    "a_max": "max",
    "end": "stop",
    "steps": "num",
    "size": "shape",
    "N": "n",
    "M": "m",
}
ABSENT_ARGUMENTS = {  # of NumPy's functions
    "casting": ".astype(dtype)",
    "dtype": ".astype(dtype)",
    "initial": "x + initial, and its like, of the result",
    "order": "'C', which is how elements are counted",
    "out": "a result, which is a new tensor each time",
    "where": "tinygrad_rnn.where(mask, x, 0) in place of x",
}


def hint(name: str, others: Mapping[str, str], known: Iterable[str] = ()) -> str:
    """Return what an error for an unknown name ends with: our name for it, or one much like it."""
    if name in others:
        return f"; here it is {others[name]}"
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def class_name(value: Any) -> str:
    """Return the name of a value's class, with its module if that is neither Python's nor ours.

    A Tensor of another library has the same name as ours.
    """
    made = type(value)
    ours = made.__module__.partition(".")[0] in ("builtins", LIBRARY)
    return made.__qualname__ if ours else f"{made.__module__}.{made.__qualname__}"


def adopting(value: Any) -> str:
    """Return the end of a message that misses a Tensor: the cure for another library's array."""
    ours = type(value).__module__.partition(".")[0] == LIBRARY
    if ours or not hasattr(type(value), "__dlpack__"):
        return ""
    return f": make a Tensor of it by {FROM_ANOTHER}"


def foreign(value: Any) -> str:
    """Return an addition to a message about a Tensor if the value is another library's array."""
    cure = adopting(value)
    return cure and f" (it is a {class_name(value)}{cure})"


FROM_ANOTHER = "tinygrad_rnn.from_dlpack(x), or tinygrad_rnn.tensor(x), which copies"


class Elsewhere:
    """A name that other libraries have, as an attribute of a class: it says what it is here.

    A ``__getattr__`` would say the same, but Python looks up every attribute more slowly on a class
    that has one.
    """

    def __init__(self, name: str, ours: str) -> None:
        self.name, self.ours = name, ours

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError(
            f"{owner.__name__} has no attribute {self.name!r}; here it is {self.ours}"
        )


class NotAssigned(Elsewhere):
    """Such a name that is not assigned to either, since that would have no effect."""

    def __set__(self, instance: Any, value: Any) -> None:
        self.__get__(instance, type(instance))


# How the array libraries put an error about shapes; any other ValueError is about a value.
_OF_SHAPES = re.compile(
    "shape|broadcast|dimension|axis|axes|size|length|slice|array to|sequence", re.IGNORECASE
)
_CURES = {  # for errors of the array libraries that do not name one
    "negative integer powers": "make one operand floating, x.astype(tinygrad_rnn.float32) "
    "or a number such as -1.0",
    "boolean subtract": "for Tensors it is x != y, or x.astype(tinygrad_rnn.int64) first",
    "boolean negative": "for Tensors it is x == False",
    "as an integer": "give an integer, or a tuple of integers where several are taken",
    "scalar index": "give an integer, or a tuple of integers where several are taken",
}


def reworded(error: Exception) -> tuple[type[Exception], str]:
    """Return the class of ours for an error of an array library, and its text with the cure."""
    text = str(error)
    cures = [cure for words, cure in _CURES.items() if words in text]
    text = f"{text.rstrip('.')}: {cures[0]}" if cures else text
    if isinstance(error, TypeError):
        return DTypeError, text
    if isinstance(error, IndexError) and not isinstance(error, ValueError):  # of an axis is both
        return IndexError, text
    return (ShapeError if _OF_SHAPES.search(text) else ArgumentError), text


def unknown_argument(function: str, name: str, names: list[str]) -> str:
    """Return the message for an argument that a function does not have."""
    takes = f"it takes {', '.join(names)}" if names else "it takes nothing"
    ours = OTHER_ARGUMENTS.get(name, name)
    if f"*{ours}" in names:
        return f"{function} has no argument {name!r}: {takes}; {ours} is given without its name"
    if ours in names:
        return f"{function} has no argument {name!r}: {takes}; {name}= is {ours}= here"
    if name == "create_graph":
        takes += "; derivatives of derivatives are the business of tinygrad_rnn.grad"
    return f"{function} has no argument {name!r}{hint(name, ABSENT_ARGUMENTS, names)}: {takes}"


def absent(module: str, others: Mapping[str, str], known: Mapping[str, Any]) -> Any:
    """Return a module's ``__getattr__``: it raises, with our name for what was asked for."""

    def __getattr__(name: str) -> Any:
        public = [other for other in known if not other.startswith("_")]
        raise AttributeError(
            f"module {module!r} has no attribute {name!r}{hint(name, others, public)}"
        )

    return __getattr__


def explained(function: Function) -> Function:
    """Let a public function answer a call that does not fit it with its own arguments' names.

    What it raises itself begins with its name, too, whoever inside has found the mistake.
    """
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    names = [f"{'*' * (p.kind is p.VAR_POSITIONAL)}{p.name}" for p in parameters]
    by_name = bool(names) and all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters)

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        try:
            return function(*args, **keywords)
        except (TypeError, ValueError, IndexError) as error:
            name = function.__qualname__
            if function.__name__ == "__init__" and args:
                name = type(args[0]).__name__
            problem = _misfit(name, args, keywords) if type(error) is TypeError else None
            if problem is None:  # the call was right: the error comes from inside
                begin(error, name)
                raise
        raise TypeError(problem)

    def _misfit(name: str, args: Any, keywords: Any) -> str | None:
        try:
            signature.bind(*args, **keywords)
        except TypeError as error:
            unknown = [k for k in keywords if k not in names]
            if unknown:
                return unknown_argument(name, unknown[0], names)
            takes = f"it takes {', '.join(names)}{', each by its name' * by_name}"
            if not names:
                takes = f"it takes nothing; as a decorator it is written @{name}()"
            return f"{name} was called wrongly, {error}: {takes}"
        return None

    return call  # type: ignore[return-value]


def begin(error: Exception, name: str) -> Exception:
    """Let a message of the library begin with the name of what the user called."""
    ours = isinstance(error, IndexError) or type(error).__module__.startswith(LIBRARY)
    text = str(error).removeprefix(getattr(error, "begun", ""))
    begins = text.lower().replace("_", "").startswith(name.lower().replace("_", ""))
    if ours and error.args:
        error.args = (text if begins else f"{name}: {text}", *error.args[1:])
    return error


def begun(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Return what a function returns; a message of the library begins with an operation's name.

    If a public function called that operation, the message begins with its name instead.
    """
    try:
        return function(*args)
    except (TypeError, ValueError) as error:
        begin(error, name)
        error.begun = f"{name}: "  # type: ignore[union-attr]
        raise
