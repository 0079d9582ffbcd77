"""JSON values and wire documents as text columns.

A NUL or a lone surrogate, which user code may well produce and which no database takes as text, is kept like everything
else: JSON escapes the first by itself, and a value with the second is escaped to ASCII. NULL stands for the default, so
that the usual empty values cost nothing.
"""

from __future__ import annotations

import functools
import json
import re
from datetime import datetime
from typing import Any, Final, TypeVar

import pydantic_core

from flow_sdk.wire.execution import Document

D = TypeVar("D", bound=Document)


def _instant(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} is no JSON value")


_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_instant).encode
_ENCODE_ASCII: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=_instant).encode
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
from_json: Final = json.loads

LARGE: Final = 64 << 10
"""Characters of JSON from which on the time counts for which the interpreter is held: threads do not help there."""


def to_json(value: Any) -> str:
    text = _ENCODE(value)
    return text if text.isascii() or not _LONE_SURROGATE.search(text) else _ENCODE_ASCII(value)


def json_or_null(value: Any, default: Any = None) -> str | None:
    """The text of the value; NULL for the default, which is None or an empty list or object."""
    if value is default or (not value and type(value) is type(default)):
        return None
    return to_json(value)


def payload_or_null(value: Any, default: Any = None) -> str | None:
    """The same for what users send and components put out, which may be megabytes: in a fifth of the time.

    What the faster encoder refuses, a lone surrogate or a deep nesting, is left to the other one.
    """
    if value is default or (not value and type(value) is type(default)):
        return None
    try:
        return pydantic_core.to_json(value).decode()
    except (ValueError, TypeError):
        return to_json(value)


def value_or(text: str | None, default: Any = None) -> Any:
    if text is None:
        return default
    if len(text) >= LARGE:
        try:
            # Keys alone are kept in its cache: among many values, looking each of them up costs more than making it.
            return pydantic_core.from_json(text, cache_strings="keys")
        except ValueError:
            pass  # A lone surrogate or a deep nesting, as above.
    return from_json(text)


def document_to_json(document: Document) -> str:
    """The document's fields that are not at their default.

    Not pydantic's own JSON: that refuses a lone surrogate inside of `Any`.
    """
    defaults = _defaults(type(document))
    fields = document.model_dump()
    return to_json({name: value for name, value in fields.items() if value != defaults[name]})


def document_or_null(document: Document | None) -> str | None:
    return None if document is None else document_to_json(document)


def document_from(model: type[D], text: str) -> D:
    return model.model_validate(from_json(text))


@functools.cache
def _defaults(model: type[Document]) -> dict[str, Any]:
    return {name: info.get_default(call_default_factory=True) for name, info in model.model_fields.items()}
