"""The port of the store: the record of everything.

A `Store` gives transactions. `write` runs a function inside one and returns after the commit is on disk; calls that
arrive together share one commit (group commit), each in a savepoint of its own, so that one that raises changes
nothing and disturbs no other. The function may run again after a conflict between processes, so it must have no
effects but on the transaction. `read` runs a function on a snapshot that no writer blocks.

The functions are synchronous and run in the store's own threads: they decide with `domain` and touch rows through the
tables below, nothing else.

Every method that takes `org_id` and `workspace_id` finds nothing of another tenant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from flow_platform.domain.component import Component, Version
from flow_platform.domain.execution import Execution
from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.domain.replay import Call
from flow_platform.store.api_key_table import ApiKeyTable
from flow_platform.store.audit_table import AuditTable
from flow_platform.store.checkpoint_table import CheckpointTable
from flow_platform.store.credential_table import CredentialTable
from flow_platform.store.ledger_table import BudgetTable, LedgerTable
from flow_platform.store.mcp_server_table import McpServerTable
from flow_platform.store.model_table import ModelTable
from flow_platform.store.part_table import PartTable
from flow_platform.store.policy_table import PolicyTable
from flow_platform.store.queue_table import QueueTable
from flow_platform.store.rollout_port import RolloutTable
from flow_platform.store.runner_table import RunnerTable
from flow_platform.store.schedule_table import ScheduleTable
from flow_platform.store.secret_table import SecretTable
from flow_platform.store.service_table import ServiceTable
from flow_platform.store.session_table import SessionTable
from flow_sdk.wire.execution import ErrorDocument, EventDocument
from flow_sdk.wire.runner import AttemptMetrics
from flow_sdk.wire.status import Kind, Status

T = TypeVar("T")


@dataclass(frozen=True)
class Page:
    """One page of a list, newest first. `next_cursor` is opaque, None on the last page."""

    items: list[Any]
    next_cursor: str | None


@dataclass(frozen=True)
class Payload:
    """What goes into an execution; JSON values as the client sent them."""

    input_data: Any = None
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    session_id: str | None = None
    messages: list[Any] = field(default_factory=list[Any])
    state: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Result:
    """What came out of an execution."""

    output: Any = None
    usage: Any = None
    messages: Any = None
    state: Any = None


@dataclass(frozen=True)
class Attempt:
    """One try, as history."""

    execution_id: str
    number: int
    lease_epoch: int
    runner_id: str
    started_at: datetime
    finished_at: datetime | None = None
    error: ErrorDocument | None = None
    metrics: AttemptMetrics | None = None


@dataclass(frozen=True)
class NewEvent:
    """An event before it has a position. `key` makes a second delivery of the same event a no-op."""

    execution_id: str
    attempt: int
    event_type: str
    event_data: Any
    timestamp: datetime
    key: str


@dataclass(frozen=True)
class IdempotencyRecord:
    """A request that was answered, by its key. `fingerprint`: digest of route and body."""

    key: str
    fingerprint: str
    execution_id: str


@dataclass(frozen=True)
class ExecutionFilter:
    status: Status | None = None
    component_id: str | None = None
    ring_id: str | None = None
    parent_id: str | None = None
    kind: Kind | None = None
    retried: bool | None = None  # By hand; see `Execution.retried_as_id`.


class ExecutionTable(QueueTable, Protocol):
    def insert(self, execution: Execution, payload: Payload) -> None: ...

    def find(self, execution_id: str, *, for_update: bool = False) -> Execution | None:
        """By id alone; for the engine's own work, never for a request of a tenant."""
        ...

    def find_in_workspace(self, org_id: str, workspace_id: str, execution_id: str) -> Execution | None: ...

    def update(self, before: Execution, after: Execution) -> None:
        """Writes the changed columns and `due_at`. On the way into a terminal status it also lowers the parent's
        `live_children` by one; the caller need not. `live_children` itself is never written by this.

        Raises:
            NotFound: There is no such execution.
            Conflict: It no longer has the status and the epoch of `before`. The store ran the operation again first,
                so an operation that reads `before` itself never sees this.
        """
        ...

    def adopt_child(self, parent_id: str) -> None:
        """Raises the parent's `live_children` by one."""
        ...

    def release_child(self, parent_id: str) -> None:
        """Lowers it by one; for children that were started by another parent, see `joined`."""
        ...

    def next_available_at(self, now: datetime) -> datetime | None:
        """The earliest `available_at` later than `now` among queued executions."""
        ...

    def slots_in_use(self, runner_id: str, instance: str) -> int:
        """Executions leased to the runner that have no live children (a waiting parent lends its slot)."""
        ...

    def extend(self, runner_id: str, instance: str, leases: Iterable[tuple[str, int]], until: datetime) -> set[str]:
        """Extends the named leases (execution id, epoch) that are still the runner's; returns their ids. Executions
        that are cancelling keep their expiry, but are returned.
        """
        ...

    def leased_to(self, runner_id: str, other_than: str) -> list[Execution]:
        """Executions leased to earlier instances of the runner."""
        ...

    def due(self, now: datetime, limit: int) -> list[Execution]:
        """Non-terminal executions whose `due_at` is `now` or earlier, locked, oldest first."""
        ...

    def payload(self, execution_id: str) -> Payload: ...

    def result(self, execution_id: str) -> Result: ...

    def save_result(self, execution_id: str, result: Result) -> None: ...

    def list(self, org_id: str, workspace_id: str, where: ExecutionFilter, cursor: str | None, limit: int) -> Page:
        """Executions, newest first.

        Raises:
            InvalidInput: The cursor is not one of ours.
        """
        ...

    def live_children(self, parent_id: str) -> list[Execution]: ...

    def tree(self, root_id: str, limit: int) -> list[Execution]:
        """The root and all its descendants, oldest first."""
        ...

    def count_descendants(self, root_id: str, limit: int) -> int:
        """How many executions are below the root; counts up to `limit`."""
        ...

    def is_descendant(self, execution_id: str, ancestor_id: str) -> bool:
        """Whether the ancestor is its parent, its parent's parent, and so on. No execution is its own descendant."""
        ...

    def counts(self) -> dict[Status, int]:
        """Non-terminal executions by status, for metrics."""
        ...

    # Attempts: the history of tries.
    def record_attempt(self, attempt: Attempt) -> None:
        """Inserts, or completes the row of the same execution and number."""
        ...

    def attempts(self, execution_id: str) -> Sequence[Attempt]: ...

    # Events.
    def append_events(self, events: Sequence[NewEvent]) -> list[EventDocument]:
        """Gives each new event the next position of its execution; drops those whose key is known."""
        ...

    def events(self, execution_id: str, after: int, limit: int) -> list[EventDocument]: ...

    def has_event(self, execution_id: str, key: str) -> bool: ...

    def event_keys(self, execution_id: str) -> list[str]:
        """Of all its events; for executions with few."""
        ...

    # Calls: what a new attempt of a workflow is replayed from.
    def count_equal_calls(self, parent_id: str, attempt: int, key: str) -> int:
        """How many calls with this key the attempt made so far."""
        ...

    def count_calls(self, parent_id: str) -> int:
        """How many different calls the parent made, over all its attempts."""
        ...

    def find_call(self, parent_id: str, key: str, occurrence: int) -> Call | None: ...

    def free_equal_call(self, parent_id: str, attempt: int, key: str) -> Call | None:
        """The first call with this key that the attempt has not made; one that is not numbered, if there is one."""
        ...

    def last_equal_call(self, parent_id: str, key: str) -> int | None:
        """The highest occurrence of the key."""
        ...

    def numbers_calls(self, parent_id: str, attempt: int) -> bool:
        """Whether the attempt made a numbered call."""
        ...

    def lend_calls(self, parent_id: str, attempt: int, first: int, last: int) -> None:
        """Notes of numbered calls that the attempt has not made, by their ordinals, that it is given them ahead."""
        ...

    def make_lent_calls(self, parent_id: str, attempt: int, first: int, last: int) -> None:
        """Notes of calls that the attempt was given ahead that it made them. Others stay as they are."""
        ...

    def take_back_calls(self, parent_id: str, attempt: int) -> None:
        """Notes of all others that the attempt was given ahead that it has not made them."""
        ...

    def calls_to_lend(self, parent_id: str, attempt: int, first: int, last: int) -> list[Call]:
        """Numbered calls that nobody knows the attempt to have made, by their ordinals, in their order."""
        ...

    def first_unmade_call(self, parent_id: str, attempt: int, after: int = 0) -> Call | None:
        """The earliest call that this attempt has not made, of those that an attempt between the two made last.

        Those that it was given ahead are left out: it may have made them.

        Inherited calls are of none: a repetition by hand may go another way.
        """
        ...

    def first_new_call(self, parent_id: str, attempt: int) -> Call | None:
        """The earliest call that the attempt made and no earlier one had made."""
        ...

    def insert_call(self, call: Call) -> None: ...

    def make_call_again(self, call: Call) -> None:
        """Notes the attempt that made the call last, and the child that stands for it now."""
        ...

    # Idempotency.
    def find_idempotent(self, org_id: str, workspace_id: str, key: str) -> IdempotencyRecord | None: ...

    def save_idempotent(self, org_id: str, workspace_id: str, record: IdempotencyRecord, at: datetime) -> None:
        """Raises Conflict when the key is taken; after a race the store runs the operation again first, and then
        `find_idempotent` finds it.
        """
        ...

    def delete_idempotent_before(self, at: datetime, limit: int) -> int:
        """Deletes up to that many keys saved before the instant whose execution has ended, oldest first; returns how
        many. Those of live executions stay: a late retry must not start a second one.
        """
        ...

    def was_called(self, parent_id: str, execution_id: str) -> bool:
        """Whether a call that the parent inherited was answered with that execution, made below another one."""
        ...

    def joined(self, parent_id: str, execution_id: str) -> bool:
        """The same, and the parent made that call again itself."""
        ...

    def attempt_error(self, execution_id: str, number: int) -> str | None:
        """The code of the error that an attempt ended with; None for none, or no such attempt."""
        ...

    def calls_with_status(self, parent_id: str) -> Sequence[tuple[Call, Status]]:
        """All calls of executions that the parent made or inherited, in their order, with what became of them."""
        ...

    def inherit_calls(self, parent_id: str, from_id: str, *, checkpoints: bool = True) -> None:
        """Gives an execution that has made no call the calls of another, as if it had made them in an attempt 0.

        Args:
            checkpoints: Those for checkpoints, too.
        """
        ...


class CatalogTable(Protocol):
    def find_component(self, org_id: str, workspace_id: str, kind: Kind, id_or_slug: str) -> Component | None: ...

    def insert_component(self, component: Component) -> None: ...

    def update_component(self, component: Component) -> None: ...

    def list_components(self, org_id: str, workspace_id: str, kind: Kind, cursor: str | None, limit: int) -> Page: ...

    def insert_version(self, version: Version) -> None: ...

    def find_version(self, component_id: str, number: int | None = None) -> Version | None:
        """The given version, or the newest."""
        ...

    def get_version(self, version_id: str) -> Version:
        """By id; raises NotFound."""
        ...

    def find_version_by_digest(self, component_id: str, digest: str) -> Version | None: ...

    def list_versions(self, component_id: str, cursor: str | None, limit: int) -> Page: ...

    def insert_ring(self, ring: Ring) -> None: ...

    def update_ring(self, ring: Ring) -> None:
        """Writes all but name and tenant."""
        ...

    def list_rings(self, org_id: str, workspace_id: str) -> list[Ring]: ...

    def first_ring(self, org_id: str, workspace_id: str) -> Ring | None:
        """The one of the lowest order."""
        ...

    def find_ring(self, org_id: str, workspace_id: str, id_or_name: str) -> Ring | None: ...

    def insert_deployment(self, deployment: Deployment) -> None: ...

    def find_deployment(self, org_id: str, workspace_id: str, deployment_id: str) -> Deployment | None: ...

    def list_deployments(
        self,
        org_id: str,
        workspace_id: str,
        component_id: str | None,
        ring_id: str | None,
        cursor: str | None,
        limit: int,
        state: DeploymentState | None = None,
    ) -> Page: ...


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key pair, PEM. The newest that is not retired signs; all not retired verify."""

    kid: str
    private_pem: str
    public_pem: str
    created_at: datetime
    retired_at: datetime | None = None


@dataclass(frozen=True)
class Workspace:
    org_id: str
    workspace_id: str
    name: str


class TenancyTable(Protocol):
    def insert_organization(self, org_id: str, name: str, at: datetime) -> None: ...

    def insert_workspace(self, workspace: Workspace, at: datetime) -> None: ...

    def first_workspace(self) -> Workspace | None:
        """The oldest: the one that the first start made."""
        ...

    def find_workspace(self, org_id: str, workspace_id: str) -> Workspace | None: ...

    def lock_organization(self, org_id: str) -> None:
        """Until the end of the transaction; for what must be looked at before it is made."""
        ...

    def list_workspaces(self, org_id: str, limit: int) -> list[Workspace]:
        """Of an organization, oldest first."""
        ...

    def variables(self, org_id: str, workspace_id: str | None = None) -> dict[str, str]:
        """Those of the organization itself, or of one of its workspaces itself."""
        ...

    def set_variables(self, org_id: str, workspace_id: str | None, env: dict[str, str]) -> bool:
        """Replaces all; False when there is no such organization or workspace."""
        ...

    def merged_variables(self, org_id: str, workspace_id: str, ring_id: str | None) -> dict[str, str]:
        """What a container in the ring sees. One statement: it runs for each attempt."""
        ...

    def insert_signing_key(self, key: SigningKey) -> None: ...

    def signing_keys(self) -> list[SigningKey]:
        """Newest first."""
        ...


class Transaction(Protocol):
    executions: ExecutionTable
    checkpoints: CheckpointTable
    catalog: CatalogTable
    rollouts: RolloutTable
    tenancy: TenancyTable
    runners: RunnerTable
    schedules: ScheduleTable
    secrets: SecretTable
    api_keys: ApiKeyTable
    credentials: CredentialTable
    audit: AuditTable
    parts: PartTable
    sessions: SessionTable
    policies: PolicyTable
    models: ModelTable
    services: ServiceTable
    mcp_servers: McpServerTable
    ledger: LedgerTable
    budgets: BudgetTable


class Store(Protocol):
    @property
    def is_shared(self) -> bool:
        """Whether other processes may work on the same database: they are then told of changes over NATS."""
        ...

    async def open(self) -> None:
        """Connects and migrates the schema to today's.

        Raises:
            StoreUnavailable: With what the database said.
        """
        ...

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        """Runs the operation, commits durably, returns its value.

        Raises:
            StorageFull: The disk is full; nothing was written, later calls try again.
            StoreUnavailable: Nothing was written.
        """
        ...

    async def read(self, operation: Callable[[Transaction], T]) -> T: ...

    async def close(self) -> None: ...
