"""How an attempt ended without a result, said so that a person can act on it. Pure.

The codes decide what the engine does next: `container_lost`, `process_crashed` and `protocol_error` say that nothing
is known about the component's own outcome (the attempt counts as lost); `runner_drained` is nobody's fault and counts
for nothing; the others are the component's failure.
"""

from __future__ import annotations

import signal as signals
from typing import Final

from flow_platform.sandbox.base import Ended, Ending
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.runner import Limits

OUT_OF_MEMORY: Final = "out_of_memory"
FORBIDDEN_SYSCALL: Final = "forbidden_syscall"
PROCESS_CRASHED: Final = "process_crashed"
CONTAINER_LOST: Final = "container_lost"
PROTOCOL_ERROR: Final = "protocol_error"
RUNNER_DRAINED: Final = "runner_drained"
OUTPUT_TOO_LARGE: Final = "output_too_large"
TOO_MANY_EVENTS: Final = "too_many_events"
EVENT_TOO_LARGE: Final = "event_too_large"
TIMEOUT: Final = "timeout"
CANCELLED: Final = "cancelled"
COMPONENT_ERROR: Final = "component_error"

RESERVED_CODES: Final = frozenset(
    {
        CONTAINER_LOST,
        PROCESS_CRASHED,
        PROTOCOL_ERROR,
        RUNNER_DRAINED,
        TIMEOUT,
        CANCELLED,
        "sandbox_unavailable",
        "runner_lost",
    }
)
"""The runner's own word. A container that uses one of them in its result would choose how it is retried or ended."""


def error_for(ended: Ended, limits: Limits) -> ErrorDocument:
    """Explains a container that ended by itself before it gave a result."""
    usage = ended.usage
    match ended.ending:
        case Ending.OUT_OF_MEMORY:
            return ErrorDocument(
                code=OUT_OF_MEMORY,
                message=f"Out of memory: the container reached {_size(usage.max_rss_bytes)} and its limit is"
                f" {_size(limits.memory_bytes)} ({usage.oom_kills} of its processes were killed by the kernel)",
            )
        case Ending.FORBIDDEN_SYSCALL:
            return ErrorDocument(
                code=FORBIDDEN_SYSCALL,
                message="The process made a system call that containers are not allowed, and was killed (SIGSYS)",
                retryable=False,
            )
        case Ending.CRASHED:
            return ErrorDocument(
                code=PROCESS_CRASHED,
                message=f"The process was killed by {_signal_name(ended.signal)} before its result",
            )
        case Ending.EXITED:
            return ErrorDocument(
                code=PROCESS_CRASHED,
                message=f"The process ended with exit code {ended.exit_code!r} before its result"
                + _pids_hint(ended, limits),
            )
        case Ending.START_FAILED:
            return lost("the container could not be started")
        case Ending.KILLED:
            return lost("the container was killed from outside")


def lost(reason: str) -> ErrorDocument:
    """The attempt's container is gone and nothing is known about the component's outcome."""
    return ErrorDocument(code=CONTAINER_LOST, message=f"Container lost: {reason}")


def drained(runner_id: str) -> ErrorDocument:
    """The runner stops in good order and hands back what it could not finish."""
    return ErrorDocument(code=RUNNER_DRAINED, message=f"Runner {runner_id!r} was stopped; another attempt follows")


def protocol_error(reason: str) -> ErrorDocument:
    return ErrorDocument(code=PROTOCOL_ERROR, message=f"The container broke its protocol: {reason}")


def output_too_large(size: int, limit: int) -> ErrorDocument:
    return ErrorDocument(
        code=OUTPUT_TOO_LARGE,
        message=f"The output has {size} bytes and its limit is {limit} (limits.output_bytes)",
        retryable=False,
    )


def too_many_events(limit: int) -> ErrorDocument:
    return ErrorDocument(
        code=TOO_MANY_EVENTS, message=f"More events than the limit of {limit} (limits.events)", retryable=False
    )


def event_too_large(size: int, limit: int) -> ErrorDocument:
    return ErrorDocument(
        code=EVENT_TOO_LARGE, message=f"An event has {size} bytes and the limit is {limit}", retryable=False
    )


def timeout(timeout_seconds: float) -> ErrorDocument:
    return ErrorDocument(
        code=TIMEOUT,
        message=f"Not finished {timeout_seconds:g} s after it was accepted (queue time included)",
        retryable=False,
    )


def cancelled() -> ErrorDocument:
    return ErrorDocument(code=CANCELLED, message="The execution was cancelled", retryable=False)


def _pids_hint(ended: Ended, limits: Limits) -> str:
    if not ended.usage.pids_limit_hits:
        return ""
    return f"; it was refused new processes or threads {ended.usage.pids_limit_hits} times (limits.pids {limits.pids})"


def _size(number: int) -> str:
    return f"{number / (1 << 20):.1f} MiB"


def _signal_name(number: int | None) -> str:
    try:
        return signals.Signals(number or 0).name
    except ValueError:
        return f"signal {number!r}"
