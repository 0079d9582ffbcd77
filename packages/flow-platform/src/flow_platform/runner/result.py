"""What a container gave as its result, checked and made into the payload of `exec.output.*`. Pure.

The body may be a hostile container's. It is parsed once, to know that it is JSON and which fields it has; the large
case is then spliced, not encoded again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, cast

import pydantic_core

from flow_platform.runner import ending
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.runner import Assignment

RESULT_FIELDS: Final = frozenset({"output", "usage", "messages", "state", "error"})


class BadResult(Exception):
    """The bytes are not a result; the message says why."""


@dataclass(frozen=True)
class Result:
    """A result that was accepted: JSON text of an object with no fields but `RESULT_FIELDS`."""

    text: bytes
    failed: bool


def parse_object(body: bytes) -> dict[str, Any]:
    """Reads a JSON object; NaN, infinities and endless nesting are no JSON.

    Raises:
        BadResult: With the parser's reason.
    """
    try:
        value = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadResult(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadResult(f"{type(value).__name__!r} instead of an object")
    return cast("dict[str, Any]", value)


def parse_result(body: bytes) -> Result:
    """Checks a RESULT frame, or what a container pushed to `exec.output`.

    Raises:
        BadResult: Not a JSON object.
    """
    content = parse_object(body)
    error = content.get("error")
    stripped = content.keys() - RESULT_FIELDS
    refused = _refused_code(error)
    if not stripped and not refused:
        return Result(body.strip(), error is not None)
    kept = {name: value for name, value in content.items() if name in RESULT_FIELDS}
    if refused:
        kept["error"] = {**cast("dict[str, Any]", error), "code": ending.COMPONENT_ERROR}
    return Result(json.dumps(kept, separators=(",", ":")).encode(), error is not None)


def _refused_code(error: Any) -> bool:
    """Whether the container used a word of the runner's for its own error."""
    return isinstance(error, dict) and cast("dict[str, Any]", error).get("code") in ending.RESERVED_CODES


def output_payload(assignment: Assignment, timestamp: str, result: Result | ErrorDocument) -> bytes:
    """The payload of the client contract, section 3."""
    envelope = {
        "execution_id": assignment.execution_id,
        "deployment_id": assignment.deployment_id,
        "timestamp": timestamp,
    }
    if isinstance(result, ErrorDocument):
        nothing = {"output": None, "usage": None, "messages": None, "state": None}
        error = result.model_dump(mode="json") | {"attempt": assignment.attempt}
        return json.dumps({**envelope, **nothing, "error": error}, separators=(",", ":")).encode()
    # The envelope comes last: of two equal keys the last one counts.
    inner = result.text[1:-1].strip()
    tail = json.dumps(envelope, separators=(",", ":"))[1:].encode()
    return b"{" + inner + (b"," if inner else b"") + tail
