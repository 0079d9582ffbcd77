"""Parts of agents: publishing them, and finding them again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.component import check_slug
from flow_platform.domain.part import Part, PartKind, PartVersion, digest_of
from flow_platform.domain.principal import Action, Principal
from flow_platform.engine.releases import check_workspace, require_not_execution
from flow_platform.store.base import Store, Transaction
from flow_platform.store.part_table import PartPage

MAX_VERSIONS_SHOWN = 200


@dataclass(frozen=True)
class PublishedPart:
    """The version that has the content. `is_new`: it was made now."""

    part: Part
    version: PartVersion
    is_new: bool


class Parts:
    """The parts of all workspaces."""

    def __init__(self, store: Store, clock: Clock, entropy: Entropy = system_entropy) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy

    async def publish(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        kind: PartKind,
        slug: str,
        content: dict[str, Any],
        *,
        name: str | None = None,
        description: str | None = None,
    ) -> PublishedPart:
        """Makes a version of the content; the same content again gives the version that has it.

        Raises:
            InvalidInput: The slug is none.
        """
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)
        check_slug(slug)
        now, digest = self._clock.now(), digest_of(kind, content)
        first = Part(new_id(now, self._entropy), org_id, workspace_id, kind, slug, name or slug, description or "", now)

        def operation(tx: Transaction) -> PublishedPart:
            check_workspace(tx, org_id, workspace_id)
            found = tx.parts.find(org_id, workspace_id, kind, slug)
            earlier = found if found is not None and found.slug == slug else None
            part = earlier or first
            part = dataclasses.replace(
                part,
                name=name or part.name,
                description=part.description if description is None else description,
            )
            known = tx.parts.find_version_by_digest(part.id, digest) if earlier else None
            if known is None:
                part = dataclasses.replace(part, latest_version=part.latest_version + 1)
            if earlier is None:
                tx.parts.insert(part)
            elif part != earlier:
                tx.parts.update(part)
            if known is not None:
                return PublishedPart(part, known, is_new=False)
            version = PartVersion(part.id, part.latest_version, digest, content, now)
            tx.parts.insert_version(version)
            return PublishedPart(part, version, is_new=True)

        return await self._store.write(operation)

    async def get(
        self, principal: Principal, org_id: str, workspace_id: str, kind: PartKind, id_or_slug: str
    ) -> tuple[Part, PartVersion | None]:
        """A part and its newest version.

        Raises:
            NotFound: There is none of this kind in the workspace.
        """
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> tuple[Part, PartVersion | None]:
            part = _part(tx, org_id, workspace_id, kind, id_or_slug)
            return part, tx.parts.find_version(part.id)

        return await self._store.read(operation)

    async def list(
        self, principal: Principal, org_id: str, workspace_id: str, kind: PartKind, cursor: str | None, limit: int
    ) -> PartPage:
        """A page of parts, newest first."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> PartPage:
            check_workspace(tx, org_id, workspace_id)
            return tx.parts.list(org_id, workspace_id, kind, cursor, limit)

        return await self._store.read(operation)

    async def versions(
        self, principal: Principal, org_id: str, workspace_id: str, kind: PartKind, id_or_slug: str
    ) -> Sequence[PartVersion]:
        """The newest versions of a part, at most `MAX_VERSIONS_SHOWN`."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> Sequence[PartVersion]:
            part = _part(tx, org_id, workspace_id, kind, id_or_slug)
            return tx.parts.versions(part.id, MAX_VERSIONS_SHOWN)

        return await self._store.read(operation)


def _part(tx: Transaction, org_id: str, workspace_id: str, kind: PartKind, id_or_slug: str) -> Part:
    part = tx.parts.find(org_id, workspace_id, kind, id_or_slug)
    if part is None:
        raise errors.NotFound(f"{kind.value} {id_or_slug!r} not found")
    return part
