"""What a client sees of components, rings, deployments and tokens: the documents of the management API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from flow_sdk.wire.execution import Document, WaitingOn
from flow_sdk.wire.injected import InjectedSecret
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.runner import Limits
from flow_sdk.wire.status import Kind


class PublishedDocument(Document):
    """The answer to a publish: 201 for a new version, 200 for the one that has the content already."""

    id: str
    slug: str
    kind: Kind
    name: str
    version: int
    digest: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


class RetryDocument(Document):
    max_attempts: int
    initial_interval_seconds: float
    backoff_coefficient: float
    maximum_interval_seconds: float
    non_retryable_errors: list[str]


class VersionDocument(Document):
    """An immutable version. `code`, `examples`, `graph` and `agent` are absent in lists; of a graph, code is empty."""

    component_id: str
    version: int
    digest: str
    created_at: datetime
    entry_point: str
    language: str
    dependencies: list[str]
    timeout_seconds: float | None
    retry: RetryDocument
    limits: Limits
    network: list[str]
    secrets: list[str]
    injected: list[InjectedSecret] = Field(default_factory=list[InjectedSecret])
    isolation: Isolation | None = None
    requires_context: bool
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    code: str | None = None
    examples: list[dict[str, Any]] | None = None
    graph: dict[str, Any] | None = None
    agent: dict[str, Any] | None = None


class ComponentDocument(Document):
    """A component. `newest` is absent in lists."""

    id: str
    kind: Kind
    slug: str
    name: str
    description: str
    tags: list[str]
    latest_version: int
    created_at: datetime
    newest: VersionDocument | None = None


class RollbackDocument(Document):
    """When a ring takes a new deployment back by itself: it fails too often, as seen by enough executions."""

    failure_rate: float
    minimum_count: int
    window_seconds: float
    watch_seconds: float


class RingDocument(Document):
    id: str
    name: str
    order: int
    auto_deploy: bool
    env: dict[str, str] = Field(default_factory=dict[str, str])
    created_at: datetime
    requires_approval: bool = False
    rollback: RollbackDocument | None = None
    """None: nothing is taken back by itself."""

    minimum_isolation: Isolation = Isolation.NAMESPACES


class DeploymentDocument(Document):
    """A version in a ring.

    Attributes:
        share: Percent of new executions that it takes while it is on its way.
        previous_id: What a rollback restores.
        promoted_from_id: The deployment of another ring that it was promoted from.
        set_id: Common to those that turn active together or not at all.
        smoke_execution_id: The execution that validates it.
        reason: Why it failed or was taken back.
        waiting_on: While it is on its way or being rolled back.
    """

    deployment_id: str
    component_id: str
    version: int
    ring_id: str
    state: str
    created_at: datetime
    activated_at: datetime | None = None
    digest: str = ""
    share: int = 0
    previous_id: str | None = None
    promoted_from_id: str | None = None
    set_id: str | None = None
    requested_by: str = ""
    approved_by: str | None = None
    is_restored: bool = False
    smoke_execution_id: str | None = None
    reason: str = ""
    waiting_on: WaitingOn | None = None


class VariablesDocument(Document):
    """Variables of an organization or a workspace itself, without those of wider scopes."""

    env: dict[str, str]


class TokenDocument(Document):
    token: str
    expires_at: datetime


class WorkspaceDocument(Document):
    id: str
    name: str


class IdentityDocument(Document):
    """Who a credential speaks for, and what it reaches."""

    subject: str
    role: str
    org_id: str
    workspace_id: str | None = None
    """None: the credential reaches all workspaces of the organization."""

    workspaces: list[WorkspaceDocument]
    """Those that it reaches, oldest first; at most 100."""

    expires_at: datetime


class PageDocument(Document):
    """A list, newest first. `next_cursor` is opaque; null on the last page."""

    items: list[Any]
    next_cursor: str | None = None
