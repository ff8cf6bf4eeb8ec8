"""The exceptions of the library, each a subclass of a built-in one."""

from __future__ import annotations


class ShapeError(ValueError):
    """Shapes, axes or sizes that do not fit each other."""


class ArgumentError(ValueError):
    """An argument outside its range, or a combination of arguments that means nothing."""


class DeviceError(ValueError):
    """Arrays on different devices in one operation, or a device that is not there."""


class DTypeError(TypeError):
    """A data type that the operation does not take."""


class GraphError(RuntimeError):
    """A graph that cannot be differentiated: freed, altered since, or never recorded."""


class MissingExtraError(ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class CompilerError(RuntimeError):
    """There is no C compiler, or it failed; the message says what was tried and what to do."""


class CheckpointError(ValueError):
    """A file that `load` cannot trust: cut off, altered, or never written by `save`."""


class GradcheckError(AssertionError):
    """A gradient that differences deny; the message shows where, and by how much."""


class AnomalyError(FloatingPointError):
    """A nan or an infinite number where there was none; the message names who made it."""
