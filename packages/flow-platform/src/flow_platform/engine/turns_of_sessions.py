"""Turns of conversations that the platform keeps: one at a time, each with what the one before left.

An execution that is a turn gets messages and state of its session when it starts, and leaves them when it completes, in
the transaction that says so. One that ends otherwise leaves the session as it was. While a turn is not over, whatever
it does and whether it holds a container, the next ones wait: queued, and not available before their own deadline.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, cast

from flow_platform.domain import errors
from flow_platform.domain.component import Component, Version
from flow_platform.domain.execution import Execution
from flow_platform.domain.session import MAX_QUEUED_TURNS, Session, SessionKey
from flow_platform.engine.submission import Submission
from flow_platform.store.base import Payload, Transaction
from flow_sdk.wire.agent import AgentDocument, Persistence
from flow_sdk.wire.status import Kind, Status

MAX_ID: Final = 255
MAX_MESSAGES_BYTES: Final = 8 << 20
"""Of one conversation as JSON; the oldest turns are forgotten beyond it."""


def with_session_id(submission: Submission) -> Submission:
    """An agent's session may be named in its input as well.

    Raises:
        InvalidInput: It is no text of 1 to `MAX_ID` characters.
    """
    given = submission.input_data
    if submission.kind is not Kind.AGENT or submission.session_id or not isinstance(given, Mapping):
        return submission
    named = cast("Mapping[str, Any]", given).get("session_id")
    if named is None:
        return submission
    return dataclasses.replace(submission, session_id=_identifier("input_data.session_id", named))


def session_of(submission: Submission, component: Component, version: Version, ring_id: str) -> SessionKey | None:
    """The conversation that the platform keeps of this, if it does.

    Raises:
        InvalidInput: The input does not say whose long-term state it is; or it is to start later.
    """
    if version.definition.agent is None:
        return None
    document = AgentDocument.model_validate(version.definition.agent)
    if document.state.persistence is Persistence.LONG_TERM:
        given = submission.input_data
        field = document.state.key
        value = cast("Mapping[str, Any]", given).get(field) if isinstance(given, Mapping) else None
        key = SessionKey(component.id, ring_id, _identifier(f"input_data.{field}", value), submission.session_id or "")
    elif submission.session_id and (document.keeps_state or document.conversations):
        key = SessionKey(component.id, ring_id, "", submission.session_id)
    else:
        return None
    if submission.start_at is not None:
        raise errors.InvalidInput(
            "start_at and delay_seconds are not for turns of a session: they come in the order of their submits",
            code="delay_not_possible",
        )
    return key


def begin_turn(tx: Transaction, key: SessionKey, execution: Execution, now: datetime) -> Execution:
    """The new execution as it is to be written: available at once, or after the turns before it.

    Raises:
        RateLimited: `too_many_turns`.
    """
    empty = Session(key.line, execution.org_id, execution.workspace_id, created_at=now, updated_at=now)
    line = tx.sessions.ensure(empty)
    if not _is_live(tx, line.holder_id):
        tx.sessions.update(dataclasses.replace(line, holder_id=execution.id))
        return execution
    queued = tuple(other for other in line.queued if _is_live(tx, other))
    if len(queued) >= MAX_QUEUED_TURNS:
        raise errors.RateLimited(
            f"{len(queued)} turns of the session wait already: at most {MAX_QUEUED_TURNS}",
            retry_after=5.0,
            code="too_many_turns",
        )
    tx.sessions.update(dataclasses.replace(line, queued=(*queued, execution.id)))
    return dataclasses.replace(execution, available_at=execution.deadline_at)


def payload_of_turn(tx: Transaction, execution: Execution, version: Version, payload: Payload) -> Payload:
    """The payload with what the session holds. Messages that the caller sent stand in the place of the kept ones."""
    key = tx.sessions.key_of(execution.id) if version.definition.agent is not None else None
    if key is None:
        return payload
    session, line = tx.sessions.find(key), tx.sessions.find(key.line)
    messages = payload.messages or (session.messages if session else [])
    state = {**(line.state if line else {}), **payload.state}
    return dataclasses.replace(payload, messages=messages, state=state)


def end_turn(tx: Transaction, ended: Execution, now: datetime) -> list[Execution]:
    """Keeps what a completed turn left, and lets the next one begin. Returns what changed."""
    key = tx.sessions.key_of(ended.id) if ended.kind is Kind.AGENT else None
    line = tx.sessions.find(key.line, for_update=True) if key else None
    if key is None or line is None or line.holder_id != ended.id:
        return []  # It never had its turn: it is passed over when that comes.
    if ended.status is Status.COMPLETED:
        line = _keep(tx, key, line, ended, now)
    queued = list(line.queued)
    following: Execution | None = None
    while queued and following is None:
        candidate = tx.executions.find(queued.pop(0), for_update=True)
        following = candidate if candidate is not None and candidate.status is Status.QUEUED else None
    tx.sessions.update(dataclasses.replace(line, holder_id=following.id if following else None, queued=tuple(queued)))
    if following is None:
        return []
    ready = dataclasses.replace(following, available_at=None)
    tx.executions.update(following, ready)
    return [ready]


def _keep(tx: Transaction, key: SessionKey, line: Session, ended: Execution, now: datetime) -> Session:
    """Writes the conversation; returns the line with the state, for the caller to write."""
    agent = tx.catalog.get_version(ended.version_id).definition.agent
    document = AgentDocument.model_validate(agent)
    result = tx.executions.result(ended.id)
    state: Any = result.state
    messages: Any = result.messages
    if document.keeps_state and isinstance(state, dict):
        line = dataclasses.replace(line, state=cast("dict[str, Any]", state))
    line = dataclasses.replace(line, turns=line.turns + 1, updated_at=now)
    if not document.conversations or not key.session_id or not isinstance(messages, list):
        return line
    messages = _bounded(cast("list[Any]", messages))
    if key == line.key:
        return dataclasses.replace(line, messages=messages)
    empty = Session(key, ended.org_id, ended.workspace_id, created_at=now, updated_at=now)
    session = tx.sessions.ensure(empty)
    tx.sessions.update(dataclasses.replace(session, messages=messages, turns=session.turns + 1, updated_at=now))
    return line


def _bounded(messages: list[Any]) -> list[Any]:
    """Without its oldest turns, when it is too large. A turn begins with a message of the user."""
    while len(json.dumps(messages)) > MAX_MESSAGES_BYTES:
        begins = [index for index, message in enumerate(messages) if _is_of_the_user(message)]
        if len(begins) < 2:
            return []
        messages = messages[begins[len(begins) // 2] :]
    return messages


def _is_of_the_user(message: Any) -> bool:
    parts = cast("dict[str, Any]", message).get("parts") if isinstance(message, dict) else None
    dicts = cast("list[dict[str, Any]]", [part for part in cast("list[Any]", parts or ()) if isinstance(part, dict)])
    return any(part.get("part_kind") == "user-prompt" for part in dicts)


def _is_live(tx: Transaction, execution_id: str | None) -> bool:
    execution = tx.executions.find(execution_id) if execution_id else None
    return execution is not None and not execution.status.is_terminal


def _identifier(field: str, value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not 0 < len(text) <= MAX_ID or not text.isprintable():
        expected = f"text of 1 to {MAX_ID} printable characters"
        raise errors.InvalidInput(
            f"{field} {str(value)[:80]!r} is not valid: expected {expected}",
            details=[{"field": field, "message": f"expected {expected}"}],
        )
    return text
