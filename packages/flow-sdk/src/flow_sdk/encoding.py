"""JSON out and in. Outgoing values that JSON does not know become their `str`, over HTTP as over NATS."""

from __future__ import annotations

import json
from typing import Any, Final

from flow_sdk.errors import PlatformClientError, PlatformValidationError

NOT_JSON: Final = "not_json"
"""The code of errors about something that is not JSON, in either direction."""

# NaN and infinity are refused: they are not JSON, and the platform could not hand them on.
_COMPACT: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
_PLAIN: Final = json.JSONEncoder(allow_nan=False, default=str)


def encode_body(body: Any) -> bytes:
    """The body of a request: compact UTF-8 JSON. Dates, UUIDs, Decimals and other foreign values become their `str`.

    Raises:
        PlatformValidationError: The value has no JSON form (NaN, a cycle, a key that is not a string).
    """
    return _encode(_COMPACT, body)


def encode_message(payload: Any) -> bytes:
    """The payload of a NATS message: as `json.dumps(payload, default=str)` writes it.

    Raises:
        PlatformValidationError: The value has no JSON form.
    """
    return _encode(_PLAIN, payload)


def decode(content: bytes, what: str) -> Any:
    """Reads JSON.

    Args:
        content: What came in.
        what: Names it in the error.

    Raises:
        PlatformClientError: It is not JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise PlatformClientError(f"{what} is not JSON: {content[:200]!r}", code=NOT_JSON) from exc


def _encode(encoder: json.JSONEncoder, value: Any) -> bytes:
    try:
        return encoder.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise PlatformValidationError(f"input cannot be sent as JSON: {exc}", code=NOT_JSON) from exc
