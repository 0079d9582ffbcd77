"""The smallest value that a JSON Schema allows, as far as the `test` provider needs it: always the same one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

MAX_DEPTH: Final = 20


def sample(schema: Any, text: str) -> Any:
    """A value for the schema; its strings are `text` as far as their lengths allow."""
    return _sample(schema, schema, text, 0)


def _sample(schema: Any, root: Any, text: str, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return None
    rule = cast("Mapping[str, Any]", schema)
    if "$ref" in rule:
        return _sample(_referred(str(rule["$ref"]), root), root, text, depth + 1)
    for name in ("const", "default"):
        if name in rule:
            return rule[name]
    for name in ("enum", "examples"):
        if rule.get(name):
            return rule[name][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if rule.get(name):
            return _sample(rule[name][0], root, text, depth + 1)
    return _of_type(rule, root, text, depth)


def _of_type(rule: Mapping[str, Any], root: Any, text: str, depth: int) -> Any:
    given: Any = rule.get("type") or ("object" if "properties" in rule else "string")
    kind = cast("list[Any]", given)[0] if isinstance(given, list) else given
    if kind == "object":
        required = cast("list[str]", rule.get("required") or [])
        properties = cast("Mapping[str, Any]", rule.get("properties") or {})
        return {name: _sample(properties.get(name), root, text, depth + 1) for name in required}
    if kind == "array":
        return [_sample(rule.get("items"), root, text, depth + 1) for _ in range(int(rule.get("minItems") or 0))]
    if kind == "string":
        return text[: int(rule.get("maxLength", len(text)))].ljust(int(rule.get("minLength") or 0), "x")
    if kind in ("integer", "number"):
        return _number(rule)
    return False if kind == "boolean" else None


def _number(rule: Mapping[str, Any]) -> Any:
    if "minimum" in rule:
        return rule["minimum"]
    if "exclusiveMinimum" in rule:
        return rule["exclusiveMinimum"] + 1
    return min(0, rule.get("maximum", 0))


def _referred(reference: str, root: Any) -> Any:
    found = root
    for part in reference.removeprefix("#/").split("/"):
        found = cast("Mapping[str, Any]", found).get(part) if isinstance(found, Mapping) else None
    return found
