"""What the harness says of its calls is understood as it was said, and nothing else is taken for it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow_sdk.wire.replay import MAX_RANGES, Told, call_key, content_of, numbers_in, parse, ranges_of

NUMBERS = st.integers(0, 10**9 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    occurrence=st.none() | NUMBERS,
    after=st.none() | NUMBERS,
    made=st.sets(st.integers(0, 300), max_size=80),
    is_over=st.booleans(),
)
def test_what_is_said_is_what_is_heard(
    occurrence: int | None, after: int | None, made: set[int], is_over: bool
) -> None:
    told = Told(occurrence, after, ranges_of(made), is_over)
    assert parse(str(told)) == told
    assert str(told).isascii()
    assert set(numbers_in(told.made)) == made


@given(made=st.sets(st.integers(0, 10_000)))
def test_one_header_says_so_many_ranges_the_lowest_first(made: set[int]) -> None:
    ranges = ranges_of(made)
    said = list(numbers_in(ranges))
    assert len(ranges) <= MAX_RANGES
    assert said == sorted(made)[: len(said)]
    assert len(said) == len(made) or len(ranges) == MAX_RANGES


MANY = "made=" + ",".join(str(2 * number) for number in range(MAX_RANGES + 1))
NOT_OURS = (
    "occurrence",
    "occurrence=-1",
    "occurrence=1e3",
    "after=1234567890",
    "made=",
    "made=1-",
    "made=1,,2",
    "over=1",
)


@pytest.mark.parametrize("text", [*NOT_OURS, "é", "occurrence=\u0661", MANY])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - that is all it says; the route says more.
        parse(text)


@given(value=JSON, other=JSON)
def test_calls_are_known_by_what_they_mean_as_json(value: object, other: object) -> None:
    """The text of the whole list, so that calls on record before there were two halves of it are found again."""
    key = call_key("code_block", "c1", content_of(value, {"b": 1, "a": 2}, [], {}))
    assert key == call_key("code_block", "c1", content_of(json.loads(json.dumps(value)), {"a": 2, "b": 1}, [], {}))
    same = json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_of(value, {}, [], {}) == content_of(other, {}, [], {})) is same


def test_the_key_of_a_call_is_what_it_always_was() -> None:
    """Else workflows that run while the platform is updated would repeat their children."""
    key = call_key("code_block", "c1", content_of({"n": 1, "é": [None, 1.5]}, {}, [], {}))
    assert key == "1b74d313f48ac9d20640422310dd746871934632db346bd92992e0d76cd64660"
