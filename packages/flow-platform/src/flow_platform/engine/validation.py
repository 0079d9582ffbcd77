"""Turning JSON from outside into typed values, with errors that name the field, the value and what was expected."""

from __future__ import annotations

import reprlib
from typing import Any, Final, TypeVar

import pydantic

from flow_platform.domain import errors

Model = TypeVar("Model", bound=pydantic.BaseModel)

MAX_DETAILS: Final = 20  # Problems listed in one answer; the first ones tell.
_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 100
_REPR.maxlevel = 2


def shown(value: Any) -> str:
    """The value as text for a message, bounded however large it is."""
    return _REPR.repr(value)


def invalid(field: str, value: Any, expected: str) -> errors.InvalidInput:
    """The error for one field."""
    return errors.InvalidInput(
        f"{field} {shown(value)} is not valid: expected {expected}",
        details=[{"field": field, "message": f"expected {expected}, got {shown(value)}"}],
    )


def missing(field: str, expected: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"{field} is missing: expected {expected}", details=[{"field": field, "message": f"missing: {expected}"}]
    )


def parse_model(model: type[Model], value: Any) -> Model:
    """Validates a JSON value against a model.

    Raises:
        InvalidInput: One detail per problem.
    """
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        details = [_detail(problem) for problem in error.errors(include_url=False)[:MAX_DETAILS]]
        first = details[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise errors.InvalidInput(f"{first['field']}: {first['message']}{more}", details=details) from error


def _detail(problem: Any) -> dict[str, Any]:
    field = ".".join(str(part) for part in problem["loc"]) or "body"
    match problem["type"]:
        case "missing":
            return {"field": field, "message": "is required"}
        case "extra_forbidden":
            return {"field": field, "message": "is no field that is known here"}
        case _:
            message = str(problem["msg"]).removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
            return {"field": field, "message": f"{message}, got {shown(problem['input'])}"}
