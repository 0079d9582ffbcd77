"""References of JSON Schemas, as they are looked at when something is published."""

from __future__ import annotations

from typing import Any

import pytest

from flow_platform.domain.errors import InvalidInput
from flow_platform.engine.schema_references import check_references

NODE = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/Node", "$defs": {"Node": NODE}},
        {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}},
        {"type": "object", "properties": {"a~b/c": {}, "d": {"$ref": "#/properties/a~0b~1c"}}},
        {"anyOf": [{"type": "string"}, {"$ref": "#/anyOf/0"}]},
        {"$defs": {"Node": {"$anchor": "here"}}, "$ref": "#here"},
        {"const": {"$ref": "no schema"}, "enum": [{"$ref": "none either"}]},
        {"properties": {"$ref": {"type": "string"}}},
    ],
)
def test_references_into_the_schema_are_fine_in_circles_too(schema: dict[str, Any]) -> None:
    check_references("output", schema)


@pytest.mark.parametrize("reference", ["#/$defs/Other", "https://example.com/x.json", "Node", "#Node", "#/anyOf/7"])
def test_a_reference_that_leads_nowhere_is_refused_with_its_text(reference: str) -> None:
    schema = {"$defs": {"Node": NODE}, "anyOf": [{"type": "array", "items": {"$ref": reference}}]}

    with pytest.raises(InvalidInput) as caught:
        check_references("output", schema)

    assert caught.value.details[0]["field"] == "output.$ref"
    assert repr(reference) in caught.value.message


def test_what_is_put_into_another_schema_refers_to_definitions_only() -> None:
    check_references("output", {"$ref": "#/$defs/Node", "$defs": {"Node": NODE}}, to_definitions_only=True)

    with pytest.raises(InvalidInput, match="type 'object'"):
        check_references("output", {"type": "array", "items": {"$ref": "#"}}, to_definitions_only=True)
