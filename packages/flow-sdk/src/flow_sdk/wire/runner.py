"""What engine and runner say to each other. Requests and replies are JSON over core NATS; see `subjects`.

A runner keeps one claim outstanding at all times. The engine knows from the database how many of the runner's slots
are in use (a running execution with unfinished children lends its slot to them), so it alone decides how many
assignments an answer carries.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from flow_sdk.wire.execution import Document, ErrorDocument
from flow_sdk.wire.injected import InjectedSecret
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.status import Kind


class Limits(Document):
    """What one container may use. Bytes, counts and cores."""

    memory_bytes: int = 256 << 20
    cpus: float = 1.0
    pids: int = 64
    tmp_bytes: int = 64 << 20
    output_bytes: int = 32 << 20
    log_bytes: int = 1 << 20
    events: int = 10_000


class EnvironmentRef(Document):
    """The installed packages a component runs with. Equal locks share one environment; the empty lock is the base.

    Attributes:
        digest: SHA-256 over the lock and what else decides the content (Python version, platform, SDK). Empty: base.
        lock: A pip requirements file with one exact version and the hashes of each package.
    """

    digest: str = ""
    lock: str = ""


class Register(Document):
    """Says that a runner process started.

    Attributes:
        runner_id: Stable over restarts; leases of an earlier instance of the same id are given up at once.
        instance: New for each process start.
        slots: How many executions may compute at the same time.
        capabilities: The isolations that it offers.
    """

    runner_id: str
    instance: str
    slots: int
    capabilities: list[str] = Field(default_factory=lambda: ["namespaces"])


class Registered(Document):
    """The answer to it.

    Attributes:
        keys: The public keys of tokens, as a JWKS: for those that containers present at the gateway.
        error: `runner_id_taken`: another process is registered under that id, and answers.
    """

    lease_seconds: float
    heartbeat_seconds: float
    hold_seconds: float
    keys: dict[str, Any] = Field(default_factory=dict[str, Any])
    error: str = ""


class Claim(Document):
    """Asks for work. Held by the engine up to `hold_seconds` when there is none."""

    runner_id: str
    instance: str
    slots: int
    room: int  # How many more containers fit at all, lent slots included.
    hold_seconds: float = 10.0


class Assignment(Document):
    """One attempt, offered to one runner under one lease.

    Attributes:
        remaining_seconds: Until the execution's deadline; relative, so that clocks need not agree.
        input: `{"input_data", "session_id", "messages", "state"}`, as `exec.input.*` carries it.
        input_object: Set instead of `input` when that is too large for a NATS message: its name in the object store.
        env: Variables of the ring, for the component's process.
        network: Where the component may connect to, as it declared it; empty: nowhere.
        secrets: Names of the secrets that the component needs; the runner asks for the values (`wire.secrets`).
        injected: Secrets that the runner adds to requests for a host, in the container's place.
        agent: Of an agent, in the place of code: an `AgentDocument`.
        isolation: What it must run in, no less and no more.
        token: Credential for this execution only.
    """

    execution_id: str
    lease_epoch: int
    attempt: int
    org_id: str
    workspace_id: str
    kind: Kind
    component_id: str
    component_slug: str
    version: int
    code: str
    entry_point: str
    agent: dict[str, Any] | None = None
    environment: EnvironmentRef = EnvironmentRef()
    limits: Limits = Limits()
    deployment_id: str | None
    ring_id: str | None
    lifecycle_event: str
    billing_transaction_id: str | None
    timeout_seconds: float
    remaining_seconds: float
    input: dict[str, Any] | None = None
    input_object: str | None = None
    config: dict[str, Any] = Field(default_factory=dict[str, Any])
    env: dict[str, str] = Field(default_factory=dict[str, str])
    network: list[str] = Field(default_factory=list[str])
    secrets: list[str] = Field(default_factory=list[str])
    injected: list[InjectedSecret] = Field(default_factory=list[InjectedSecret])
    isolation: Isolation = Isolation.NAMESPACES
    token: str
    queued_ms: float = 0.0


class Claimed(Document):
    """The answer to a claim.

    Attributes:
        reply_object: Set when the answer is too large for a NATS message: the object that holds it as JSON.
        error: `unknown_runner`: register again.
    """

    reply_object: str = ""
    assignments: list[Assignment] = Field(default_factory=list[Assignment])
    error: str = ""


class HeldLease(Document):
    """A lease that a runner believes to hold. `reported`: its output was published and awaits recording."""

    execution_id: str
    lease_epoch: int
    reported: bool = False


class GatewayRefusal(Document):
    """What the runner's NATS gateway refused the container of an attempt, equal ones counted together.

    Attributes:
        tried: `CONNECT`, `PUB` or `SUB`.
        subject: What it named the first time, shortened.
        seconds: Since the first of them; relative, so that clocks need not agree.
        is_others: Different ones of the organization, of which this attempt was the first.
    """

    execution_id: str
    lease_epoch: int
    attempt: int
    tried: str
    status: int
    code: str
    subject: str = ""
    count: int = 1
    seconds: float = 0.0
    is_others: bool = False


class Heartbeat(Document):
    """Extends leases.

    Attributes:
        containers: Containers that exist now, waiting ones included.
        completed: Attempts ended since the start of the process: progress, not mere presence.
        keys: Digest of the public keys that the runner knows.
        refusals: For the audit log; told again until a heartbeat that has them is answered.
    """

    runner_id: str
    instance: str
    leases: list[HeldLease] = Field(default_factory=list[HeldLease])
    containers: int = 0
    completed: int = 0
    keys: str = ""
    refusals: list[GatewayRefusal] = Field(default_factory=list[GatewayRefusal])


class HeartbeatReply(Document):
    """What the engine knows better.

    Attributes:
        cancel: Executions whose container shall end.
        lost: Executions that are no longer this runner's: end the container, report nothing.
        recorded: Reported executions whose output is in the database: forget them.
        keys: The public keys of tokens, when they are others than the runner knows.
        error: `unknown_runner`: register again.
    """

    cancel: list[str] = Field(default_factory=list[str])
    lost: list[str] = Field(default_factory=list[str])
    recorded: list[str] = Field(default_factory=list[str])
    keys: dict[str, Any] | None = None
    error: str = ""


class CancelNotice(Document):
    execution_id: str
    lease_epoch: int
    reason: str = "cancelled"  # or `timeout`


class AttemptMetrics(Document):
    """Measured by the runner (cgroup counters, its own monotonic clock), never by the container.

    Attributes:
        stages: Milliseconds of each hand-over, for `flow bench`.
        events: How many events the attempt published; a reader of events waits for them after the end.
    """

    started_at: datetime | None = None
    start_ms: float | None = None
    run_ms: float | None = None
    cpu_ms: float | None = None
    max_rss_bytes: int | None = None
    stages: dict[str, float] = Field(default_factory=dict[str, float])
    events: int = 0


class BuildRequest(Document):
    """Locks and builds an environment, then inspects the component in a container of it; never in the server.

    Attributes:
        isolation: Of that container.
    """

    kind: Kind
    slug: str
    code: str
    entry_point: str
    dependencies: list[str] = Field(default_factory=list[str])
    examples: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    timeout_seconds: float = 300.0
    isolation: Isolation = Isolation.NAMESPACES


class BuildReply(Document):
    """What publishing needs. `error` set means refused; `details` name the line, the requirement or the example."""

    environment: EnvironmentRef = EnvironmentRef()
    input_schema: dict[str, Any] = Field(default_factory=dict[str, Any])
    output_schema: dict[str, Any] = Field(default_factory=dict[str, Any])
    description: str = ""
    error: ErrorDocument | None = None
