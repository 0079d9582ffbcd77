"""Services of workspaces: their drafts, and publishing them.

A draft is changed at will. Publishing freezes it as the next version: the schemas that an endpoint does not give itself
are taken from its component then, and the skills artifact is made then, once. A draft that says what the newest
version says already gives that version.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.component import Component, Version, check_slug
from flow_platform.domain.principal import Action, Principal
from flow_platform.domain.release import Ring
from flow_platform.domain.service import (
    MAX_ENDPOINTS,
    MAX_SCHEMA_BYTES,
    MAX_SERVICES,
    METHODS,
    Endpoint,
    PublishedService,
    Service,
    canonical,
    checksum,
    skill_name,
)
from flow_platform.domain.service_path import check_path
from flow_platform.engine.json_schema import check_schema
from flow_platform.engine.releases import check_workspace, find_ring, require_not_execution
from flow_platform.engine.schema_references import check_references
from flow_platform.engine.service_tools import ServiceTool, service_tools
from flow_platform.engine.skills import bundle_of
from flow_platform.engine.validation import invalid
from flow_platform.store.base import Store, Transaction
from flow_platform.store.service_table import ServicePage

logger = logging.getLogger(__name__)

SHOWN_VERSIONS: Final = 100
MAX_ARTIFACT_BYTES: Final = 8 << 20


@dataclass(frozen=True)
class ServiceView:
    """A service with its draft and its versions, newest first, without their artifacts."""

    service: Service
    endpoints: tuple[Endpoint, ...]
    versions: tuple[PublishedService, ...]


class Services:
    """The services of all workspaces."""

    def __init__(self, store: Store, clock: Clock, entropy: Entropy = system_entropy) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy

    async def create(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        slug: str,
        name: str,
        description: str,
        ring: str | None,
    ) -> Service:
        """Makes a draft without endpoints. Without a ring it is for the ring of lowest order.

        Raises:
            Conflict: `service_exists`, or `too_many_services`.
            NotFound: There is no such ring.
        """
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)
        check_slug(slug)
        now = self._clock.now()

        def operation(tx: Transaction) -> Service:
            check_workspace(tx, org_id, workspace_id)
            if (other := tx.services.find(org_id, slug)) is not None and other.slug == slug:
                raise errors.Conflict(
                    f"service {slug!r} exists in this organization: expected another slug",
                    code="service_exists",
                    details=[{"field": "slug", "message": f"{slug!r} is taken"}],
                )
            if tx.services.count(org_id, workspace_id) >= MAX_SERVICES:
                raise errors.Conflict(
                    f"the workspace has {MAX_SERVICES} services, which is the most", code="too_many_services"
                )
            service = Service(
                id=new_id(now, self._entropy),
                org_id=org_id,
                workspace_id=workspace_id,
                slug=slug,
                name=name or slug,
                description=description,
                ring_id=_ring(tx, org_id, workspace_id, ring).id,
                created_at=now,
                created_by=principal.subject,
                updated_at=now,
            )
            tx.services.insert(service)
            return service

        return await self._store.write(operation)

    async def list(
        self, principal: Principal, org_id: str, workspace_id: str, cursor: str | None, limit: int
    ) -> ServicePage:
        """A page of services, newest first."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> ServicePage:
            check_workspace(tx, org_id, workspace_id)
            return tx.services.list(org_id, workspace_id, cursor, limit)

        return await self._store.read(operation)

    async def get(self, principal: Principal, org_id: str, workspace_id: str, id_or_slug: str) -> ServiceView:
        """Raises NotFound when the workspace has no such service."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)
        return await self._store.read(lambda tx: _view(tx, find_service(tx, org_id, workspace_id, id_or_slug)))

    async def change(
        self, principal: Principal, org_id: str, workspace_id: str, id_or_slug: str, changes: dict[str, Any]
    ) -> ServiceView:
        """Changes `name`, `description` and `ring`. The ring counts from now on, for all versions."""
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)
        now = self._clock.now()

        def operation(tx: Transaction) -> ServiceView:
            service = find_service(tx, org_id, workspace_id, id_or_slug, for_update=True)
            given = {name: value for name, value in changes.items() if name != "ring"}
            if "ring" in changes:
                given["ring_id"] = _ring(tx, org_id, workspace_id, changes["ring"]).id
            service = dataclasses.replace(service, **given, updated_at=now)
            tx.services.update(service)
            return _view(tx, service)

        return await self._store.write(operation)

    async def delete(self, principal: Principal, org_id: str, workspace_id: str, id_or_slug: str) -> None:
        """Deletes it with its versions and tokens. Executions stay, and go on."""
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)

        def operation(tx: Transaction) -> None:
            tx.services.delete(find_service(tx, org_id, workspace_id, id_or_slug, for_update=True).id)

        await self._store.write(operation)

    async def add_endpoint(
        self, principal: Principal, org_id: str, workspace_id: str, id_or_slug: str, fields: dict[str, Any]
    ) -> Endpoint:
        """Adds an endpoint to the draft. `fields`: of `Endpoint`, all but its ids.

        Raises:
            InvalidInput: A field is not valid; details name it.
            Conflict: `endpoint_exists`, or `too_many_endpoints`.
        """
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)
        added = Endpoint(id=new_id(self._clock.now(), self._entropy), **fields)

        def make(_: tuple[Endpoint, ...]) -> Endpoint:
            return added

        return await self._save(org_id, workspace_id, id_or_slug, make)

    async def change_endpoint(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        id_or_slug: str,
        endpoint: str,
        changes: dict[str, Any],
    ) -> Endpoint:
        """Changes fields of an endpoint of the draft.

        Raises:
            NotFound: The draft has none with that id or name.
        """
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)

        def changed(existing: tuple[Endpoint, ...]) -> Endpoint:
            return dataclasses.replace(_named(existing, endpoint), **changes)

        return await self._save(org_id, workspace_id, id_or_slug, changed)

    async def delete_endpoint(
        self, principal: Principal, org_id: str, workspace_id: str, id_or_slug: str, endpoint: str
    ) -> None:
        """Takes an endpoint out of the draft; published versions keep it."""
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)
        now = self._clock.now()

        def operation(tx: Transaction) -> None:
            service = find_service(tx, org_id, workspace_id, id_or_slug, for_update=True)
            tx.services.delete_endpoint(service.id, _named(tuple(tx.services.endpoints(service.id)), endpoint).id)
            tx.services.update(dataclasses.replace(service, updated_at=now))

        await self._store.write(operation)

    async def publish(
        self, principal: Principal, org_id: str, workspace_id: str, id_or_slug: str
    ) -> tuple[PublishedService, bool]:
        """Freezes the draft. Returns the version, and whether it was made now.

        Raises:
            InvalidInput: `no_endpoints`; or an endpoint's component or its schema cannot be used; details name it.
            PayloadTooLarge: The artifact would have more than 8 MiB.
        """
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)
        now = self._clock.now()

        def operation(tx: Transaction) -> tuple[PublishedService, bool]:
            # Locked, so that of two publishes at the same time the second finds the version of the first.
            service = find_service(tx, org_id, workspace_id, id_or_slug, for_update=True)
            ring = find_ring(tx, org_id, workspace_id, service.ring_id)
            endpoints = tuple(_frozen(tx, service, ring, endpoint) for endpoint in tx.services.endpoints(service.id))
            if not endpoints:
                raise errors.InvalidInput(
                    f"service {service.slug!r} has no endpoints: nothing to publish", code="no_endpoints"
                )
            digest = _digest(service, endpoints)
            newest = tx.services.find_version(service.id, service.latest_version)
            if newest is not None and newest.digest == digest:
                return newest, False
            number = service.latest_version + 1
            bundle = bundle_of(service, number, service.name, service.description, endpoints, _instant(now))
            skills = json.dumps(bundle, separators=(",", ":")).encode()
            if len(skills) > MAX_ARTIFACT_BYTES:
                raise errors.PayloadTooLarge(
                    f"the skills of {service.slug!r} have {len(skills)} bytes: expected at most {MAX_ARTIFACT_BYTES}",
                    code="skills_too_large",
                )
            made = PublishedService(
                service_id=service.id,
                number=number,
                digest=digest,
                name=service.name,
                description=service.description,
                endpoints=endpoints,
                created_at=now,
                created_by=principal.subject,
                skills=skills,
                checksum=bundle["checksum"],
            )
            tx.services.insert_version(made)
            tx.services.update(dataclasses.replace(service, latest_version=number, updated_at=now))
            return made, True

        published, is_new = await self._store.write(operation)
        if is_new:
            logger.info("published a service", extra={"service_id": published.service_id, "version": published.number})
        return published, is_new

    async def tools(
        self, org_id: str, workspace_id: str, service_id: str, version: int | None = None
    ) -> Sequence[ServiceTool]:
        """The tools that agents get of a published service: name, description, input schema, endpoint.

        Raises:
            NotFound: The workspace has no such service, or it has no such published version.
        """
        return await self._store.read(lambda tx: service_tools(tx, org_id, workspace_id, service_id, version))

    async def _save(
        self, org_id: str, workspace_id: str, id_or_slug: str, make: Callable[[tuple[Endpoint, ...]], Endpoint]
    ) -> Endpoint:
        now = self._clock.now()

        def operation(tx: Transaction) -> Endpoint:
            service = find_service(tx, org_id, workspace_id, id_or_slug, for_update=True)
            existing = tuple(tx.services.endpoints(service.id))
            endpoint = make(existing)
            _check(endpoint)
            others = [other for other in existing if other.id != endpoint.id]
            _check_apart(endpoint, others)
            if len(others) >= MAX_ENDPOINTS:
                raise errors.Conflict(
                    f"service {service.slug!r} has {MAX_ENDPOINTS} endpoints, which is the most",
                    code="too_many_endpoints",
                )
            _component(tx, service, endpoint)
            tx.services.save_endpoint(service.id, endpoint)
            tx.services.update(dataclasses.replace(service, updated_at=now))
            return endpoint

        return await self._store.write(operation)


def find_service(
    tx: Transaction, org_id: str, workspace_id: str, id_or_slug: str, *, for_update: bool = False
) -> Service:
    """Raises NotFound when the workspace has no such service."""
    check_workspace(tx, org_id, workspace_id)
    service = tx.services.find(org_id, id_or_slug, inside=workspace_id, for_update=for_update)
    if service is None:
        raise errors.NotFound(f"service {id_or_slug!r} not found")
    return service


def _view(tx: Transaction, service: Service) -> ServiceView:
    versions = tuple(tx.services.list_versions(service.id, SHOWN_VERSIONS))
    return ServiceView(service, tuple(tx.services.endpoints(service.id)), versions)


def _ring(tx: Transaction, org_id: str, workspace_id: str, id_or_name: str | None) -> Ring:
    if id_or_name is not None:
        return find_ring(tx, org_id, workspace_id, id_or_name)
    rings = tx.catalog.list_rings(org_id, workspace_id)
    if not rings:
        raise errors.NotFound("the workspace has no ring")
    return min(rings, key=lambda ring: ring.order)


def _named(endpoints: tuple[Endpoint, ...], id_or_name: str) -> Endpoint:
    for endpoint in endpoints:
        if id_or_name in (endpoint.id, endpoint.name):
            return endpoint
    raise errors.NotFound(f"endpoint {id_or_name!r} not found")


def _check(endpoint: Endpoint) -> None:
    check_slug(endpoint.name)
    check_path(endpoint.path)
    if endpoint.method not in METHODS:
        raise invalid("method", endpoint.method, "one of " + ", ".join(METHODS))
    for field in ("request_schema", "response_schema"):
        if (schema := getattr(endpoint, field)) is not None:
            _check_schema(field, schema)


def _check_schema(field: str, schema: dict[str, Any]) -> None:
    size = len(canonical(schema))
    if size > MAX_SCHEMA_BYTES:
        raise errors.PayloadTooLarge(
            f"{field} has {size} bytes as JSON: expected at most {MAX_SCHEMA_BYTES}",
            details=[{"field": field, "message": f"{size} bytes, at most {MAX_SCHEMA_BYTES}"}],
        )
    check_schema(field, schema)
    check_references(field, schema)


def _check_apart(endpoint: Endpoint, others: list[Endpoint]) -> None:
    for other in others:
        if skill_name(other.name) == skill_name(endpoint.name):
            raise errors.Conflict(
                f"the draft has an endpoint {other.name!r}: expected another name",
                code="endpoint_exists",
                details=[{"field": "name", "message": f"{endpoint.name!r} is taken"}],
            )
        if other.place == endpoint.place:
            raise errors.Conflict(
                f"endpoint {other.name!r} has {other.method} {other.path} already",
                code="endpoint_exists",
                details=[{"field": "path", "message": f"{endpoint.path!r} is taken"}],
            )


def _component(tx: Transaction, service: Service, endpoint: Endpoint) -> Component:
    found = tx.catalog.find_component(service.org_id, service.workspace_id, endpoint.kind, endpoint.component)
    if found is None:
        raise errors.InvalidInput(
            f"{endpoint.kind.value} {endpoint.component!r}, which endpoint {endpoint.name!r} names, is not published",
            details=[{"field": "component", "message": f"{endpoint.component!r} is not published"}],
        )
    return found


def _frozen(tx: Transaction, service: Service, ring: Ring, endpoint: Endpoint) -> Endpoint:
    """The endpoint with all that it takes from its component, as that is in the service's ring."""
    component = _component(tx, service, endpoint)
    version = _version(tx, component, ring)
    request_schema = endpoint.request_schema
    if request_schema is None:
        request_schema = version.input_schema if version else {}
        _check_schema(f"{endpoint.name}.request_schema", request_schema)
    response_schema = endpoint.response_schema
    if response_schema is None:
        response_schema = version.output_schema if version else {}
    return dataclasses.replace(
        endpoint,
        component=component.slug,
        component_id=component.id,
        request_schema=request_schema,
        response_schema=response_schema,
        description=endpoint.description or component.description,
    )


def _version(tx: Transaction, component: Component, ring: Ring) -> Version | None:
    active = tx.rollouts.track(component.id, ring).active
    return tx.catalog.get_version(active.version_id) if active else tx.catalog.find_version(component.id)


def _digest(service: Service, endpoints: tuple[Endpoint, ...]) -> str:
    contents = [{name: value for name, value in vars(endpoint).items() if name != "id"} for endpoint in endpoints]
    return checksum({"name": service.name, "description": service.description, "endpoints": contents})


def _instant(at: datetime) -> str:
    """As the API's documents write it."""
    return at.isoformat().replace("+00:00", "Z")
