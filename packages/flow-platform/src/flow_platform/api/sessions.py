"""Sessions of agents over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer
from flow_platform.api.context import principal_of, reference, workspace_of
from flow_platform.api.routing import WORKSPACE, Parameter, Route
from flow_platform.domain import errors
from flow_platform.domain.session import Session
from flow_platform.engine.turns_of_sessions import MAX_ID
from flow_platform.store.base import Page
from flow_sdk.wire.agents import SessionDocument
from flow_sdk.wire.management import PageDocument
from flow_sdk.wire.status import Kind

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Sessions"
_WHERE: Final = (
    Parameter("ring_id", "Id or name of the ring; without it the first one.", {"type": "string"}),
    Parameter("owner", "Of long-term state: the value of its key.", {"type": "string"}),
)


class SessionRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        every = f"{WORKSPACE}/agents/{{agent_id}}/sessions"
        one = f"{every}/{{session_id}}"
        return [
            Route(
                "GET",
                every,
                self.list,
                "Sessions of an agent that changed last, without what was said.",
                tag=_TAG,
                answers={200: PageDocument},
            ),
            Route(
                "GET",
                one,
                self.get,
                "A session with its messages and state; `-` is the long-term state of an owner.",
                tag=_TAG,
                answers={200: SessionDocument},
                parameters=_WHERE,
            ),
            Route(
                "DELETE",
                one,
                self.delete,
                "Forgets a session.",
                tag=_TAG,
                answers={204: "Forgotten"},
                parameters=_WHERE,
            ),
        ]

    async def list(self, request: Request) -> Response:
        agent = reference(request, "agent_id", Kind.AGENT.value)
        found = await self._engine.sessions.list(principal_of(request), *workspace_of(request), agent)
        return page_answer(Page([], None), [_document(session, full=False) for session in found])

    async def get(self, request: Request) -> Response:
        session = await self._engine.sessions.get(principal_of(request), *workspace_of(request), *_named(request))
        return json_answer(_document(session, full=True))

    async def delete(self, request: Request) -> Response:
        await self._engine.sessions.delete(principal_of(request), *workspace_of(request), *_named(request))
        return Response(status_code=204)


def _named(request: Request) -> tuple[str, str, str | None, str]:
    agent = reference(request, "agent_id", Kind.AGENT.value)
    session_id: str = request.path_params["session_id"]
    owner = request.query_params.get("owner", "")
    if not 0 < len(session_id) <= MAX_ID or len(owner) > MAX_ID or "\0" in session_id + owner:
        raise errors.NotFound(f"session {session_id[:80]!r} not found")
    return agent, "" if session_id == "-" and owner else session_id, request.query_params.get("ring_id"), owner


def _document(session: Session, *, full: bool) -> SessionDocument:
    return SessionDocument(
        session_id=session.key.session_id,
        owner=session.key.owner,
        ring_id=session.key.ring_id,
        turns=session.turns,
        created_at=session.created_at,
        updated_at=session.updated_at,
        running_execution_id=session.holder_id,
        queued=len(session.queued),
        messages=session.messages if full else None,
        state=session.state if full else None,
    )
