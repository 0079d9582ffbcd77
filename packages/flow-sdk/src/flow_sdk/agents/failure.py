"""Why a run ended without an answer, as a code that one can act on."""

from __future__ import annotations

from typing import Any, cast

from pydantic_ai.exceptions import AgentRunError, ModelAPIError, ModelHTTPError, UnexpectedModelBehavior

from flow_sdk.agents.output import Answer
from flow_sdk.errors import PlatformClientError
from flow_sdk.harness.failure import Refused


def refusal_for(error: Exception, answer: Answer) -> Refused | None:
    """The refusal that says what went wrong; None for what only the harness can describe."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ModelHTTPError):
        return _of_the_gateway(error)
    if isinstance(error, ModelAPIError):
        return _retryable("model_unreachable", f"the model could not be called: {error}")
    if isinstance(error, UnexpectedModelBehavior):
        if answer.is_structured:
            reason = answer.problem or str(error)
            return Refused("output_mismatch", f"the model gave no answer that fits the output's schema: {reason}")
        return _retryable("model_misbehaved", f"the model's answer cannot be used: {error}")
    if isinstance(error, AgentRunError):
        return _retryable("model_misbehaved", str(error))
    if isinstance(error, PlatformClientError):
        refused = Refused(error.code or "tool_call_failed", f"a tool could not be called: {error}")
        refused.document = refused.document.model_copy(update={"retryable": (error.status_code or 500) >= 500})
        return refused
    return None


def _of_the_gateway(error: ModelHTTPError) -> Refused:
    """Its own code and message, e.g. `model_key_missing` with the command that mends it."""
    body: Any = error.body
    told = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    code = told.get("code")
    message = told.get("message") or str(error)
    refused = Refused(code if isinstance(code, str) and code else "model_error", f"the model was not called: {message}")
    is_temporary = error.status_code in (408, 429) or error.status_code >= 500
    refused.document = refused.document.model_copy(update={"retryable": is_temporary})
    return refused


def _retryable(code: str, message: str) -> Refused:
    refused = Refused(code, message)
    refused.document = refused.document.model_copy(update={"retryable": True})
    return refused
