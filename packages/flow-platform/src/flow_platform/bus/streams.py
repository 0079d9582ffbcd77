"""The JetStream streams of the platform, and how they come to be.

The database is the record, so every stream may be deleted at any moment and is made again by the next who misses it.
For the same reason a full stream drops its oldest message, which was recorded long ago, instead of refusing new work;
and an execution that says too much pushes out its own oldest message, nobody else's.

Source of the limits: measurements with nats-server 2.15; JetStream's ADR-31 (direct get), ADR-50 (atomic batches).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from flow_platform.domain.errors import BusUnavailable
from flow_sdk.wire import subjects

SECOND: Final = 1_000_000_000  # JetStream's API counts nanoseconds.
DAY: Final = 86_400 * SECOND

MAX_INPUT_BYTES: Final = 256 << 20  # In memory: inputs that wait for their container.
MAX_OUTPUT_BYTES: Final = 2 << 30
MAX_EVENT_BYTES: Final = 4 << 30
MAX_STATUS_BYTES: Final = 128 << 20  # In memory: a lost status is only a later view of the same execution.
MAX_OBJECT_BYTES: Final = 8 << 30
# Every attempt of an execution shares this quota: ten thousand events for each of four attempts.
MAX_EVENTS_PER_EXECUTION: Final = 40_000
MAX_OUTPUTS_PER_EXECUTION: Final = 16
MAX_STATUSES_PER_EXECUTION: Final = 16
# A contract client leaves its consumer behind; each one left slows down every publish to the stream.
ABANDONED_CONSUMER_AFTER: Final = SECOND // 2
RETENTION: Final = DAY
# A message id is remembered that long: longer than any publish is retried, short enough to cost little memory.
DUPLICATE_WINDOW: Final = 120 * SECOND

STREAM_PAYLOADS: Final = f"OBJ_{subjects.PAYLOAD_BUCKET}"

_STREAM_NOT_FOUND: Final = 10059
_STREAM_NAME_IN_USE: Final = 10058  # The name exists with another configuration.
_SERVER_BUSY: Final = 503  # Errors from here on say nothing about the request.

Api = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Sends one request to `$JS.API.{first argument}` and returns the decoded answer, an error answer included."""


def _stream(name: str, subject: str, **different: Any) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": [subject],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_age": RETENTION,
        "duplicate_window": DUPLICATE_WINDOW,
        "allow_direct": True,
        "num_replicas": 1,
        **different,
    }


STREAMS: Final[dict[str, dict[str, Any]]] = {
    # A work queue, as the client contract says: the acknowledgement removes the input. In memory: it is published
    # again for every attempt, and a consumer on a file costs three syncs.
    subjects.STREAM_INPUT: _stream(
        subjects.STREAM_INPUT,
        f"{subjects.EXEC_INPUT}.*",
        storage="memory",
        retention="workqueue",
        max_msgs_per_subject=1,
        max_bytes=MAX_INPUT_BYTES,
        consumer_limits={"inactive_threshold": ABANDONED_CONSUMER_AFTER},
    ),
    subjects.STREAM_OUTPUT: _stream(
        subjects.STREAM_OUTPUT,
        f"{subjects.EXEC_OUTPUT}.*",
        max_msgs_per_subject=MAX_OUTPUTS_PER_EXECUTION,
        max_bytes=MAX_OUTPUT_BYTES,
        allow_atomic=True,
    ),
    subjects.STREAM_EVENTS: _stream(
        subjects.STREAM_EVENTS,
        f"{subjects.EXEC_EVENTS}.*",
        max_msgs_per_subject=MAX_EVENTS_PER_EXECUTION,
        max_bytes=MAX_EVENT_BYTES,
        allow_atomic=True,
    ),
    subjects.STREAM_STATUS: _stream(
        subjects.STREAM_STATUS,
        f"{subjects.EXEC_STATUS}.*",
        storage="memory",
        max_msgs_per_subject=MAX_STATUSES_PER_EXECUTION,
        max_bytes=MAX_STATUS_BYTES,
    ),
    # The layout of JetStream's object store, so that any client can read what we write.
    STREAM_PAYLOADS: _stream(
        STREAM_PAYLOADS,
        f"$O.{subjects.PAYLOAD_BUCKET}.C.>",
        subjects=[f"$O.{subjects.PAYLOAD_BUCKET}.C.>", f"$O.{subjects.PAYLOAD_BUCKET}.M.>"],
        max_bytes=MAX_OBJECT_BYTES,
        allow_rollup_hdrs=True,
    ),
}


async def ensure_stream(api: Api, name: str, *, replicas: int = 1, may_change: bool = True) -> None:
    """Makes the stream exist with our configuration. Costs one request when it does.

    A configuration that the server cannot change in place (another storage, say) is reached by making the stream
    anew: what it held is lost, which is time, never work.

    Args:
        may_change: False for those who may make a missing stream, but not change an existing one.

    Raises:
        BusUnavailable: JetStream does not answer, or refuses.
    """
    wanted = {**STREAMS[name], "num_replicas": replicas}
    # Not CREATE at once, though it is idempotent: it counts the stream's reservation twice and may refuse for that.
    answer = await api(f"STREAM.INFO.{name}", {})
    error = answer.get("error")
    if not error:
        present: dict[str, Any] = answer["config"]
        if not may_change or all(present.get(key) == value for key, value in wanted.items()):
            return
        error = (await api(f"STREAM.UPDATE.{name}", wanted)).get("error")
        if error and error.get("err_code") != _STREAM_NOT_FOUND and int(error.get("code", 0)) < _SERVER_BUSY:
            await api(f"STREAM.DELETE.{name}", {})
            error = {"err_code": _STREAM_NOT_FOUND}
    if error and error.get("err_code") == _STREAM_NOT_FOUND:
        error = (await api(f"STREAM.CREATE.{name}", wanted)).get("error")
    # Somebody else was faster. Whether the stream is exactly as we want it is seen the next time.
    if error and error.get("err_code") != _STREAM_NAME_IN_USE:
        raise BusUnavailable(f"JetStream refuses the stream {name!r}: {json.dumps(error)}")
