"""Conditions: what CEL may say, what is refused when publishing, and what bounds an evaluation."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from flow_platform.domain import conditions, errors
from flow_platform.domain.condition_reads import project, read
from flow_platform.domain.conditions import compile_condition

_INPUTS = {"n": 3, "ratio": 1.5, "text": "abc", "list": [1, 2, 3], "nothing": None, "accent": "é", "huge": 2**70}
_OUTPUTS = {"fetch": {"status": 200, "ok": True, "items": [{"k": 1}]}, "two-words": {"x": 1}, "list": [1, 2]}
_ERRORS = {"parse": {"code": "component_error", "type": "ValueError", "message": "no"}}


def _decide(text: str) -> bool:
    return compile_condition(text).evaluate(_INPUTS, _OUTPUTS, _ERRORS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("outputs.fetch.ok", True),
        ("outputs.fetch.status == 200.0", True),
        ("outputs['two-words'].x > 1", False),
        ("outputs.list[1] == 2", True),
        ("outputs.fetch.items.exists(item, item.k == 1)", True),
        ("has(errors.parse) && errors.parse.type == 'ValueError'", True),
        ("has(errors.fetch)", False),
        ("'parse' in errors", True),
        ("errors.size() == 1", True),
        ("has(outputs.absent) && outputs.absent.x", False),
        ("true || outputs.absent.x", True),
        ("inputs.nothing == null", True),
        ("inputs.ratio > 1", True),
        ("inputs.accent.size() == 1", True),
        ("inputs.huge > 9000000000000000000", True),
        ("inputs.text.matches('^a.c$') && inputs.text.startsWith('ab')", True),
        ("inputs.text.matches('(a+)+$')", False),
        ("!has(inputs.q) || inputs.q == 1", True),
        ("type(inputs.n) == int", True),
        ("timestamp('2026-01-01T00:00:00Z') < timestamp('2027-01-01T00:00:00Z')", True),
    ],
)
def test_decides(text: str, expected: bool):
    assert _decide(text) is expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inputs.n >", ["Syntax error", "column 11"]),
        ("", ["Syntax error"]),
        ("output.fetch.ok", ["undeclared reference to 'output.fetch.ok';", "inputs, outputs, errors", "column"]),
        ("__import__('os')", ["undeclared reference to '__import__'"]),
        ("inputs.text.foo()", ["undeclared reference to 'foo'"]),
        ("1 + 1", ["gives a bool", "int"]),
        ("outputs", ["gives a bool", "map"]),
        ("1 == 1.0", ["no matching overload"]),
        ("(" * 40 + "true" + ")" * 40, ["recursion"]),
        ("inputs" + ".a" * 200, ["recursion"]),
        ("true || " * 150 + "true", ["at most 1000 characters", "1204"]),
        ("inputs.a.map(x, x).map(x, x).map(x, x).map(x, x) == []", ["at most 3 macros", "4"]),
        ("inputs.a.all(x, x" + " + x" * 9 + " == 1)", ["at most 8 '+'", "9"]),
        ("inputs.n == 1 ??", ["Syntax error"]),
    ],
)
def test_refused_when_published(text: str, words: list[str]):
    with pytest.raises(errors.InvalidInput) as caught:
        compile_condition(text, "edge 'a' -> 'b'")
    assert caught.value.message.startswith("edge 'a' -> 'b': condition ")
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.details[0]["field"] == "edge 'a' -> 'b'"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("outputs.absent.x == 1", ["absent"]),
        ("inputs.n > 'a'", ["overload"]),
        ("inputs.n", ["expected a bool", "int 3"]),
        ("inputs.n / 0 == 1", ["divide by zero"]),
        ("9223372036854775807 + inputs.n > 0", ["overflow"]),
        ("inputs.list[7] == 1", ["index=7"]),
        ("int(inputs.text) == 1", ["convert"]),
    ],
)
def test_what_cannot_be_decided(text: str, words: list[str]):
    condition = compile_condition(text)
    with pytest.raises(errors.InvalidInput) as caught:
        condition.evaluate(_INPUTS, _OUTPUTS, _ERRORS)
    assert caught.value.error_code == "condition_failed"
    assert repr(text) in caught.value.message
    assert all(word in caught.value.message for word in words), caught.value.message


@pytest.mark.parametrize(
    ("text", "inputs", "words"),
    [
        ("inputs.all(a, inputs.all(b, a + b >= 0))", list(range(1000)), ["Iteration budget"]),
        ("inputs.all(a, a in inputs)", list(range(200_000)), ["100000 values", "name the part"]),
        ("inputs == inputs", ["x" * 1000] * 5000, ["1000000 values"]),
    ],
)
def test_an_evaluation_is_bounded(text: str, inputs: Any, words: list[str]):
    with pytest.raises(errors.InvalidInput) as caught:
        compile_condition(text).evaluate(inputs, {}, {})
    assert all(word in caught.value.message for word in words), caught.value.message


def test_data_that_is_nested_too_deeply_is_refused():
    value: Any = 1
    for _ in range(5000):
        value = [value]
    with pytest.raises(errors.InvalidInput, match="deeper than 100"):
        compile_condition("inputs == []").evaluate(value, {}, {})


def test_only_what_is_named_is_looked_at():
    outputs = {"a": {"count": 1, "rows": [0] * 5_000_000}}
    assert compile_condition("outputs.a.count == 1 && !has(outputs.a.other)").evaluate({}, outputs, {})


def test_text_that_is_no_unicode_is_an_error_not_a_crash():
    with pytest.raises(errors.InvalidInput, match="could not be decided"):
        compile_condition("inputs.x == 'a'").evaluate({"x": "\ud800"}, {}, {})


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("true", frozenset()),
        ("inputs.outputs.a == 1", frozenset()),
        ("outputs.a.b.c == 1 && has(errors.d)", frozenset({"a", "d"})),
        ("outputs['a'].size() > 0", frozenset({"a"})),
        ('outputs . a == 1 || outputs["b-c"] == "outputs.z"', frozenset({"a", "b-c"})),
        ("// outputs.x\n outputs.y", frozenset({"y"})),
        ("r'\\' == '' && outputs.y", frozenset({"y"})),
        ("'''it's outputs.q''' == outputs.y", frozenset({"y"})),
        (".outputs.a", frozenset({"a"})),
        ("errors.size() == 0", None),
        ("'a' in errors", None),
        ("outputs[inputs.which].ok", None),
        ("outputs['a\\u0062']", None),
        ("outputs.all(k, outputs[k].ok)", None),
    ],
)
def test_tells_which_nodes_are_read(text: str, nodes: frozenset[str] | None):
    assert read(text).nodes() == nodes


def test_projection_keeps_maps_on_the_way():
    value = {"a": {"b": {"c": 1, "d": 2}, "e": 3}, "f": 4}
    assert project(value, frozenset({("a", "b", "c"), ("x", "y")})) == {"a": {"b": {"c": 1}}}
    assert project(value, frozenset({("a", "b"), ("a", "b", "c")})) == {"a": {"b": {"c": 1, "d": 2}}}
    assert project(value, frozenset({("f", "g")})) == {"f": 4}
    assert project([1], frozenset({("a",)})) == [1]


def test_the_library_is_imported_only_when_needed():
    program = f"import sys, {conditions.__name__}; sys.exit('cel_expr_python' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
