"""Turns what went wrong into an error document, with the component's frames only."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any, Final

from pydantic import ValidationError

from flow_sdk.wire.execution import ErrorDocument

COMPONENT_FILE: Final = "component.py"
"""The name that tracebacks show for the component's source."""

_TRACEBACK_CHARACTERS: Final = 16_000
_MESSAGE_CHARACTERS: Final = 4_000
_SHOWN_VALUE_CHARACTERS: Final = 200


class Terminated(SystemExit):
    """SIGTERM came. A SystemExit, because event loops let only that pass through."""


class Refused(Exception):
    """The harness refuses input, code or output; carries the document to answer with."""

    def __init__(self, code: str, message: str, details: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.document = ErrorDocument(code=code, message=message, details=details or [], retryable=False)


def describe(error: BaseException) -> ErrorDocument:
    """The document for anything that a component's call raised."""
    if isinstance(error, Refused):
        return error.document
    if isinstance(error, Terminated):
        return ErrorDocument(code="cancelled", message="the execution was cancelled", retryable=False)
    if isinstance(error, MemoryError):
        message = str(error) or "the component needed more memory than it may have"
        return ErrorDocument(code="out_of_memory", type="MemoryError", message=message, traceback=_format(error))
    message = str(error)
    if isinstance(error, SystemExit):
        message = f"the component called sys.exit({error.code!r}); return a value or raise an exception instead"
    return ErrorDocument(
        code="component_error",
        type=type(error).__name__,
        message=message[:_MESSAGE_CHARACTERS],
        traceback=_format(error),
    )


def refuse_invalid(code: str, what: str, error: ValidationError) -> Refused:
    """Names every field that does not fit, its value and what was expected."""
    details = [
        {
            "field": ".".join(str(part) for part in problem["loc"]) or what,
            "message": problem["msg"],
            "value": "nothing" if problem["type"] == "missing" else repr(problem["input"])[:_SHOWN_VALUE_CHARACTERS],
            "expected": problem["type"],
        }
        for problem in error.errors(include_url=False, include_context=False)
    ]
    shown = "; ".join(f"{detail['field']}: {detail['message']}, got {detail['value']}" for detail in details[:5])
    return Refused(code, f"the {what} does not fit the component: {shown}", details)


def _format(error: BaseException) -> str:
    """The traceback from the component's first frame on; whole when there is none."""
    current: TracebackType | None = error.__traceback__
    while current is not None and current.tb_frame.f_code.co_filename != COMPONENT_FILE:
        current = current.tb_next
    try:
        lines = traceback.format_exception(type(error), error, current or error.__traceback__)
    except RecursionError:
        lines = traceback.format_exception_only(type(error), error)
    text = "".join(lines)
    if len(text) > _TRACEBACK_CHARACTERS:
        half = _TRACEBACK_CHARACTERS // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text
