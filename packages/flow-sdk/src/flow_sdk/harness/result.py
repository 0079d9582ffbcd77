"""Makes JSON of what a component returned. What JSON cannot say is refused, never bent."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Set
from typing import Any

import pydantic_core
from pydantic import BaseModel, TypeAdapter

from flow_sdk.harness.failure import Refused


def encode(value: Any) -> bytes:
    """UTF-8 JSON of the value: models, dataclasses, dates, decimals, UUIDs, sets and enums included.

    Raises:
        Refused: `invalid_output`, with the reason.
    """
    try:
        text = json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        return text.encode()
    except RecursionError as exc:
        raise Refused("invalid_output", "the output is nested too deeply for JSON") from exc
    except UnicodeEncodeError as exc:
        raise Refused("invalid_output", f"the output holds a string that is not valid Unicode: {exc}") from exc
    except (TypeError, ValueError) as exc:
        raise Refused("invalid_output", f"the output is not JSON: {exc}") from exc


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("bytes are not text; encode them, e.g. with base64.b64encode")
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        adapter: TypeAdapter[Any] = TypeAdapter(type(value))
        return adapter.dump_python(value, mode="json")
    if isinstance(value, Mapping):
        return dict(value.items())  # type: ignore[reportUnknownArgumentType]
    if isinstance(value, Set):
        return list(value)  # type: ignore[reportUnknownArgumentType]
    try:
        return pydantic_core.to_jsonable_python(value)
    except pydantic_core.PydanticSerializationError as exc:
        raise TypeError(f"a value of type {type(value).__name__!r} has no JSON form") from exc
