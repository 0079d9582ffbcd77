"""NATS subjects, streams and headers. Source for the `exec.*` names: the client contract, section 3."""

from __future__ import annotations

from typing import Final

from flow_sdk.wire.isolation import DEFAULT, Isolation

# The contract's four subjects, each followed by `.{execution_id}`.
EXEC_INPUT: Final = "exec.input"
EXEC_OUTPUT: Final = "exec.output"
EXEC_EVENTS: Final = "exec.events"
EXEC_STATUS: Final = "exec.status"

STREAM_INPUT: Final = "EXEC_INPUT"
STREAM_OUTPUT: Final = "EXEC_OUTPUT"
STREAM_EVENTS: Final = "EXEC_EVENTS"
STREAM_STATUS: Final = "EXEC_STATUS"

# Set by the runner, never by a container: which attempt a message of `exec.*` belongs to. The engine refuses a
# message whose epoch is not the execution's current one.
HEADER_LEASE_EPOCH: Final = "Flow-Lease-Epoch"
HEADER_ATTEMPT: Final = "Flow-Attempt"
HEADER_RUNNER: Final = "Flow-Runner"
HEADER_METRICS: Final = "Flow-Metrics"  # JSON of wire.runner.AttemptMetrics, on exec.output only.
HEADER_PAYLOAD_OBJECT: Final = "Flow-Payload-Object"  # The body is in the object store under this name.

# Engine <-> runner, core NATS request/reply; the engines share the work in one queue group.
RUNNER_REGISTER: Final = "flow.runner.register"
RUNNER_CLAIM: Final = "flow.runner.claim"
RUNNER_HEARTBEAT: Final = "flow.runner.heartbeat"
RUNNER_SECRETS: Final = "flow.runner.secrets"  # Answered sealed for the one that asks.
ENGINE_STARTED: Final = "flow.engine.started"  # Broadcast: claims that an earlier engine held are gone, claim again.
BUILD_REQUEST: Final = "flow.build"  # Engine -> any runner (queue group), answered when the build ended.
ENGINE_QUEUE: Final = "engines"
RUNNER_QUEUE: Final = "runners"

PAYLOAD_BUCKET: Final = "FLOW_PAYLOADS"


def build_request(isolation: Isolation) -> str:
    """The subject of builds that are inspected in an isolation; only runners that offer it listen."""
    return BUILD_REQUEST if isolation is DEFAULT else f"{BUILD_REQUEST}.{isolation.value}"


def runner_alive(runner_id: str, instance: str) -> str:
    """The subject on which one process of a runner says that it lives. Nobody answers for one that is gone."""
    return f"flow.runner.{runner_id}.alive.{instance}"


def runner_cancel(runner_id: str) -> str:
    """The subject on which one runner hears which of its executions shall end."""
    return f"flow.runner.{runner_id}.cancel"
