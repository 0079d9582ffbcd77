"""What the harness of a workflow says of its calls, in a header of its requests, and what it is answered.

Ordinary clients say nothing of it, and nothing of their requests and answers is different. See `flow_sdk.wire.replay`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request

from flow_platform.api.context import principal_of
from flow_platform.api.routing import Parameter
from flow_platform.engine.validation import invalid
from flow_sdk.wire.replay import HEADER, Told, parse

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

REPLAY: Final = Parameter(HEADER, "What a workflow's harness says of its calls.", {"type": "string"}, "header")

_NOTHING: Final = Told()


async def told_by(request: Request, engine: Engine) -> Told:
    """What the request says, written down as far as it is about other calls.

    Raises:
        InvalidInput: The header is none of ours.
        Conflict: `parent_ended`.
    """
    text = request.headers.get(HEADER)
    if text is None:
        return _NOTHING
    try:
        told = parse(text)
    except ValueError:
        raise invalid(HEADER, text[:200], "such as 'occurrence=2; after=100; made=1-9,12'") from None
    await engine.ahead.note(principal_of(request), told)
    return told


async def with_ahead(request: Request, engine: Engine, told: Told, answer: Any) -> Any:
    """The answer, with the calls that were asked for."""
    if told.after is None:
        return answer
    return {**dict(answer), "ahead": await engine.ahead.calls(principal_of(request), told.after)}
