"""The exceptions and warnings of the library, each a subclass of a built-in one."""

from __future__ import annotations


class ShapeError(ValueError):
    """Shapes, axes or sizes that do not match."""


class ArgumentError(ValueError):
    """An argument out of range, or an invalid combination of arguments."""


class DeviceError(ValueError):
    """Arrays on different devices in one operation, or an unavailable device."""


class DTypeError(TypeError):
    """A type or dtype that the operation does not support."""


class GraphError(RuntimeError):
    """A graph that cannot be differentiated: freed, modified since, or never recorded."""


class MissingExtraError(ImportError):
    """An optional package is not installed; the message names the extra that installs it."""


class CompilerError(RuntimeError):
    """The C compiler is missing or failed; the message has the command and the cure."""


class ExecutorWarning(UserWarning):
    """NumPy runs what compiled code should run, or another executor wrote a checkpoint."""


class CheckpointError(ValueError):
    """A file that `load` rejects: truncated, corrupted, or not written by `save`."""


class GradcheckError(AssertionError):
    """A gradient that disagrees with finite differences; the message shows where and how much."""


class AnomalyError(FloatingPointError):
    """A nan or an infinite number that an operation made; the message names the operation."""
