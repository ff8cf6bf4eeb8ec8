"""The exceptions and warnings of the library, each a subclass of a built-in one."""

from __future__ import annotations


class ShapeError(ValueError):
    """Shapes, axes or sizes that do not match.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.ones(2, 3) @ tg.ones(2, 3)
    Traceback (most recent call last):
        ...
    tinygrad_rnn.errors.ShapeError: matmul...
    """


class ArgumentError(ValueError):
    """An argument out of range, or an invalid combination of arguments.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.nn.Dropout(1.5)
    Traceback (most recent call last):
        ...
    tinygrad_rnn.errors.ArgumentError: Dropout: p must be in [0, 1], got 1.5
    """


class DeviceError(ValueError):
    """Arrays on different devices in one operation, or an unavailable device.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.ones(2, device="gpu")
    Traceback (most recent call last):
        ...
    tinygrad_rnn.errors.DeviceError: ones: unknown device 'gpu'...
    """


class DTypeError(TypeError):
    """A type or dtype that the operation does not support.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.tensor([1, 2], requires_grad=True)
    Traceback (most recent call last):
        ...
    tinygrad_rnn.errors.DTypeError: ...
    """


class GraphError(RuntimeError):
    """A graph that cannot be differentiated: freed, modified since, or never recorded.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.ones(2).sum().backward()
    Traceback (most recent call last):
        ...
    tinygrad_rnn.errors.GraphError: ...
    """


class MissingExtraError(ImportError):
    """An optional package is not installed; the message names the extra that installs it.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> issubclass(tg.errors.MissingExtraError, ImportError)
    True
    """


class DistributedError(RuntimeError):
    """Ranks that do different things, or one that the others wait for; names the ranks.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> issubclass(tg.errors.DistributedError, RuntimeError)
    True
    """


class CompilerError(RuntimeError):
    """The C compiler is missing or failed; the message has the command and the cure.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> issubclass(tg.errors.CompilerError, RuntimeError)
    True
    """


class ExecutorWarning(UserWarning):
    """NumPy runs what compiled code should run, or another executor wrote a checkpoint.

    Examples
    --------
    >>> import warnings
    >>> import tinygrad_rnn as tg
    >>> with warnings.catch_warnings():  # stop rather than run slowly
    ...     warnings.simplefilter("error", tg.errors.ExecutorWarning)
    """


class CheckpointError(ValueError):
    """A file that `load` rejects: truncated, corrupted, or not written by `save`.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> issubclass(tg.errors.CheckpointError, ValueError)
    True
    """


class GradcheckError(AssertionError):
    """A gradient that disagrees with finite differences; the message shows where and how much.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> tg.gradcheck(lambda x: x.detach() * x, tg.tensor([1.0, 2.0], dtype=tg.float64))
    Traceback (most recent call last):
        ...
    tinygrad_rnn.errors.GradcheckError: ...
    """


class AnomalyError(FloatingPointError):
    """A nan or an infinite number that an operation made; the message names the operation.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> with tg.detect_anomaly():
    ...     tg.sqrt(tg.tensor([-1.0], requires_grad=True))
    Traceback (most recent call last):
        ...
    tinygrad_rnn.errors.AnomalyError: ...
    """
