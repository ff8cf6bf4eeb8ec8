"""One check of the keys of a state, for all objects that load one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn._util.state_keys import check_keys, key_problems, raise_problems
from tinygrad_rnn.errors import ArgumentError

KEYS = st.lists(st.text("abc", min_size=1, max_size=2), unique=True, max_size=5)


@given(KEYS, KEYS)
def test_each_key_that_differs_is_one_problem(given_keys: list[str], expected: list[str]) -> None:
    problems = key_problems(dict.fromkeys(given_keys), expected, "part")
    assert problems == [
        *(f"part: missing: {key}" for key in expected if key not in given_keys),
        *(f"part: unexpected: {key}" for key in given_keys if key not in expected),
    ]


@pytest.mark.parametrize("state", [None, ["a"], "a", {"a"}, 3])
def test_a_state_that_is_not_a_mapping_is_refused(state: Any) -> None:
    (problem,) = key_problems(state, ("a",))
    name = type(state).__name__
    assert problem == f"a dict with the keys a is expected, got a {name}"
    assert key_problems(state, (), "drawn") == [f"drawn: a dict is expected, got a {name}"]


@pytest.mark.parametrize("kind", [dict, MappingProxyType])
def test_any_mapping_with_the_keys_in_any_order_is_accepted(kind: Any) -> None:
    state: Mapping[str, int] = kind({"b": 1, "a": 2})
    check_keys("load", state, ("a", "b"))
    check_keys("load", state, iter(("a", "b")))


def test_one_error_lists_all_problems() -> None:
    raise_problems("load", [])
    with pytest.raises(ArgumentError) as caught:
        check_keys("Thing.load_state_dict", {"c": 1}, ("a", "b"))
    assert str(caught.value) == (
        "Thing.load_state_dict: nothing was loaded:\n  missing: a\n  missing: b\n  unexpected: c"
    )
