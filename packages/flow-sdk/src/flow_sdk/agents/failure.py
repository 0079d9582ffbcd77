"""Why a run ended without an answer, as a code that one can act on."""

from __future__ import annotations

from typing import Any, cast

from pydantic_ai.exceptions import AgentRunError, ModelAPIError, ModelHTTPError, UnexpectedModelBehavior, UserError

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
        return refused("model_unreachable", f"the model could not be called: {error}")
    if isinstance(error, UnexpectedModelBehavior):
        if answer.is_structured:
            reason = answer.problem or str(error)
            return Refused("output_mismatch", f"the model gave no answer that fits the output's schema: {reason}")
        return refused("model_misbehaved", f"the model's answer cannot be used: {error}")
    if isinstance(error, UserError) and answer.is_structured:
        return refused("invalid_output_schema", f"the output's schema cannot be used: {error}", retryable=False)
    if isinstance(error, AgentRunError):
        return refused("model_misbehaved", str(error))
    if isinstance(error, PlatformClientError):
        return _of_the_platform(error)
    return None


def _of_the_gateway(error: ModelHTTPError) -> Refused:
    """Its own code and message, e.g. `model_key_missing` with the command that mends it."""
    body: Any = error.body
    told = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    code = "model_error"
    if isinstance(told.get("code"), str):
        code = told["code"]
    is_temporary = error.status_code in (408, 429) or error.status_code >= 500
    return refused(code, f"the model was not called: {told.get('message') or error}", retryable=is_temporary)


def _of_the_platform(error: PlatformClientError) -> Refused:
    code = "tool_call_failed"
    if error.code:
        code = error.code
    return refused(code, f"a tool could not be called: {error}", retryable=(error.status_code or 500) >= 500)


def refused(code: str, message: str, *, retryable: bool = True) -> Refused:
    made = Refused(code, message)
    made.document = made.document.model_copy(update={"retryable": retryable})
    return made
