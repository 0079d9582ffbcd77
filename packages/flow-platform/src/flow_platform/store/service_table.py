"""The port of services, their endpoints, versions and tokens: a part of the store's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from flow_platform.domain.service import Endpoint, PublishedService, Service, ServiceToken


@dataclass(frozen=True)
class ServicePage:
    """Newest first. `next_cursor` is opaque, None on the last page."""

    items: Sequence[Service]
    next_cursor: str | None


class ServiceTable(Protocol):
    def insert(self, service: Service) -> None:
        """Raises Conflict when the slug is taken; after a race the store runs the operation again first."""
        ...

    def find(
        self, org_id: str, id_or_slug: str, *, inside: str | None = None, for_update: bool = False
    ) -> Service | None:
        """In that workspace; else in whatever workspace of the organization: the service says in which."""
        ...

    def update(self, service: Service) -> None:
        """Writes name, description, ring, newest version and when it was changed."""
        ...

    def delete(self, service_id: str) -> None:
        """With all that belongs to it. Executions stay."""
        ...

    def count(self, org_id: str, workspace_id: str) -> int: ...

    def list(self, org_id: str, workspace_id: str, cursor: str | None, limit: int) -> ServicePage:
        """Raises InvalidInput when the cursor is not one of ours."""
        ...

    # The draft.
    def endpoints(self, service_id: str) -> Sequence[Endpoint]:
        """In the order of their names."""
        ...

    def save_endpoint(self, service_id: str, endpoint: Endpoint) -> None:
        """Inserts it, or replaces the one with its id."""
        ...

    def delete_endpoint(self, service_id: str, endpoint_id: str) -> bool: ...

    # Versions.
    def insert_version(self, version: PublishedService) -> None:
        """Raises Conflict when there is one with the number; after a race the store runs the operation again first."""
        ...

    def find_version(self, service_id: str, number: int) -> PublishedService | None: ...

    def list_versions(self, service_id: str, limit: int) -> Sequence[PublishedService]:
        """Newest first, without their endpoints and artifacts."""
        ...

    # Tokens.
    def insert_token(self, token: ServiceToken) -> None: ...

    def find_token(self, digest: str) -> ServiceToken | None:
        """Of whatever service: the token says of which."""
        ...

    def tokens(self, service_id: str) -> Sequence[ServiceToken]:
        """Newest first."""
        ...

    def delete_token(self, service_id: str, token_id: str) -> bool: ...

    def note_token_use(self, token_id: str, at: datetime) -> None: ...
