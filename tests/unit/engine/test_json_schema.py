"""Schemas of strangers: what they may ask, and that none keeps the server busy."""

from __future__ import annotations

from typing import Any

import pytest

from flow_platform.domain.errors import InvalidInput
from flow_platform.engine.json_schema import check_schema, check_value

ENDLESS = "^(a+)+$"


def test_a_pattern_is_matched_in_linear_time() -> None:
    schema = {"properties": {"text": {"type": "string", "pattern": ENDLESS}}}
    check_schema("schema", schema)

    check_value("value", schema, {"text": "a" * 50_000})
    with pytest.raises(InvalidInput) as caught:
        check_value("value", schema, {"text": "a" * 50_000 + "b"})
    assert caught.value.details[0]["field"] == "text"


def test_patterns_of_names_are_not_matched_here() -> None:
    check_value("value", {"patternProperties": {ENDLESS: {}}, "additionalProperties": False}, {"a" * 40 + "b": 1})


@pytest.mark.parametrize("pattern", ["(?=a)", r"(a)\1", "(", "a" * 1001])
def test_patterns_that_cannot_be_matched_so_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_schema("schema", {"properties": {"a": {"pattern": pattern}}})
    assert caught.value.details[0]["field"] == "schema"


def test_a_check_that_follows_too_many_references_is_given_up() -> None:
    definitions: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    schema = {"$ref": "#/$defs/d0", "$defs": definitions | {"d40": {}}}
    check_schema("schema", schema)

    with pytest.raises(InvalidInput, match="references"):
        check_value("value", schema, 1)
    check_value("value", {"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}, 1)
