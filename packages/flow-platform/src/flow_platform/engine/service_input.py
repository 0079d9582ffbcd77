"""What an endpoint's component gets: from the path, the query and the body of a request, held against the schemas.

1. A body that is an object gives its members; any other body is the member `body`. But where the schema asks for no
   object (no code block, no parameters in the path), it is the input as it is.
2. Members of the query are added, and win over the body; those of the path are added last, and win over both.
3. Text from path and query becomes a number or a boolean where the schema asks for one; a repeated member of the query
   becomes a list.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, cast

from flow_platform.domain import errors
from flow_platform.domain.service import WITHOUT_BODY, Endpoint
from flow_platform.engine.json_schema import check_value
from flow_platform.engine.validation import invalid
from flow_sdk.wire.status import Kind

ABSENT: Final = object()
"""There was no body."""

BODY: Final = "body"
_WORDS: Final = {"true": True, "false": False}


def input_of(endpoint: Endpoint, path: dict[str, str], query: Sequence[tuple[str, str]], body: Any = ABSENT) -> Any:
    """The input of the endpoint's component.

    Raises:
        InvalidInput: It does not fit the schemas; details name the fields.
    """
    found: dict[str, Any] = {}
    if isinstance(body, dict):
        found.update(cast("dict[str, Any]", body))
    elif body is not ABSENT:
        if not takes_object(endpoint) and not query:
            check_value(BODY, endpoint.schema, body)
            return body
        found[BODY] = body
    found |= _from_query(endpoint, query)
    for name, text in path.items():
        found[name] = _typed(name, text, parameter_schema(endpoint, name))
    return checked(endpoint, found)


def takes_object(endpoint: Endpoint) -> bool:
    """False for a component that takes any JSON and of which no object is asked."""
    schema = endpoint.schema
    return (
        endpoint.kind is Kind.CODE_BLOCK
        or bool(endpoint.parameters)
        or schema.get("type") == "object"
        or "properties" in schema
    )


def tool_input(endpoint: Endpoint, arguments: dict[str, Any]) -> Any:
    """The input from the arguments of a tool call, which fit `tool_schema`.

    Raises:
        InvalidInput: They do not fit.
    """
    if takes_object(endpoint):
        return checked(endpoint, arguments)
    if BODY not in arguments:
        raise errors.InvalidInput(f"{BODY!r} is missing", details=[{"field": BODY, "message": "is required"}])
    check_value(BODY, endpoint.schema, arguments[BODY])
    return arguments[BODY]


def checked(endpoint: Endpoint, values: dict[str, Any]) -> dict[str, Any]:
    """The whole input, as a tool gives it.

    Raises:
        InvalidInput: It does not fit the schemas.
    """
    schema = endpoint.schema
    required = [*endpoint.parameters, *(name for name in _required(schema) if name not in endpoint.parameters)]
    missing = [name for name in required if name not in values]
    if missing:
        details = [{"field": name, "message": "is required"} for name in missing]
        raise errors.InvalidInput(f"{missing[0]!r} is missing: {endpoint.name!r} requires it", details=details)
    for name in endpoint.parameters:
        part = {"type": "object", "properties": {name: parameter_schema(endpoint, name)}}
        check_value("path", _with_definitions(part, schema), {name: values[name]})
    rest = {name: value for name, value in values.items() if name not in endpoint.parameters}
    check_value(BODY, without_parameters(endpoint), rest)
    return values


def without_parameters(endpoint: Endpoint) -> dict[str, Any]:
    """The schema of what does not come from the path."""
    schema = dict(endpoint.schema)
    if endpoint.parameters:
        properties = {name: part for name, part in _properties(schema).items() if name not in endpoint.parameters}
        required = [name for name in _required(schema) if name not in endpoint.parameters]
        schema |= {"properties": properties}
        schema.pop("required", None)
        if required:
            schema["required"] = required
    return schema


def body_schema(endpoint: Endpoint) -> dict[str, Any] | None:
    """Of the body of a request; None where there is none."""
    return None if endpoint.method in WITHOUT_BODY else without_parameters(endpoint)


def query_schema(endpoint: Endpoint) -> dict[str, Any] | None:
    """Of the query, of the methods without a body."""
    return without_parameters(endpoint) if endpoint.method in WITHOUT_BODY else None


def parameter_schema(endpoint: Endpoint, name: str) -> dict[str, Any]:
    """Of one parameter: text, where the request schema says nothing of it."""
    schema = _properties(endpoint.schema).get(name)
    return cast("dict[str, Any]", schema) if isinstance(schema, dict) and schema else {"type": "string"}


def tool_schema(endpoint: Endpoint) -> dict[str, Any]:
    """Of the whole input, as one object: what a model is asked for."""
    if not takes_object(endpoint):
        return {"type": "object", "properties": {BODY: endpoint.schema}, "required": [BODY]}
    properties = _properties(endpoint.schema)
    parameters = {name: parameter_schema(endpoint, name) for name in endpoint.parameters}
    required = [*endpoint.parameters, *(name for name in _required(endpoint.schema) if name not in parameters)]
    schema: dict[str, Any] = {**endpoint.schema, "type": "object", "properties": {**properties, **parameters}}
    return schema | {"required": required} if required else schema


def example_of(endpoint: Endpoint) -> dict[str, Any]:
    """Values of the right types for what is required."""
    schema = tool_schema(endpoint)
    wanted = schema.get("required") or list(_properties(schema))[:3]
    return {name: _example(name, _properties(schema).get(name)) for name in wanted}


def _example(name: str, schema: Any) -> Any:
    part = cast("dict[str, Any]", schema) if isinstance(schema, dict) else {}
    if "default" in part:
        return part["default"]
    for word in ("examples", "enum"):
        if isinstance(part.get(word), list) and part[word]:
            return part[word][0]
    if "const" in part:
        return part["const"]
    plain: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}
    return plain.get(str(part.get("type")), name)


def _from_query(endpoint: Endpoint, query: Sequence[tuple[str, str]]) -> dict[str, Any]:
    texts: dict[str, list[str]] = {}
    for name, text in query:
        texts.setdefault(name, []).append(text)
    found: dict[str, Any] = {}
    for name, values in texts.items():
        part = _properties(endpoint.schema).get(name)
        schema = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
        if schema.get("type") == "array":
            items = schema.get("items")
            each = cast("dict[str, Any]", items) if isinstance(items, dict) else {}
            found[name] = [_typed(name, text, each) for text in values]
        elif len(values) == 1:
            found[name] = _typed(name, values[0], schema)
        else:
            found[name] = values
    return found


def _typed(name: str, text: str, schema: dict[str, Any]) -> Any:
    """Text as the schema's type. Text stays text where it is none of it: the schema then says what is wrong."""
    wanted = schema.get("type")
    types = cast("list[Any]", wanted) if isinstance(wanted, list) else [wanted]
    if "boolean" in types and text in _WORDS:
        return _WORDS[text]
    if "integer" in types or "number" in types:
        if len(text) > 400:
            raise invalid(name, text, "a number")
        try:
            number = json.loads(text)
        except ValueError:
            return text
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if is_number and ("number" in types or isinstance(number, int)) and abs(number) < float("inf"):
            return number
    return text


def _with_definitions(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """References inside of the part are to the whole schema's definitions."""
    return {**part, **{word: schema[word] for word in ("$defs", "definitions") if word in schema}}


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    return cast("dict[str, Any]", properties) if isinstance(properties, dict) else {}


def _required(schema: dict[str, Any]) -> list[str]:
    required = schema.get("required")
    return cast("list[str]", required) if isinstance(required, list) else []
