"""Answers of JSON, and the small values that queries carry."""

from __future__ import annotations

import json
from typing import Any, Final

import pydantic
from pydantic_core import to_json, to_jsonable_python
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.engine.validation import invalid
from flow_platform.store.base import Page

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
MAX_QUERY_VALUE: Final = 1024  # Characters; a cursor has about 100.


def encoded(document: Any) -> bytes:
    """A document (model, or what is made of them) as JSON.

    What components put out is in many documents. Whatever was recorded can be read again: text that is no Unicode, or
    what is nested deeper than the fast encoder goes, is left to the slower one, which escapes it.
    """
    try:
        return to_json(document, inf_nan_mode="null")
    except ValueError:
        return json.dumps(document, default=_plain).encode()


def json_answer(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A document as an answer."""
    return Response(encoded(document), status, headers, "application/json")


def page_answer(page: Page, items: list[Any]) -> Response:
    return json_answer({"items": items, "next_cursor": page.next_cursor})


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, pydantic.BaseModel) else to_jsonable_python(value)


def query_text(request: Request, name: str) -> str | None:
    """A parameter of the query, None when absent or empty.

    Raises:
        InvalidInput: Longer than anything of ours, or with control characters.
    """
    value = request.query_params.get(name)
    if not value:
        return None
    if len(value) > MAX_QUERY_VALUE or not value.isprintable():
        raise invalid(name, value, f"at most {MAX_QUERY_VALUE} printable characters")
    return value


def query_whole(request: Request, name: str, default: int, lowest: int, highest: int) -> int:
    value = query_text(request, name)
    if value is None:
        return default
    return whole(name, value, lowest, highest)


def whole(name: str, value: str, lowest: int, highest: int) -> int:
    """A whole number written in digits.

    Raises:
        InvalidInput: It is none, or out of bounds.
    """
    if not (value.isascii() and value.isdecimal() and len(value) <= 18 and lowest <= int(value) <= highest):
        raise invalid(name, value, f"a whole number from {lowest} to {highest}")
    return int(value)


def paging(request: Request) -> tuple[str | None, int]:
    """Cursor and limit of a list."""
    return query_text(request, "cursor"), query_whole(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
