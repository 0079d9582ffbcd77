"""Whether two schemas fit: a no must be sure, everything unknown is a yes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from flow_platform.domain.schema_fit import Located, NoSuchMember, locate, members_misfit, misfit, value_misfit


class Address(BaseModel):
    city: str
    zip_code: str | None = None


class Person(BaseModel):
    name: str
    age: int
    address: Address
    friends: list[Person] = []


def _schema(kind: Any) -> Located:
    return locate(TypeAdapter(kind).json_schema(), ())


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (int, int),
        (int, float),
        (float, int),
        (str, str | None),
        (int | None, int),
        (Any, int),
        (int, Any),
        (list[int], list[float]),
        (list, list[int]),
        (Person, Person),
        (Person, dict[str, Any]),
        (dict[str, Any], Person),
        (dict[str, int], dict[str, str]),  # Only members by name are compared.
        (object, object),
    ],
)
def test_may_fit(given: Any, wanted: Any):
    assert misfit(_schema(given), _schema(wanted)) is None


@pytest.mark.parametrize(
    ("given", "wanted", "problem"),
    [
        (str, int, "expected integer, got string"),
        (int, str | None, "expected null or string, got integer"),
        (list[str], list[int], "items: expected integer, got string"),
        (Address, Person, "expected 'name', which is required; got city, zip_code"),
        (dict[str, int], list[int], "expected array, got object"),
        (None, str, "expected string, got null"),
    ],
)
def test_cannot_fit(given: Any, wanted: Any, problem: str):
    assert misfit(_schema(given), _schema(wanted)) == problem


def test_members_are_compared_in_depth():
    class Other(BaseModel):
        name: str
        age: int
        address: str

    assert misfit(_schema(Person), _schema(Other)) == "address: expected string, got object"


def test_follows_paths_through_references():
    document = TypeAdapter(Person).json_schema()
    assert locate(document, ("address", "city")).schema == {"title": "City", "type": "string"}
    assert locate(document, ("friends", 0, "age")).schema == {"title": "Age", "type": "integer"}
    assert locate(document, ()).schema is not None
    assert locate(None, ("anything", 0)).schema is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("nmae",), ["'nmae'", "address, age, friends, name"]),
        (("name", "first"), ["'first' of string"]),
        (("address", 0), ["[0] of object"]),
    ],
)
def test_a_path_to_nothing(path: tuple[str | int, ...], words: list[str]):
    with pytest.raises(NoSuchMember) as caught:
        locate(TypeAdapter(Person).json_schema(), path)
    assert all(word in str(caught.value) for word in words)


def test_open_objects_may_have_any_member():
    assert locate({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, ("b",)).schema is None
    assert locate({"type": "object"}, ("b",)).schema is None
    assert locate(TypeAdapter(Address | None).json_schema(), ("street",)).schema is None


@pytest.mark.parametrize(
    ("value", "kind", "problem"),
    [
        (1, int, None),
        (1, float, None),
        (1.0, int, None),
        (1.5, int, "expected integer, got 1.5"),
        (True, int, "expected integer, got True"),
        ("x", str | None, None),
        (None, str, "expected string, got None"),
        ({}, Any, None),
    ],
)
def test_literals(value: Any, kind: Any, problem: str | None):
    assert value_misfit(value, _schema(kind)) == problem


def test_literals_of_an_enumeration():
    target = locate({"type": "string", "enum": ["a", "b"]}, ())
    assert value_misfit("a", target) is None
    assert value_misfit("c", target) == "expected one of ['a', 'b'], got 'c'"


def test_members_of_an_object():
    closed = locate({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, ())
    assert members_misfit({"a"}, closed) is None
    assert members_misfit(set(), closed) == "expected also 'a': required"
    assert members_misfit({"a", "b"}, closed) == "expected only a, got 'b'"
    assert members_misfit({"a"}, locate({}, ())) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/schema"},
        {"type": "object", "properties": [], "required": 5},
        {"anyOf": []},
        {"type": 7},
    ],
)
def test_what_is_not_understood_fits(schema: dict[str, Any]):
    here = locate(schema, ())
    target = locate({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, ())
    assert misfit(here, target) is None
    assert misfit(target, here) is None
    assert members_misfit({"x"}, here) is None
