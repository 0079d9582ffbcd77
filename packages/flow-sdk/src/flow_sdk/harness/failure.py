"""Turns what went wrong into an error document, with the component's frames only."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from types import TracebackType
from typing import Any, Final

from pydantic import ValidationError

from flow_sdk.wire.execution import ErrorDocument

COMPONENT_FILE: Final = "component.py"
"""The name that tracebacks show for the component's source."""

_SDK_FOLDER: Final = __file__.removesuffix("harness/failure.py")
_TRACEBACK_CHARACTERS: Final = 16_000
_MESSAGE_CHARACTERS: Final = 4_000
_SHOWN_VALUE_CHARACTERS: Final = 200


class Terminated(SystemExit):
    """SIGTERM came. A SystemExit, because event loops let only that pass through."""


class Suspended(BaseException):
    """The workflow only waits: its attempt ends, and it goes on in another one.

    Not an Exception, so that no handler of the component takes it for an error.
    """

    def __init__(self, document: ErrorDocument) -> None:
        super().__init__()
        self.document = document


class Refused(Exception):
    """The harness refuses input, code or output; carries the document to answer with."""

    def __init__(self, code: str, message: str, details: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.document = ErrorDocument(code=code, message=message, details=details or [], retryable=False)


def describe(error: BaseException) -> ErrorDocument:
    """The document for anything that a component's call raised."""
    if isinstance(error, Refused):
        return error.document
    if isinstance(error, Suspended):
        return error.document
    if isinstance(error, Terminated):
        return ErrorDocument(code="cancelled", message="the execution was cancelled", retryable=False)
    if isinstance(error, MemoryError):
        message = _message(error) or "the component needed more memory than it may have"
        return ErrorDocument(code="out_of_memory", type="MemoryError", message=message, traceback=_format(error))
    message = _message(error)
    if isinstance(error, SystemExit):
        message = f"the component called sys.exit({_shown(error.code)}); return a value or raise an exception instead"
    return ErrorDocument(
        code="component_error",
        type=type(error).__name__,
        message=message[:_MESSAGE_CHARACTERS],
        traceback=_format(error),
    )


def _message(error: BaseException) -> str:
    """The error's text. It is the component's code that makes it, and that may raise as well."""
    try:
        # The base's method: a component's str may be a subclass of str, with methods of its own.
        return str.__str__(str(error))
    except Terminated:
        raise
    except BaseException as exc:  # noqa: BLE001 - the component's code may raise anything
        return f"the message of {type(error).__name__} cannot be shown: its __str__ raised {type(exc).__name__}"


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Terminated:
        raise
    except BaseException as exc:  # noqa: BLE001 - the component's code may raise anything
        return f"<{type(value).__name__}: its __repr__ raised {type(exc).__name__}>"


def refuse_unloadable(error: Exception) -> Refused:
    """What the module's own code raised when it was loaded, with its line."""
    document = describe(error)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == COMPONENT_FILE]
    line = lines[-1] if lines else None
    is_missing = isinstance(error, ModuleNotFoundError)
    message = document.message if is_missing else f"{document.type}: {document.message}"
    details = [{"field": "code", "message": message, "line": line}]
    hint = " (hint: add it to dependencies)" if is_missing and _is_unknown(error.name) else ""
    refused = Refused(document.code, (f"line {line}: " if line else "") + message + hint, details)
    refused.document = document.model_copy(update={"message": str(refused), "details": details, "retryable": False})
    return refused


def _is_unknown(module: str | None) -> bool:
    """Whether nothing that is installed has the module: not one that is a part of something there, or of Python."""
    package = (module or "").partition(".")[0]
    return bool(package) and package not in sys.stdlib_module_names and importlib.util.find_spec(package) is None


def refuse_invalid(code: str, what: str, error: ValidationError) -> Refused:
    """Names every field that does not fit, its value and what was expected."""
    details = [
        {
            "field": ".".join(str(part) for part in problem["loc"]) or what,
            "message": problem["msg"],
            "value": "nothing" if problem["type"] == "missing" else _shown(problem["input"])[:_SHOWN_VALUE_CHARACTERS],
            "expected": problem["type"],
        }
        for problem in error.errors(include_url=False, include_context=False)
    ]
    shown = "; ".join(f"{detail['field']}: {detail['message']}, got {detail['value']}" for detail in details[:5])
    return Refused(code, f"the {what} does not fit the component: {shown}", details)


def _format(error: BaseException) -> str:
    """The traceback as the component's author can use it: from the component's first frame on, without our insides."""
    current: TracebackType | None = error.__traceback__
    while current is not None and current.tb_frame.f_code.co_filename != COMPONENT_FILE:
        current = current.tb_next
    try:
        shown = traceback.TracebackException(type(error), error, current or error.__traceback__)
        if current is not None:
            _trim(shown, set())
        text = "".join(shown.format())
    except RecursionError:
        text = "".join(traceback.format_exception_only(type(error), error))
    except Terminated:
        raise
    except BaseException as exc:  # noqa: BLE001 - looking at the error runs the component's code, too
        text = f"the traceback of {type(error).__name__} cannot be shown: {type(exc).__name__} was raised by it"
    if len(text) > _TRACEBACK_CHARACTERS:
        half = _TRACEBACK_CHARACTERS // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text


def _trim(shown: traceback.TracebackException, seen: set[int]) -> None:
    """Cuts each excursion into the SDK, and what only led to an error of the SDK.

    The line of the component that made it says enough; where none did, the first line of the SDK stays.
    """
    if id(shown) in seen:
        return
    seen.add(id(shown))
    if shown.stack and _is_inside(shown.stack):
        if shown.__cause__ is not None and not _shows_component(shown.__cause__):
            shown.__cause__ = None
            shown.__suppress_context__ = True
        if shown.__context__ is not None and not _shows_component(shown.__context__):
            shown.__context__ = None
    is_inside = False
    kept: list[traceback.FrameSummary] = []
    for frame in shown.stack:
        was_inside, is_inside = is_inside, _is_ours(frame) or (is_inside and frame.filename != COMPONENT_FILE)
        if not (is_inside and (was_inside or kept)):
            kept.append(frame)
    shown.stack[:] = kept
    for other in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if other is not None:
            _trim(other, seen)


def _is_inside(stack: traceback.StackSummary) -> bool:
    """Whether the SDK was entered after the component's last frame: what was raised is the SDK's answer."""
    for frame in reversed(stack):
        if frame.filename == COMPONENT_FILE:
            return False
        if _is_ours(frame):
            return True
    return False


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_SDK_FOLDER)


def _shows_component(shown: traceback.TracebackException) -> bool:
    return any(frame.filename == COMPONENT_FILE for frame in shown.stack)
