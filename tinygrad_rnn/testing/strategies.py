"""Hypothesis strategies for the arguments of operations: shapes, arrays, layouts, axes, indices.

Values are multiples of 0.1 plus an offset. Two grids half a step apart have no value in common, so
no finite difference crosses a kink. Shapes are small and include axes of length 0 and 1.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import MissingExtraError

Strategy = Any  # hypothesis.strategies.SearchStrategy, which need not be installed
Shape = tuple[int, ...]

# (prepare, view): `view(prepare(array))` has the values of the array in another memory layout;
# `view` takes an array or a Tensor.
LAYOUTS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "C order": (lambda a: a, lambda t: t),
    "Fortran order": (np.transpose, lambda t: t.T),
    "negative strides": (np.flip, lambda t: t[(slice(None, None, -1),) * t.ndim]),
    "every other element": (lambda a: np.stack([a, a], axis=-1), lambda t: t[..., 0]),
    "last two axes exchanged": (
        lambda a: a.swapaxes(-1, -2) if a.ndim > 1 else a,
        lambda t: t.swapaxes(-1, -2) if t.ndim > 1 else t,
    ),
}


def _hypothesis() -> tuple[Any, Any]:
    """Return hypothesis.strategies and hypothesis.extra.numpy."""
    try:
        return (
            importlib.import_module("hypothesis.strategies"),
            importlib.import_module("hypothesis.extra.numpy"),
        )
    except ImportError as error:
        raise MissingExtraError(
            "the strategies of tinygrad_rnn.testing need hypothesis: "
            "pip install 'tinygrad-rnn[test]'"
        ) from error


def _composite(function: Callable[..., Any]) -> Callable[..., Strategy]:
    """Turn a function that draws into a strategy; hypothesis is imported at the first call."""

    @functools.wraps(function)
    def strategy(*args: Any, **keywords: Any) -> Strategy:
        return _hypothesis()[0].composite(function)(*args, **keywords)

    return strategy


def grid(low: float, high: float, offset: float = 0.0, step: float = 0.1) -> Strategy:
    """Draw numbers `offset` + k · `step` between two bounds; the simplest is the one nearest to 0.

    Parameters
    ----------
    low, high : float
        The bounds, both included.
    offset, step : float
        Origin and spacing of the grid. Two grids whose offsets differ by half a step are disjoint.

    Returns
    -------
    SearchStrategy of float

    Raises
    ------
    MissingExtraError
        If Hypothesis is not installed.

    Examples
    --------
    >>> from tinygrad_rnn.testing import arrays, grid
    >>> positive = arrays((2, 3), elements=grid(0.1, 3))
    """
    first, last = math.ceil((low - offset) / step - 1e-9), math.floor((high - offset) / step + 1e-9)
    numbers = (round(offset + k * step, 6) for k in range(first, last + 1))
    return _hypothesis()[0].sampled_from(sorted(numbers, key=abs))


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 3) -> Strategy:
    """Draw shapes, including those of 0-d and of empty arrays.

    Parameters
    ----------
    min_dims, max_dims : int
        Number of axes.
    min_side, max_side : int
        Length of an axis.

    Returns
    -------
    SearchStrategy of tuple of int

    Raises
    ------
    MissingExtraError
        If Hypothesis is not installed.

    Examples
    --------
    >>> from hypothesis import given
    >>> import tinygrad_rnn as tg
    >>> @given(tg.testing.shapes(max_dims=2))
    ... def test_zeros(shape):
    ...     assert tg.zeros(shape).shape == shape
    >>> test_zeros()
    """
    return _hypothesis()[1].array_shapes(
        min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side
    )


def broadcastable_shapes(count: int, max_dims: int = 3, max_side: int = 3) -> Strategy:
    """Draw shapes that broadcast together, and the shape that they broadcast to.

    Parameters
    ----------
    count : int
        Number of shapes.
    max_dims, max_side : int
        Largest number of axes, and largest length of one.

    Returns
    -------
    SearchStrategy
        Pairs: the tuple of shapes, and the shape of the result.

    Raises
    ------
    MissingExtraError
        If Hypothesis is not installed.

    Examples
    --------
    >>> from hypothesis import given
    >>> import tinygrad_rnn as tg
    >>> @given(tg.testing.broadcastable_shapes(2))
    ... def test_add(drawn):
    ...     (first, second), result = drawn
    ...     assert (tg.ones(first) + tg.ones(second)).shape == result
    >>> test_add()
    """
    drawn = _hypothesis()[1].mutually_broadcastable_shapes(
        num_shapes=count, min_side=0, max_dims=max_dims, max_side=max_side
    )
    return drawn.map(lambda shapes: (shapes.input_shapes, shapes.result_shape))


def arrays(
    shape: Any = None, elements: Strategy = None, dtype: Any = np.float64, unique: bool = False
) -> Strategy:
    """Draw arrays.

    Parameters
    ----------
    shape : tuple of int or SearchStrategy, optional
        Drawn from `shapes` if not given.
    elements : SearchStrategy, optional
        Multiples of 0.1 in [-3, 3] if not given.
    dtype : dtype or SearchStrategy
        Dtype of the arrays.
    unique : bool
        Whether all values differ (for functions such as ``max``, which have no derivative at ties).

    Returns
    -------
    SearchStrategy of numpy.ndarray

    Raises
    ------
    MissingExtraError
        If Hypothesis is not installed.

    Examples
    --------
    >>> from hypothesis import given
    >>> import tinygrad_rnn as tg
    >>> @given(tg.testing.arrays())
    ... def test_tanh(x):
    ...     tg.gradcheck(tg.tanh, x)
    >>> test_tanh()
    """
    return _hypothesis()[1].arrays(
        dtype,
        shapes() if shape is None else shape,
        elements=grid(-3, 3) if elements is None else elements,
        unique=unique,
    )


@_composite
def broadcastable_arrays(draw: Any, count: int, elements: Strategy = None) -> list[Any]:
    """Draw arrays whose shapes broadcast together.

    Parameters
    ----------
    count : int
        Number of arrays.
    elements : SearchStrategy or sequence of these, optional
        The values of all arrays, or of each; multiples of 0.1 in [-3, 3] if not given.

    Returns
    -------
    SearchStrategy of list of numpy.ndarray

    Raises
    ------
    MissingExtraError
        If Hypothesis is not installed.

    Examples
    --------
    >>> from hypothesis import given
    >>> import tinygrad_rnn as tg
    >>> @given(tg.testing.broadcastable_arrays(2))
    ... def test_multiply(arrays):
    ...     tg.gradcheck(tg.multiply, arrays)
    >>> test_multiply()
    """
    each = elements if isinstance(elements, list | tuple) else [elements] * count
    inputs, _ = draw(broadcastable_shapes(count))
    return [draw(arrays(shape, e)) for shape, e in zip(inputs, each, strict=True)]


def dtypes(kinds: str = "f") -> Strategy:
    """Draw dtypes of Tensors.

    Parameters
    ----------
    kinds : str
        NumPy's letters: ``"f"`` floating, ``"i"`` and ``"u"`` integers, ``"b"`` booleans.

    Returns
    -------
    SearchStrategy of numpy.dtype

    Raises
    ------
    MissingExtraError
        If Hypothesis is not installed.

    Examples
    --------
    >>> from hypothesis import given
    >>> import tinygrad_rnn as tg
    >>> @given(tg.testing.dtypes("fi"))
    ... def test_zeros(dtype):
    ...     assert tg.zeros(2, dtype=dtype).dtype == dtype
    >>> test_zeros()
    """
    names = ["float64", "float32", "float16", "int64", "int32", "int8", "uint8", "bool"]
    return _hypothesis()[0].sampled_from([np.dtype(n) for n in names if np.dtype(n).kind in kinds])


@_composite
def layouts(draw: Any, array: Any) -> Any:
    """Draw the same values in another memory layout of `LAYOUTS`, writable or read-only.

    Parameters
    ----------
    array : numpy.ndarray
        The values.

    Returns
    -------
    SearchStrategy of numpy.ndarray

    Raises
    ------
    MissingExtraError
        If Hypothesis is not installed.

    Examples
    --------
    >>> from tinygrad_rnn.testing import arrays, layouts
    >>> any_layout = arrays((2, 3)).flatmap(layouts)
    """
    strategies, _ = _hypothesis()
    prepare, view = LAYOUTS[draw(strategies.sampled_from(sorted(LAYOUTS)))]
    result = view(np.array(prepare(array), order="C"))
    result = result if isinstance(result, np.ndarray) else np.asarray(result)
    result.flags.writeable = draw(strategies.booleans())
    return result


def axes(ndim: int) -> Strategy:
    """Draw values of `axis`: None, one axis or a tuple of axes, including negative ones.

    Parameters
    ----------
    ndim : int
        Number of axes of the array.

    Returns
    -------
    SearchStrategy of None, int or tuple of int

    Raises
    ------
    MissingExtraError
        If Hypothesis is not installed.

    Examples
    --------
    >>> from hypothesis import given
    >>> import tinygrad_rnn as tg
    >>> @given(tg.testing.axes(2))
    ... def test_sum(axis):
    ...     assert tg.ones(2, 3).sum(axis=axis).ndim <= 2
    >>> test_sum()
    """
    strategies, _ = _hypothesis()
    if ndim == 0:
        return strategies.sampled_from([None, ()])
    one = strategies.integers(-ndim, ndim - 1)
    several = strategies.lists(one, unique_by=lambda a: a % ndim, max_size=ndim).map(tuple)
    return strategies.none() | one | several


def indices(shape: Shape, boolean: bool = True) -> Strategy:
    """Draw indices of every kind that NumPy accepts.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    boolean : bool
        Whether boolean masks are included.

    Returns
    -------
    SearchStrategy
        Integers, slices, None, Ellipsis, integer arrays (repeated indices too), masks, and
        tuples of these.

    Raises
    ------
    MissingExtraError
        If Hypothesis is not installed.

    Examples
    --------
    >>> from hypothesis import given
    >>> import tinygrad_rnn as tg
    >>> x = tg.ones(2, 3)
    >>> @given(tg.testing.indices((2, 3)))
    ... def test_index(index):
    ...     assert x[index].shape == x.numpy()[index].shape
    >>> test_index()
    """
    strategies, numpy = _hypothesis()
    basic = numpy.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True)
    if not shape or 0 in shape:
        return basic
    integers = numpy.integer_array_indices(shape, result_shape=shapes(max_dims=2))
    kinds = [basic, integers, _repeated(shape), _mixed_indices(shape)]
    kinds += [_masks(shape)] if boolean else []
    return strategies.one_of(*kinds)


@_composite
def _repeated(draw: Any, shape: Shape) -> Any:
    """Draw an integer array with a repeated index, as the same number or as a negative one."""
    strategies, _ = _hypothesis()
    axis = draw(strategies.integers(0, len(shape) - 1))
    rows = draw(strategies.lists(strategies.integers(0, shape[axis] - 1), max_size=2))
    index = draw(strategies.integers(0, shape[axis] - 1))
    array = np.array([index, *rows, index - shape[axis] * draw(strategies.integers(0, 1))])
    return (*[slice(None)] * axis, array)


@_composite
def _masks(draw: Any, shape: Shape) -> Any:
    """Draw an index with one boolean array, which covers one axis or several."""
    strategies, numpy = _hypothesis()
    before = draw(strategies.integers(0, len(shape) - 1))
    after = draw(strategies.integers(before + 1, len(shape)))
    mask = draw(numpy.arrays(np.bool_, shape[before:after]))
    return (*[slice(None)] * before, mask)


@_composite
def _mixed_indices(draw: Any, shape: Shape) -> Any:
    """Draw a tuple of integer arrays, slices, integers, None and Ellipsis."""
    strategies, numpy = _hypothesis()
    common_shape = draw(shapes(min_dims=1, max_dims=2))
    key: list[Any] = []
    for n in shape:
        index = strategies.integers(-n, n - 1)
        array = numpy.arrays(np.int64, common_shape, elements=index)
        key.append(draw(array | index | strategies.slices(n)))
    if draw(strategies.booleans()):
        key[draw(strategies.integers(0, len(key) - 1)) :] = [Ellipsis]
    if draw(strategies.booleans()):
        key.insert(draw(strategies.integers(0, len(key))), None)
    return tuple(key)
