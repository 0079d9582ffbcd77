"""What a submit says: its body, headers and path, as a `Submission` and the key that makes a repetition harmless."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from datetime import datetime, timedelta
from typing import Any, Final, cast

from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.requests import Request

from flow_platform.api.body import THREAD_FROM_BYTES, read_object
from flow_platform.api.context import principal_of
from flow_platform.api.instants import parse_instant
from flow_platform.domain.errors import PayloadTooLarge
from flow_platform.domain.limits import MAX_PRIORITY
from flow_platform.engine.accept import Submission
from flow_platform.engine.audited import submitter_of
from flow_platform.engine.submit import IdempotencyKey
from flow_platform.engine.validation import invalid, missing
from flow_sdk.wire.status import Kind

LIFECYCLE_EVENTS: Final = ("test", "workflow", "agent_run", "mcp_session")  # The client contract, section 2.
MAX_TEXT: Final = 255
MAX_INPUT_BYTES: Final = 32 << 20  # As JSON. A body may have a little more: what is around the input.
MAX_DELAY: Final = timedelta(days=30)  # Later starts are a schedule's.
TRANSACTION: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class SubmitBody(BaseModel):
    """Documentation of a submit's body. Code blocks take `input_parameters`, all others `input_data`."""

    input_parameters: dict[str, Any] | None = Field(None, description="Keyword arguments of a code block.")
    input_data: Any = Field(None, description="Input of a transform, workflow or agent.")
    config: dict[str, Any] | None = None
    lifecycle_event: str | None = Field(None, description="One of " + ", ".join(LIFECYCLE_EVENTS) + ".")
    ring_id: str | None = None
    timeout_seconds: float | None = Field(None, gt=0)
    start_at: str | None = Field(None, description="Not before: ISO 8601 with its offset, at most 30 days ahead.")
    delay_seconds: float | None = Field(None, ge=0, description="Not before that many seconds; or `start_at`.")
    caller_deployment_id: str | None = Field(None, description="Whose ring is taken when `ring_id` is absent.")
    auto_deploy: bool = True
    scope: str = "workspace"
    session_id: str | None = None
    messages: list[Any] = Field(default_factory=list[Any])
    state: dict[str, Any] = Field(default_factory=dict[str, Any])
    concurrency_key: str | None = Field(None, description="What `concurrency_per_key` of a policy is counted by.")
    priority: int = Field(0, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Higher first, within the workspace.")


async def read_submission(
    request: Request, kind: Kind, component: str, now: datetime
) -> tuple[Submission, IdempotencyKey | None]:
    """Reads and validates a submit. Unknown fields are ignored: newer clients may say more.

    Args:
        now: What a delay counts from.

    Raises:
        InvalidInput: A field of the wrong type.
        PayloadTooLarge: The body or the input is over its limit.
    """
    raw, body = await read_object(request)
    submission = parse_submission(request, kind, component, body, now)
    await check_input(raw, "input_parameters" if kind is Kind.CODE_BLOCK else "input_data", submission.input_data)
    return submission, await read_key(request, raw, body)


async def read_key(request: Request, raw: bytes, body: dict[str, Any]) -> IdempotencyKey | None:
    """The key of the request, if it has one, with what it stands for."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if len(raw) < THREAD_FROM_BYTES:
        return IdempotencyKey(key, _fingerprint(request, _canonical(body)))
    # A client repeats the bytes that it sent; to bring megabytes into canonical form would cost more than it is worth.
    return IdempotencyKey(key, await asyncio.to_thread(_fingerprint, request, raw))


async def check_input(raw: bytes, field: str, input_data: Any) -> None:
    """Raises PayloadTooLarge when the input, a part of that body, is over its limit."""
    if len(raw) > MAX_INPUT_BYTES:  # Else the input is smaller, too, and need not be measured.
        await asyncio.to_thread(_check_size, field, input_data)


def parse_submission(request: Request, kind: Kind, component: str, body: dict[str, Any], now: datetime) -> Submission:
    """Checked by hand: a model would take longer than everything else of a submit but the commit."""
    return Submission(
        kind=kind,
        component=component,
        input_data=_input(kind, body),
        config=_object(body, "config") or _object(body, "context"),
        lifecycle_event=_lifecycle_event(request, kind, body),
        ring_id=_text(body, "ring_id"),
        caller_deployment_id=_text(body, "caller_deployment_id"),
        timeout_seconds=_seconds(body, "timeout_seconds"),
        auto_deploy=_flag(body, "auto_deploy"),
        scope=_text(body, "scope") or "workspace",
        session_id=_text(body, "session_id"),
        messages=_list(body, "messages"),
        state=_object(body, "state"),
        parent_billing_transaction_id=transaction_of(request),
        concurrency_key=_text(body, "concurrency_key"),
        priority=_priority(body),
        start_at=_start_at(body, now),
        submitted_by=submitter_of(principal_of(request)),
    )


def _check_size(field: str, input_data: Any) -> None:
    size = len(to_json(input_data))
    if size > MAX_INPUT_BYTES:
        raise PayloadTooLarge(
            f"{field} has {size} bytes as JSON: expected at most {MAX_INPUT_BYTES}",
            details=[{"field": field, "message": f"{size} bytes, at most {MAX_INPUT_BYTES}"}],
        )


def _input(kind: Kind, body: dict[str, Any]) -> Any:
    if kind is not Kind.CODE_BLOCK:
        if "input_data" not in body:
            raise missing("input_data", f"the input of the {kind.value}")
        return body["input_data"]
    if "input_parameters" not in body:
        raise missing("input_parameters", "an object of keyword arguments")
    parameters = body["input_parameters"]
    if not isinstance(parameters, dict):
        raise invalid("input_parameters", parameters, "an object of keyword arguments")
    return cast("dict[str, Any]", parameters)


def _lifecycle_event(request: Request, kind: Kind, body: dict[str, Any]) -> str:
    event = body.get("lifecycle_event")
    field = "lifecycle_event"
    if event is None:
        event = request.headers.get("x-lifecycle-event") or ("agent_run" if kind is Kind.AGENT else "workflow")
        field = "X-Lifecycle-Event" if "x-lifecycle-event" in request.headers else field
    if not isinstance(event, str) or event not in LIFECYCLE_EVENTS:
        raise invalid(field, event, "one of " + ", ".join(repr(word) for word in LIFECYCLE_EVENTS))
    return event


def transaction_of(request: Request) -> str | None:
    """The transaction that the client has it billed to."""
    value = request.headers.get("x-parent-billing-txn-id")
    if not value:
        return None
    if not TRANSACTION.fullmatch(value):
        raise invalid("X-Parent-Billing-Txn-Id", value, "the id of a transaction")
    return value


def lifecycle_event_of(request: Request, kind: Kind) -> str:
    """Of a request whose body says nothing of it."""
    return _lifecycle_event(request, kind, {})


def _start_at(body: dict[str, Any], now: datetime) -> datetime | None:
    at, delay = body.get("start_at"), body.get("delay_seconds")
    if at is None and delay is None:
        return None
    if at is not None and delay is not None:
        raise invalid("delay_seconds", delay, "either start_at or delay_seconds")
    days = f"at most {MAX_DELAY.days} days ahead"
    if at is not None:
        start_at = parse_instant("start_at", at)
        if start_at > now + MAX_DELAY:
            raise invalid("start_at", at, days)
        return start_at
    most = MAX_DELAY.total_seconds()
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= most:
        raise invalid("delay_seconds", delay, f"a number of seconds from 0 to {most:.0f}: {days}")
    return now + timedelta(seconds=delay)


def _text(body: dict[str, Any], field: str) -> str | None:
    value = body.get(field)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise invalid(field, value, f"text of 1 to {MAX_TEXT} printable characters")
    return value


def _seconds(body: dict[str, Any], field: str) -> float | None:
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise invalid(field, value, "a number of seconds more than 0")
    return float(value)


def _priority(body: dict[str, Any]) -> int:
    value = body.get("priority")
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_PRIORITY:
        raise invalid("priority", value, f"a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}")
    return value


def _flag(body: dict[str, Any], field: str) -> bool:
    value = body.get(field)
    if value is None:
        return True
    if not isinstance(value, bool):
        raise invalid(field, value, "true or false")
    return value


def _object(body: dict[str, Any], field: str) -> dict[str, Any]:
    value = body.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(field, value, "an object")
    return cast("dict[str, Any]", value)


def _list(body: dict[str, Any], field: str) -> list[Any]:
    value = body.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid(field, value, "a list")
    return cast("list[Any]", value)


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _fingerprint(request: Request, content: bytes) -> str:
    digest = hashlib.sha256(f"{request.method}\n{request.scope['path']}\n".encode())
    digest.update(content)
    return digest.hexdigest()
