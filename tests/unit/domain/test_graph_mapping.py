"""Paths and mappings: what they mean, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.graph_mapping import parse_reference, parse_template

_INPUTS = {"user": {"name": "Ada", "a key": [10, 20]}}
_OUTPUTS = {"fetch-page": {"rows": [{"id": 1}]}, "plain": 5}
_ERRORS = {"broken": {"code": "component_error", "type": "ValueError", "message": "no"}}


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ("$.inputs", _INPUTS),
        ({"n": "$.inputs.user.name"}, {"n": "Ada"}),
        ({"n": "$.inputs.user['a key'][1]"}, {"n": 20}),
        ({"n": '$.inputs["user"].name'}, {"n": "Ada"}),
        ({"n": "$['inputs'].user.name"}, {"n": "Ada"}),
        ("$.nodes.fetch-page.output.rows[0]", {"id": 1}),
        (["$.nodes.plain.output", {"deep": ["$.nodes.plain.output"]}], [5, {"deep": [5]}]),
        ({"why": "$.nodes.broken.error.type"}, {"why": "ValueError"}),
        (
            {"not run": "$.nodes.broken.output.rows[0].id", "fine": "$.nodes.plain.error.code"},
            {"not run": None, "fine": None},
        ),
        (
            {"money": "$5", "price": "$", "text": "$$.inputs", "twice": "$$$.x", "n": None, "b": True},
            {"money": "$5", "price": "$", "text": "$.inputs", "twice": "$$.x", "n": None, "b": True},
        ),
    ],
)
def test_resolves(mapping: Any, expected: Any):
    assert parse_template(mapping).resolve(_INPUTS, _OUTPUTS, _ERRORS) == expected


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("$.inputs.user.age", ["'age'", "['a key', 'name']"]),
        ("$.inputs.user[0]", ["0", "{'name'"]),
        ("$.nodes.fetch-page.output.rows[3]", ["3", "a list of 1"]),
        ("$.nodes.plain.output.x", ["'x'", "5"]),
    ],
)
def test_a_missing_key_is_an_error_that_names_path_and_place(path: str, words: list[str]):
    with pytest.raises(errors.InvalidInput) as caught:
        parse_template({"x": path}).resolve(_INPUTS, _OUTPUTS, _ERRORS)
    assert caught.value.error_code == "input_mapping_failed"
    assert all(word in caught.value.message for word in [repr(path), *words]), caught.value.message


@pytest.mark.parametrize(
    "path",
    [
        "$.",
        "$.input",
        "$.nodes",
        "$.nodes.a",
        "$.nodes.a.result",
        "$.nodes[0].output",
        "$.inputs..x",
        "$.inputs.x[",
        "$.inputs.x[-1]",
        "$.inputs.x[*]",
        "$.inputs.x + 1",
        "$.inputs ",
        "$.inputs." + "x" * 500,
    ],
)
def test_malformed_paths_are_refused_with_their_field(path: str):
    with pytest.raises(errors.InvalidInput, match=r"expected '\$\.inputs") as caught:
        parse_template({"a": [1, {"b": path}]})
    assert caught.value.details[0]["field"] == "a[1].b"


def test_a_mapping_is_bounded():
    deep: Any = 1
    for _ in range(30):
        deep = {"x": deep}
    for mapping in (deep, [0] * 3000):
        with pytest.raises(errors.InvalidInput, match="at most 20 levels and 2000 values"):
            parse_template(mapping)


def test_references_name_the_field_they_fill():
    template = parse_template({"a": "$.inputs", "b": [1, "$.nodes.x.output.y"]})
    assert [(field, reference.text) for field, reference in template.references()] == [
        ("a", "$.inputs"),
        ("b[1]", "$.nodes.x.output.y"),
    ]
    assert parse_reference("$.nodes.x.output.y[2]").path == ("y", 2)
