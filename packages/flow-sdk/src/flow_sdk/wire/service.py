"""What a client sees of hosted services: their drafts, versions, tokens and asynchronous calls."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from flow_sdk.wire.execution import Document, ErrorDocument
from flow_sdk.wire.status import Kind, Status


class EndpointComponent(Document):
    """The component that answers an endpoint."""

    kind: Kind
    slug: str


class EndpointDocument(Document):
    """One endpoint. `request_schema` and `response_schema` are null in a draft that takes them from the component."""

    id: str
    name: str
    method: str
    path: str
    component: EndpointComponent
    title: str
    description: str
    tags: list[str]
    request_schema: dict[str, Any] | None
    response_schema: dict[str, Any] | None
    timeout_seconds: float | None
    async_eligible: bool
    expose_as_agent_tool: bool
    tool_description: str
    when_to_use: list[str]
    auth: str


class ServiceVersionDocument(Document):
    """A published version. `checksum` is that of its skills artifact."""

    version: int
    digest: str
    checksum: str
    created_at: datetime
    created_by: str


class ServiceDocument(Document):
    """A service. `endpoints` (of the draft) and `versions` (newest first) are null in lists.

    Attributes:
        status: `draft` until a version is published, then `published`.
        base_path: Where its endpoints are called, from the root of the platform.
    """

    id: str
    slug: str
    name: str
    description: str
    ring_id: str
    status: str
    latest_version: int
    base_path: str
    created_at: datetime
    created_by: str
    updated_at: datetime
    endpoints: list[EndpointDocument] | None = None
    versions: list[ServiceVersionDocument] | None = None


class PublishedServiceDocument(ServiceVersionDocument):
    """The answer to a publish: 201 for a new version, 200 for the newest one, which the draft does not differ from."""

    service_id: str
    skills: dict[str, Any] = Field(default_factory=dict[str, Any])


class ServiceTokenDocument(Document):
    """A token of a service. `token` is there once, in the answer that made it."""

    id: str
    name: str
    prefix: str
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: datetime | None = None
    token: str | None = None


class JobDocument(Document):
    """An asynchronous call of an endpoint.

    Attributes:
        job_id: The id of its execution.
        result: The output, once it is completed.
        error: Why it ended otherwise.
    """

    job_id: str
    status: Status
    poll_url: str
    created_at: datetime | None = None
    finished_at: datetime | None = None
    result: Any = None
    error: ErrorDocument | None = None
