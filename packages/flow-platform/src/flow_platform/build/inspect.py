"""What publishing asks a container about a component, and the answer as a `BuildReply`. Pure.

The component is loaded in a container like any that runs it: the code of a stranger never runs in the server, and a
dependency that cannot be imported is found out here.
"""

from __future__ import annotations

import json
from typing import Any, Final, cast

import pydantic
import pydantic_core

from flow_platform.domain import errors
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.harness import Mode
from flow_sdk.wire.runner import BuildReply, BuildRequest, EnvironmentRef, Limits

LIMITS: Final = Limits(output_bytes=4 << 20, events=0, log_bytes=64 << 10)
MAX_SECONDS: Final = 60.0  # For imports and examples together.


def start_frame(request: BuildRequest) -> bytes:
    """The body of the START frame that only looks at the component."""
    return json.dumps(
        {
            "mode": Mode.INSPECT.value,
            "kind": request.kind.value,
            "code": request.code,
            "entry_point": request.entry_point,
            "examples": request.examples,
            "output_bytes": LIMITS.output_bytes,
            "env": {},
        }
    ).encode()


def reply(environment: EnvironmentRef, result: bytes) -> BuildReply:
    """Reads the RESULT frame of an inspection."""
    try:
        content = _object(pydantic_core.from_json(result, allow_inf_nan=False))
        if content.get("error") is not None:
            return BuildReply(error=ErrorDocument.model_validate(content["error"]))
        return BuildReply.model_validate({**_object(content.get("output")), "environment": environment, "error": None})
    except (ValueError, pydantic.ValidationError) as error:
        return refused("inspection_failed", f"the component's inspection gave no usable answer: {error}")


def refused(code: str, message: str) -> BuildReply:
    """The version is refused; publishing it unchanged cannot help."""
    return BuildReply(error=ErrorDocument(code=code, message=message, retryable=False))


def failed(error: errors.FlowError) -> BuildReply:
    """The version could not be built."""
    message = error.message + (f" (hint: {error.hint})" if error.hint else "")
    retryable = error.error_code in {"index_unavailable", errors.SandboxUnavailable.code, errors.BusUnavailable.code}
    return BuildReply(
        error=ErrorDocument(code=error.error_code, message=message, details=error.details, retryable=retryable)
    )


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{type(value).__name__!r} instead of an object")  # noqa: TRY004 - from outside.
    return cast("dict[str, Any]", value)
