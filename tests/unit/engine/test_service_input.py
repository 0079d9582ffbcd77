"""What a component gets of a request."""

from __future__ import annotations

from typing import Any

import pytest

from flow_platform.domain.errors import InvalidInput
from flow_platform.domain.service import Endpoint
from flow_platform.engine.service_input import ABSENT, input_of, tool_input, tool_schema
from flow_sdk.wire.status import Kind

SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"$ref": "#/$defs/Id"},
        "ratio": {"type": "number"},
        "flag": {"type": ["boolean", "null"]},
        "words": {"type": "array", "items": {"type": "integer"}},
        "text": {"type": "string"},
    },
    "required": ["id"],
    "additionalProperties": False,
    "$defs": {"Id": {"type": "string", "maxLength": 3}},
}


def endpoint(path: str = "/a/{id}", schema: dict[str, Any] = SCHEMA, kind: Kind = Kind.CODE_BLOCK) -> Endpoint:
    return Endpoint("e", "e", "POST", path, kind, "c", request_schema=schema)


def test_text_becomes_what_the_schema_asks_for() -> None:
    query = [("ratio", "1e2"), ("flag", "true"), ("words", "1"), ("words", "2"), ("text", "7")]

    assert input_of(endpoint(), {"id": "x"}, query) == {
        "id": "x",
        "ratio": 100,
        "flag": True,
        "words": [1, 2],
        "text": "7",
    }
    assert input_of(endpoint(), {"id": "x"}, [("words", "1")])["words"] == [1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ([("ratio", "much")], "ratio"),
        ([("ratio", "NaN")], "ratio"),
        ([("ratio", "1" * 401)], "ratio"),
        ([("flag", "yes")], "flag"),
        ([("text", "a"), ("text", "b")], "text"),
        ([("words", "x")], "words.0"),
    ],
)
def test_text_that_is_nothing_of_it_is_refused_by_name(query: list[tuple[str, str]], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        input_of(endpoint(), {"id": "x"}, query)
    assert caught.value.details[0]["field"] == field


def test_parameters_of_the_path_are_held_against_their_own_part() -> None:
    with pytest.raises(InvalidInput) as caught:
        input_of(endpoint(), {"id": "too long"}, [], {"unknown": 1})
    assert caught.value.details[0]["field"] == "id"
    with pytest.raises(InvalidInput):
        input_of(endpoint(), {"id": "x"}, [], {"unknown": 1})


def test_a_parameter_that_the_schema_does_not_know_is_text() -> None:
    plain = endpoint("/a/{other}", {"type": "object", "additionalProperties": False})

    assert input_of(plain, {"other": "7"}, []) == {"other": "7"}
    assert tool_schema(plain)["properties"] == {"other": {"type": "string"}}
    assert tool_schema(plain)["required"] == ["other"]


def test_any_json_is_the_input_where_no_object_is_asked_for() -> None:
    numbers = endpoint("/a", {"type": "array", "items": {"type": "integer"}}, Kind.TRANSFORM)

    assert input_of(numbers, {}, [], [1]) == [1]
    assert tool_input(numbers, {"body": [1]}) == [1]
    assert tool_schema(numbers)["required"] == ["body"]
    assert input_of(endpoint("/a", {}, Kind.TRANSFORM), {}, [], ABSENT) == {}
    for wrong in ({"body": ["x"]}, {}):
        with pytest.raises(InvalidInput):
            tool_input(numbers, wrong)
