"""Validation of state dicts: the keys, and the error that lists all problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ArgumentError
from .api_hints import class_name


def check_keys(operation: str, state: Any, expected: Iterable[str]) -> None:
    """Raise unless a state is a mapping with exactly the expected keys.

    Parameters
    ----------
    operation : str
        The public function that is called, with which the message begins.
    state : object
        The argument.
    expected : iterable of str
        The keys.

    Raises
    ------
    ArgumentError
        Lists the keys that are missing and those that are unexpected.

    Examples
    --------
    >>> from tinygrad_rnn._util.state_keys import check_keys
    >>> check_keys("Scheduler.load_state_dict", {"lr": 0.1, "count": 3}, ("base_lr", "count"))
    Traceback (most recent call last):
    tinygrad_rnn.errors.ArgumentError: Scheduler.load_state_dict: nothing was loaded:
      missing: base_lr
      unexpected: lr
    """
    raise_problems(operation, key_problems(state, expected))


def float_and_count(operation: str, state: Any, name: str) -> tuple[float, int]:
    """Return the values of a state with two keys: a float, and ``"count"``, an integer >= 0.

    Parameters
    ----------
    operation : str
        The public function that is called, with which the message begins.
    state : object
        The argument.
    name : str
        The key of the float.

    Raises
    ------
    ArgumentError
        If keys or values do not fit.

    Examples
    --------
    >>> from tinygrad_rnn._util.state_keys import float_and_count
    >>> float_and_count("Scheduler.load_state_dict", {"lr": 0.1, "count": 3}, "lr")
    (0.1, 3)
    """
    check_keys(operation, state, (name, "count"))
    value, count = state[name], state["count"]
    if not isinstance(value, float) or not isinstance(count, int) or count < 0:
        raise ArgumentError(
            f"{operation}: {name} must be a float and count an integer >= 0, got {value!r} and "
            f"{count!r}"
        )
    return value, count


def key_problems(state: Any, expected: Iterable[str], where: str = "") -> list[str]:
    """Return the problems of the keys of a state, one line for each.

    Parameters
    ----------
    state : object
        The argument.
    expected : iterable of str
        The keys that it must have.
    where : str
        The path of a nested state, such as ``"settings"``.

    Returns
    -------
    list of str
        Empty if the keys are those expected.

    Examples
    --------
    >>> from tinygrad_rnn._util.state_keys import key_problems
    >>> key_problems({"offset": 3}, ("offset", "order"), "drawn")
    ['drawn: missing: order']
    """
    expected, begin = list(expected), f"{where}: " if where else ""
    if not isinstance(state, Mapping):
        keys = f" with the keys {', '.join(expected)}" if expected else ""
        return [f"{begin}a dict{keys} is expected, got a {class_name(state)}"]
    missing = [f"{begin}missing: {key}" for key in expected if key not in state]
    return missing + [f"{begin}unexpected: {key}" for key in state if key not in expected]


def raise_problems(operation: str, problems: list[str]) -> None:
    """Raise one error that lists all problems of a state, if there are any.

    Parameters
    ----------
    operation : str
        The public function that is called, with which the message begins.
    problems : list of str
        A line for each.

    Raises
    ------
    ArgumentError
        If the list is not empty.
    """
    if problems:
        raise ArgumentError(f"{operation}: nothing was loaded:\n  " + "\n  ".join(problems))
