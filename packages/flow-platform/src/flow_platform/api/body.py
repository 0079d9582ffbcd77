"""Reading the body of a request: once, bounded in size, depth and time, strictly JSON."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final, TypeVar, cast

import pydantic
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from flow_platform.domain import errors
from flow_platform.engine.validation import invalid, parse_model

Model = TypeVar("Model", bound=pydantic.BaseModel)

MAX_BODY_SECONDS: Final = 120.0  # For 33 MiB, 2.3 Mbit/s; a slower client holds memory for nothing.
THREAD_FROM_BYTES: Final = 256 << 10  # Parsing that much takes longer than handing it to a thread and back.

# Numbers that are valid JSON and infinite as a float: a long exponent, or hundreds of digits. Looked for in the text,
# so that the usual body pays a scan and no walk. The patterns begin with one letter each, and digits are looked for as
# zeros: that is ten times as fast.
_LONG_EXPONENTS: Final = (re.compile(rb"e\+?\d{3}"), re.compile(rb"E\+?\d{3}"))
_MANY_DIGITS: Final = b"0" * 300
_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"0" * 9)
_BEFORE_NUMBERS: Final = b"[,:- \t\r\n"
_SCAN_BYTES: Final = 256 << 10  # Between two of them the event loop gets its turn: a scan holds the interpreter.


async def read_body(request: Request) -> bytes:
    """The whole body.

    Raises:
        PayloadTooLarge: From the onion, which counts.
        InvalidInput: `body_timeout`: it took too long to come.
    """
    try:
        async with asyncio.timeout(MAX_BODY_SECONDS):
            message = await request.receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                return message.get("body", b"")
            chunks: list[bytes] = []
            while True:
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunks.append(message.get("body", b""))
                if not message.get("more_body"):
                    return b"".join(chunks)
                message = await request.receive()
    except TimeoutError:
        raise errors.InvalidInput(
            f"the body did not come within {MAX_BODY_SECONDS:g} seconds", code="body_timeout"
        ) from None


async def read_json(request: Request) -> tuple[bytes, Any]:
    """The body, as it came and as JSON.

    Raises:
        InvalidInput: `invalid_json`, with the place.
    """
    body = await read_body(request)
    value = parse_json(body) if len(body) < THREAD_FROM_BYTES else await asyncio.to_thread(parse_json, body)
    return body, value


async def read_object(request: Request) -> tuple[bytes, dict[str, Any]]:
    """The same, when it must be an object."""
    body, value = await read_json(request)
    if not isinstance(value, dict):
        raise invalid("body", value, "a JSON object")
    return body, cast("dict[str, Any]", value)


async def read_model(request: Request, model: type[Model]) -> Model:
    """The body as a validated model."""
    _, value = await read_object(request)
    return parse_model(model, value)


def parse_json(body: bytes) -> Any:
    """JSON, strictly: no NaN and no infinity, no lone surrogates, nested at most 200 deep, one value."""
    if not body:
        raise errors.InvalidInput("the body is empty: expected a JSON object", code="invalid_json")
    try:
        # Keys alone are kept in its cache: among many values, looking each of them up costs more than making it.
        value = from_json(body, allow_inf_nan=False, cache_strings="keys")
        if _may_hold_infinity(body):
            json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise errors.InvalidInput(
            f"the body is not JSON: {error}",
            code="invalid_json",
            details=[{"field": "body", "message": str(error)}],
        ) from error
    return value


def _may_hold_infinity(body: bytes) -> bool:
    """False when surely no number in it is too large for a float. Text that looks like such a number may say True."""
    for start in range(0, len(body), _SCAN_BYTES):
        end = start + _SCAN_BYTES
        if _MANY_DIGITS in body[start : end + 300].translate(_AS_ZEROS):
            return True
        for exponents in _LONG_EXPONENTS:
            for found in exponents.finditer(body, start, end + 5):
                before = body[max(0, found.start() - 400) : found.start()]
                mantissa = before.rstrip(b"0123456789.")
                if len(mantissa) < len(before) and (not mantissa or mantissa[-1] in _BEFORE_NUMBERS):
                    return True
    return False
