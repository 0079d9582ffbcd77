"""What runners report, read from `exec.*` messages into typed values. Nothing in a message is trusted blindly.

The headers are the runner's word (it holds its own credential); the body may be a container's own. So the execution is
named by the subject, the attempt by the headers, and the body is only ever a payload.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import pydantic
import pydantic_core

from flow_platform.store.base import NewEvent
from flow_sdk.wire import subjects
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.runner import AttemptMetrics


class Message(Protocol):
    """A message of the bus."""

    @property
    def subject(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Malformed(Exception):
    """The message is not one of ours; it is dropped with a log line."""


@dataclass(frozen=True)
class Origin:
    """Which attempt a message belongs to."""

    execution_id: str
    lease_epoch: int
    attempt: int
    runner_id: str


@dataclass(frozen=True)
class OutputReport:
    """The end of an attempt. `error` set: it failed."""

    origin: Origin
    output: Any
    usage: Any
    messages: Any
    state: Any
    error: ErrorDocument | None
    metrics: AttemptMetrics


def origin_of(message: Message) -> Origin:
    """Reads subject and headers.

    Raises:
        Malformed: A header is missing or not a number.
    """
    try:
        return Origin(
            execution_id=message.subject.rsplit(".", 1)[1],
            lease_epoch=int(message.headers[subjects.HEADER_LEASE_EPOCH]),
            attempt=int(message.headers[subjects.HEADER_ATTEMPT]),
            runner_id=message.headers.get(subjects.HEADER_RUNNER, ""),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise Malformed(f"{message.subject!r} does not say which attempt it is of: {error}") from error


def parse_output(message: Message, body: bytes) -> OutputReport:
    """Reads a message of `exec.output.*`. A body that cannot be kept ends the attempt, too: `invalid_output`.

    Args:
        body: The message's body, or the object that stands for it.

    Raises:
        Malformed: The message does not say which attempt it is of.
    """
    origin = origin_of(message)
    metrics = _metrics(message.headers.get(subjects.HEADER_METRICS))
    try:
        content = _object(message.subject, body)
    except Malformed as error:
        refused = ErrorDocument(code="invalid_output", message=str(error), retryable=False, attempt=origin.attempt)
        failure = _failure_in(body, origin.attempt) or refused
        return OutputReport(origin, None, None, None, None, failure, metrics)
    return OutputReport(
        origin,
        content.get("output"),
        content.get("usage"),
        content.get("messages"),
        content.get("state"),
        _error(content.get("error"), origin.attempt),
        metrics,
    )


def parse_event(message: Message, received_at: datetime) -> tuple[Origin, NewEvent]:
    """Reads a message of `exec.events.*`. An unusable timestamp becomes the time of receipt."""
    origin = origin_of(message)
    content = _object(message.subject, message.body)
    sequence = content.get("sequence")
    if not isinstance(sequence, int):
        raise Malformed(f"{message.subject!r} has sequence {sequence!r}: expected a number")
    event_type = _word(content.get("event_type") or "message")
    return origin, NewEvent(
        execution_id=origin.execution_id,
        attempt=origin.attempt,
        event_type=event_type,
        event_data=content.get("event_data"),
        timestamp=_timestamp(content.get("timestamp"), received_at),
        key=event_key(origin.attempt, sequence),
    )


def event_key(attempt: int, sequence: int) -> str:
    """The key of the n-th event that an attempt published."""
    return f"{attempt}:{sequence}"


def parse_status(message: Message, received_at: datetime) -> tuple[Origin, NewEvent]:
    """Reads a message of `exec.status.*` as an event of type `status`: the container's own word, for people."""
    origin = origin_of(message)
    content = _object(message.subject, message.body)
    status = _word(content.get("status"))
    return origin, NewEvent(
        execution_id=origin.execution_id,
        attempt=origin.attempt,
        event_type="status",
        event_data={"status": status},
        timestamp=_timestamp(content.get("timestamp"), received_at),
        key=f"{origin.attempt}:status:{status}",
    )


def _object(subject: str, body: bytes) -> dict[str, Any]:
    try:
        # Stricter than the standard library's: no NaN, no lone surrogates, a bound on nesting. What is stored here is
        # answered to clients as JSON later.
        content: Any = pydantic_core.from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise Malformed(f"{subject!r} carries no JSON: {error}") from error
    if not isinstance(content, dict):
        raise Malformed(f"{subject!r} carries {type(content).__name__}: expected a JSON object")
    return cast("dict[str, Any]", content)


def _word(value: Any) -> str:
    """A container's own word, as text that every database takes."""
    return str(value)[:64].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _error(value: Any, attempt: int) -> ErrorDocument | None:
    """A contract client may say its error in any JSON; ours says it as an ErrorDocument."""
    if value is None:
        return None
    if isinstance(value, dict):
        try:
            document = ErrorDocument.model_validate({"code": "component_error", **cast("dict[str, Any]", value)})
            return document.model_copy(update={"attempt": attempt})
        except pydantic.ValidationError:
            pass
    text = value if isinstance(value, str) else json.dumps(value)
    return ErrorDocument(code="component_error", message=text, attempt=attempt)


def _failure_in(body: bytes, attempt: int) -> ErrorDocument | None:
    """The component's own error in a body that cannot be kept as it is: its words matter more than its encoding."""
    try:
        content: Any = json.loads(body)
        said = content["error"]
        storable = json.dumps(said, ensure_ascii=False).encode(errors="replace")
        return _error(pydantic_core.from_json(storable, allow_inf_nan=False), attempt)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _metrics(header: str | None) -> AttemptMetrics:
    try:
        return AttemptMetrics.model_validate_json(header) if header else AttemptMetrics()
    except pydantic.ValidationError:
        return AttemptMetrics()


def _timestamp(value: Any, fallback: datetime) -> datetime:
    try:
        parsed = datetime.fromisoformat(value)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):  # The last: year 0 or 10,000 in UTC.
        return fallback
