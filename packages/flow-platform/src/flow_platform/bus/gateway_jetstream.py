"""What a container's client may ask of JetStream: its own input, in the four ways that clients ask for it.

Nothing here looks at anything outside the connection: there is one stream with one message, the execution's own input.
It is served again to every new consumer, because a client acknowledges its input before it works, and may crash.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from flow_platform.bus.gateway_limits import MAX_CONSUMERS, MAX_REQUEST_BYTES
from flow_sdk.wire import subjects

API: Final = b"$JS.API."
ACKNOWLEDGE: Final = f"$JS.ACK.{subjects.STREAM_INPUT}.".encode()
INBOX: Final = b"_INBOX."

_EPOCH: Final = datetime.fromtimestamp(0, UTC).isoformat().replace("+00:00", "Z")
_NAME: Final = re.compile(r"[A-Za-z0-9_\-]{1,64}")
_MAX_EXPIRES_SECONDS: Final = 3600.0


@dataclass(slots=True)
class Consumer:
    """One view of the input. `deliver`: the subject a push consumer delivers to, empty for a pull consumer."""

    name: str
    deliver: bytes
    config: dict[str, Any]
    delivered: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with this JSON document. `refused`: what was asked for, if it may not be had."""

    document: dict[str, Any]
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Deliver:
    """A push consumer stands: answer with the document, then deliver the input when its subject is subscribed."""

    document: dict[str, Any]
    consumer: Consumer


@dataclass(frozen=True, slots=True)
class Pull:
    """Deliver the input to the reply subject if it was not yet; then say that there is no more, after `expires`."""

    consumer: Consumer
    batch: int
    expires: float


@dataclass(frozen=True, slots=True)
class DirectGet:
    """Answer with the input itself."""


Outcome = Answer | Deliver | Pull | DirectGet


class InputStream:
    """The emulated stream, as one connection sees it."""

    def __init__(self, execution_id: str) -> None:
        self._input_subject = f"{subjects.EXEC_INPUT}.{execution_id}"
        self._own = {
            f"{prefix}.{execution_id}": stream
            for prefix, stream in (
                (subjects.EXEC_INPUT, subjects.STREAM_INPUT),
                (subjects.EXEC_OUTPUT, subjects.STREAM_OUTPUT),
                (subjects.EXEC_EVENTS, subjects.STREAM_EVENTS),
                (subjects.EXEC_STATUS, subjects.STREAM_STATUS),
            )
        }
        self.consumers: dict[str, Consumer] = {}

    def call(self, subject: str, body: bytes) -> Outcome:
        """Answers one request; `subject` is what follows `$JS.API.`."""
        stream = subjects.STREAM_INPUT
        if len(body) > MAX_REQUEST_BYTES:
            return _error(400, 10025, f"a request of {len(body)!r} bytes: expected at most {MAX_REQUEST_BYTES!r}")
        match subject.split("."):
            case ["STREAM", "NAMES"]:
                return self._names(body)
            case ["CONSUMER", "CREATE", name, *rest] if name == stream:
                return self._create(rest[0] if rest else "", ".".join(rest[1:]), body)
            case ["CONSUMER", "DURABLE", "CREATE", name, durable] if name == stream:
                return self._create(durable, "", body)
            case ["CONSUMER", "INFO", name, consumer] if name == stream:
                return self._with_consumer(consumer, lambda known: Answer(self._information(known)))
            case ["CONSUMER", "DELETE", name, consumer] if name == stream:
                return self._with_consumer(consumer, self._delete)
            case ["CONSUMER", "MSG", "NEXT", name, consumer] if name == stream:
                return self._with_consumer(consumer, lambda known: _pull(known, body))
            case ["DIRECT", "GET", name, *rest] if name == stream and ".".join(rest) == self._input_subject:
                return DirectGet()
            case _:
                return refused(f"$JS.API.{subject}")

    def acknowledgement_subject(self, consumer: Consumer, nanoseconds: int) -> bytes:
        return b"%b%b.1.1.1.%d.0" % (ACKNOWLEDGE, consumer.name.encode(), nanoseconds)

    def acknowledged(self, subject: bytes, body: bytes) -> Consumer | None:
        """Returns the consumer that wants the input again (a negative acknowledgement), else None."""
        consumer = self.consumers.get(subject[len(ACKNOWLEDGE) :].split(b".", 1)[0].decode())
        if consumer is None or not body.startswith(b"-NAK"):
            return None
        consumer.delivered = False
        return consumer

    def _names(self, body: bytes) -> Answer:
        wanted = _decoded(body).get("subject")
        found = [subjects.STREAM_INPUT] if wanted is None else [self._own[wanted]] if wanted in self._own else []
        kind = "io.nats.jetstream.api.v1.stream_names_response"
        return Answer({"type": kind, "total": len(found), "offset": 0, "limit": 1024, "streams": found})

    def _create(self, name: str, filtered: str, body: bytes) -> Answer | Deliver:
        config = _as_object(_decoded(body).get("config"))
        if config is None:
            return _error(400, 10025, f"expected a consumer configuration, got {body[:80]!r}")
        for wanted in (filtered, config.get("filter_subject"), *_as_list(config.get("filter_subjects"))):
            if wanted and wanted != self._input_subject:
                return refused(f"a consumer for {wanted!r}")
        deliver = config.get("deliver_subject") or ""
        if deliver and not _is_own_inbox(deliver):
            return refused(f"delivery to {deliver!r}")
        chosen: Any = name or config.get("durable_name") or config.get("name") or secrets.token_hex(4)
        if not isinstance(chosen, str) or not _NAME.fullmatch(chosen):
            return _error(400, 10137, f"consumer name {chosen!r}: expected up to 64 letters and digits")
        while len(self.consumers) >= MAX_CONSUMERS:
            del self.consumers[next(iter(self.consumers))]
        consumer = Consumer(chosen, deliver.encode(), config)
        self.consumers[chosen] = consumer
        return Deliver(self._information(consumer), consumer) if deliver else Answer(self._information(consumer))

    def _delete(self, consumer: Consumer) -> Answer:
        del self.consumers[consumer.name]
        return Answer({"type": "io.nats.jetstream.api.v1.consumer_delete_response", "success": True})

    def _with_consumer(self, name: str, found: Callable[[Consumer], Outcome]) -> Outcome:
        consumer = self.consumers.get(name)
        return found(consumer) if consumer else _error(404, 10014, "consumer not found")

    def _information(self, consumer: Consumer) -> dict[str, Any]:
        position = {"consumer_seq": int(consumer.delivered), "stream_seq": int(consumer.delivered)}
        return {
            "type": "io.nats.jetstream.api.v1.consumer_create_response",
            "stream_name": subjects.STREAM_INPUT,
            "name": consumer.name,
            "created": _EPOCH,
            "config": {**_plain(consumer.config), "name": consumer.name},
            "delivered": position,
            "ack_floor": position,
            "num_ack_pending": 0,
            "num_redelivered": 0,
            "num_waiting": 0,
            "num_pending": int(not consumer.delivered),
        }


def refused(what: str) -> Answer:
    """A client that asks for what it may not have learns it at once, instead of by a time-out."""
    return Answer(error_document(403, 10199, f"permissions violation: {what} is not this execution's"), what)


def error_document(code: int, error_code: int, description: str) -> dict[str, Any]:
    return {"error": {"code": code, "err_code": error_code, "description": description}}


def _error(code: int, error_code: int, description: str) -> Answer:
    return Answer(error_document(code, error_code, description))


def _pull(consumer: Consumer, body: bytes) -> Pull:
    request = {"batch": int(body)} if body.isdigit() and len(body) < 10 else _decoded(body)
    batch, expires = request.get("batch", 1), request.get("expires", 0)
    wait = expires / 1e9 if isinstance(expires, int | float) and not request.get("no_wait") else 0.0
    return Pull(consumer, batch if isinstance(batch, int) else 1, max(0.0, min(wait, _MAX_EXPIRES_SECONDS)))


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        return _as_object(json.loads(body) if body else {}) or {}
    except (ValueError, RecursionError):
        return {}


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """What a client wants to see again of its configuration. Nested values are left out: nobody needs them."""
    return {key: value for key, value in config.items() if isinstance(value, str | int | float | None)}


def _as_object(value: Any) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _as_list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _is_own_inbox(subject: object) -> bool:
    if not isinstance(subject, str) or not subject.isascii() or not subject.isprintable():
        return False
    return subject.startswith(INBOX.decode()) and not any(sign in subject for sign in " *>") and len(subject) < 512
