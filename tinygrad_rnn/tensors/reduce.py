"""Variance, product and running sums: reductions that are made of primitives."""

from __future__ import annotations

from .._util.api_hints import explain_errors
from ..engine import backend, ops
from ..engine.ops import kernels
from ..engine.ops.axes import Axis, axes_of, axis_of, reduced_size
from ..engine.ops.docstrings import along_axis, reduction
from ..engine.tensor import Tensor
from .checks import any_number, as_tensor
from .shape import concatenate, transpose


@reduction
@explain_errors
def var(x: Tensor, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the variance over `axis`.

    Parameters
    ----------
    ddof : int
        Subtracted from the count; 1 for the unbiased estimate from a sample.

    Notes
    -----
    The sum of the squared deviations from the mean, over count - `ddof`. The deviations are taken
    twice: the rounding error of the first mean is as large as the last digit of x, which may be
    more than their own size (Chan, Golub and LeVeque, The American Statistician 37, 1983). Of
    `ddof` elements or fewer it is infinite, or nan, as in NumPy. Half precision is computed in
    single.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.var(tg.tensor([1.0, 2.0, 3.0])), tg.var(tg.tensor([1.0, 2.0, 3.0]), ddof=1)
    (tensor(0.6666667), tensor(1.))
    """
    any_number(ddof, "ddof")
    x = as_tensor(x)
    if x.dtype == backend.float16:
        return var(x.astype(backend.float32), axis, ddof, keepdims).astype(backend.float16)
    # The result does not depend on where the deviations are taken from, and so no gradient does.
    deviation = x - ops.mean(x, axis=axis, keepdims=True).detach()
    deviation = deviation - ops.mean(deviation, axis=axis, keepdims=True)
    squares = ops.sum(deviation * deviation, axis=axis, keepdims=keepdims)
    left = reduced_size(x.shape, axis) - ddof
    return squares / (left if left > 0 else 0)


@reduction
@explain_errors
def std(x: Tensor, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the standard deviation over `axis`, the root of `var`.

    Parameters
    ----------
    ddof : int
        Subtracted from the count, as in `var`.

    Notes
    -----
    It has no gradient (nan) where the variance is 0.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.std(tg.tensor([1.0, 2.0, 3.0]), ddof=1)
    tensor(1.)
    """
    any_number(ddof, "ddof")
    x = as_tensor(x)
    if x.dtype == backend.float16:
        return std(x.astype(backend.float32), axis, ddof, keepdims).astype(backend.float16)
    return ops.sqrt(var(x, axis=axis, ddof=ddof, keepdims=keepdims))


@reduction
@explain_errors
def prod(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the product over `axis`.

    Returns
    -------
    Tensor
        Of the shape of x without (or with length 1 at) `axis`; of nothing at all, 1.

    Notes
    -----
    The elements are multiplied pairwise, never divided out, so that zeros leave the gradient exact.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([2.0, 0.0, 3.0], requires_grad=True)
    >>> tg.prod(x).backward()
    >>> x.grad
    tensor([0., 6., 0.])
    """
    x = as_tensor(x)
    if kernels.needs_float64(x.dtype, reduced_size(x.shape, axis)):
        return prod(x.astype(backend.float64), axis, keepdims).astype(x.dtype)
    if x.dtype.kind != "f":
        x = ops.sum(x, axis=())  # over no axis: this widens small integers, as NumPy's product does
    axes = axes_of(axis, x.ndim)
    rest = tuple(i for i in range(x.ndim) if i not in axes)
    shape = tuple(x.shape[i] for i in rest)
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    x = ops.reshape(transpose(x, axes=(*axes, *rest)), shape=(reduced_size(x.shape, axis), *shape))
    while x.shape[0] > 1:
        half, odd = divmod(x.shape[0], 2)
        pairs = ops.getitem(x, key=slice(0, half)) * ops.getitem(x, key=slice(half, 2 * half))
        x = concatenate([pairs, ops.getitem(x, key=slice(2 * half, None))]) if odd else pairs
    if x.shape[0] == 0:  # the empty product
        x = ops.sum(x, axis=0) + 1
    return ops.reshape(x, shape=kept if keepdims else shape)


@along_axis
@explain_errors
def cumsum(x: Tensor, axis: int | None = None) -> Tensor:
    """Return the running sums along an axis.

    Parameters
    ----------
    axis : int or None
        None sums all elements, in C order.

    Returns
    -------
    Tensor
        Of the shape of x; flat if `axis` is None or x is 0-d.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.cumsum(tg.tensor([1.0, 2.0, 3.0]), axis=0)
    tensor([1., 3., 6.])
    """
    x = as_tensor(x)
    if axis is None or not (x.ndim or axes_of(axis, 0)):
        return ops.cumsum(ops.reshape(x, shape=-1), axis=0)
    return ops.cumsum(x, axis=axis_of(axis, x.ndim))
