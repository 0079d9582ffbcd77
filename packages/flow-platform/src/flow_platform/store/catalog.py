"""Components and their versions. Rings and deployments, the catalog's other half, are in `deployments.py`."""

from __future__ import annotations

import functools
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain import errors
from flow_platform.domain.component import Component, Definition, Version
from flow_platform.domain.execution import RetryPolicy
from flow_platform.store import cursors
from flow_platform.store.base import Page
from flow_platform.store.connection import Connection, Row
from flow_platform.store.deployments import DeploymentRows
from flow_platform.store.documents import (
    document_from,
    document_or_null,
    document_to_json,
    from_json,
    json_or_null,
    to_json,
    value_or,
)
from flow_platform.store.instants import from_micros, to_micros
from flow_platform.store.query import Query
from flow_platform.store.tables import Instant, Word, components, versions
from flow_platform.store.version_cache import VersionCache
from flow_sdk.wire.injected import InjectedSecret
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.runner import EnvironmentRef, Limits
from flow_sdk.wire.status import Kind

MAX_CACHED_DEFINITION: Final = 64 << 10  # Characters; 128 of these are the most that the cache below holds.

_c = components.c
_v = versions.c
_IN_KIND = (
    _c.org_id == bindparam("org_id"),
    _c.workspace_id == bindparam("workspace_id"),
    _c.kind == bindparam("kind"),
)
_INSERT_COMPONENT = Query("insert component", sa.insert(components).inline())
_UPDATE_COMPONENT = Query(
    "update component",
    sa.update(components)
    .where(_c.id == bindparam("id_"), _c.org_id == bindparam("org_id_"), _c.workspace_id == bindparam("workspace_id_"))
    .values({name: bindparam(name) for name in ("name", "description", "tags", "latest_version")}),
)
_COMPONENT_BY_ID = Query("component by id", sa.select(components).where(_c.id == bindparam("id"), *_IN_KIND))
_COMPONENT_BY_SLUG = Query("component by slug", sa.select(components).where(_c.slug == bindparam("slug"), *_IN_KIND))
_components = (
    sa.select(components).where(*_IN_KIND).order_by(_c.created_at.desc(), _c.id.desc()).limit(bindparam("limit"))
)
_COMPONENTS = Query("list components", _components)
_COMPONENTS_AFTER = Query(
    "list components after",
    _components.where(
        sa.tuple_(_c.created_at, _c.id) < sa.tuple_(bindparam("created_at", type_=Instant), bindparam("id", type_=Word))
    ),
)

_INSERT_VERSION = Query("insert version", sa.insert(versions).inline())
_OF_COMPONENT = _v.component_id == bindparam("component_id")
_DEFINITION: Final = [column.name for column in versions.c].index("definition")
_VERSION_BY_ID = Query("version by id", sa.select(versions).where(_v.id == bindparam("id")))
_VERSION_BY_NUMBER = Query(
    "version by number", sa.select(versions).where(_OF_COMPONENT, _v.number == bindparam("number"))
)
_VERSION_BY_DIGEST = Query(
    "version by digest", sa.select(versions).where(_OF_COMPONENT, _v.digest == bindparam("digest"))
)
_versions = sa.select(versions).where(_OF_COMPONENT).order_by(_v.number.desc()).limit(bindparam("limit"))
_VERSIONS = Query("list versions", _versions)
_VERSIONS_AFTER = Query("list versions after", _versions.where(_v.number < bindparam("number")))


class CatalogRows(DeploymentRows):
    """Implements `base.CatalogTable`."""

    def __init__(self, connection: Connection, versions: VersionCache) -> None:
        self._connection = connection
        self._versions = versions

    def find_component(self, org_id: str, workspace_id: str, kind: Kind, id_or_slug: str) -> Component | None:
        # The id first: a slug may be made to look like another component's id.
        parameters = {"org_id": org_id, "workspace_id": workspace_id, "kind": kind.value}
        row = self._connection.row(_COMPONENT_BY_ID, {**parameters, "id": id_or_slug})
        if row is None:
            row = self._connection.row(_COMPONENT_BY_SLUG, {**parameters, "slug": id_or_slug})
        return _component(row) if row else None

    def insert_component(self, component: Component) -> None:
        self._connection.run(
            _INSERT_COMPONENT,
            {
                "id": component.id,
                "org_id": component.org_id,
                "workspace_id": component.workspace_id,
                "kind": component.kind.value,
                "slug": component.slug,
                "name": component.name,
                "description": component.description,
                "tags": to_json(component.tags) if component.tags else None,
                "created_at": to_micros(component.created_at),
                "latest_version": component.latest_version,
            },
        )

    def update_component(self, component: Component) -> None:
        written = self._connection.run(
            _UPDATE_COMPONENT,
            {
                "id_": component.id,
                "org_id_": component.org_id,
                "workspace_id_": component.workspace_id,
                "name": component.name,
                "description": component.description,
                "tags": to_json(component.tags) if component.tags else None,
                "latest_version": component.latest_version,
            },
        )
        if not written:
            raise errors.NotFound(f"component {component.id!r} does not exist")

    def list_components(self, org_id: str, workspace_id: str, kind: Kind, cursor: str | None, limit: int) -> Page:
        parameters: dict[str, Any] = {
            "org_id": org_id,
            "workspace_id": workspace_id,
            "kind": kind.value,
            "limit": limit + 1,
        }
        query = _COMPONENTS
        if cursor is not None:
            query = _COMPONENTS_AFTER
            parameters["created_at"], parameters["id"] = cursors.decode("components", cursor)
        items = [_component(row) for row in self._connection.rows(query, parameters)]
        if len(items) <= limit:
            return Page(items, None)
        last = items[limit - 1]
        return Page(items[:limit], cursors.encode("components", to_micros(last.created_at), last.id))

    def insert_version(self, version: Version) -> None:
        self._connection.run(
            _INSERT_VERSION,
            {
                "id": version.id,
                "component_id": version.component_id,
                "number": version.number,
                "digest": version.digest,
                "definition": _definition_to_json(version.definition),
                "created_at": to_micros(version.created_at),
                "environment": document_or_null(version.environment),
                "input_schema": json_or_null(version.input_schema, {}),
                "output_schema": json_or_null(version.output_schema, {}),
            },
        )

    def find_version(self, component_id: str, number: int | None = None) -> Version | None:
        if number is None:
            row = self._connection.row(_VERSIONS, {"component_id": component_id, "limit": 1})
        else:
            row = self._connection.row(_VERSION_BY_NUMBER, {"component_id": component_id, "number": number})
        return _version(row) if row else None

    def get_version(self, version_id: str) -> Version:
        if (known := self._versions.find(version_id)) is not None:
            return known
        row = self._connection.row(_VERSION_BY_ID, {"id": version_id})
        if row is None:
            raise errors.NotFound(f"version {version_id!r} does not exist")
        version = _version(row)
        if len(row[_DEFINITION]) <= MAX_CACHED_DEFINITION:
            self._versions.keep(version)
        return version

    def find_version_by_digest(self, component_id: str, digest: str) -> Version | None:
        row = self._connection.row(_VERSION_BY_DIGEST, {"component_id": component_id, "digest": digest})
        return _version(row) if row else None

    def list_versions(self, component_id: str, cursor: str | None, limit: int) -> Page:
        parameters: dict[str, Any] = {"component_id": component_id, "limit": limit + 1}
        query = _VERSIONS
        if cursor is not None:
            query = _VERSIONS_AFTER
            parameters["number"], _ = cursors.decode("versions", cursor)
        items = [_version(row) for row in self._connection.rows(query, parameters)]
        if len(items) <= limit:
            return Page(items, None)
        last = items[limit - 1]
        return Page(items[:limit], cursors.encode("versions", last.number, last.id))


def _component(row: Row) -> Component:
    component_id, org_id, workspace_id, kind, slug, name, description, tags, created_at, latest_version = row
    return Component(
        id=component_id,
        org_id=org_id,
        workspace_id=workspace_id,
        kind=Kind(kind),
        slug=slug,
        name=name,
        description=description,
        tags=tuple(value_or(tags, [])),
        created_at=from_micros(created_at),
        latest_version=latest_version,
    )


def _version(row: Row) -> Version:
    version_id, component_id, number, digest, definition, created_at, environment, input_schema, output_schema = row
    return Version(
        id=version_id,
        component_id=component_id,
        number=number,
        digest=digest,
        definition=_definition(definition),
        created_at=from_micros(created_at),
        environment=document_from(EnvironmentRef, environment) if environment else EnvironmentRef(),
        input_schema=value_or(input_schema, {}),
        output_schema=value_or(output_schema, {}),
    )


def _definition_to_json(definition: Definition) -> str:
    fields = dict(vars(definition))
    fields["kind"] = definition.kind.value
    fields["retry"] = vars(definition.retry)
    fields["injected"] = [one.model_dump() for one in definition.injected]
    fields["limits"] = from_json(document_to_json(definition.limits))
    if definition.isolation is None:
        del fields["isolation"]
    return to_json(fields)


def _definition(text: str) -> Definition:
    """Every claim needs the definition of its version, which never changes: small ones are parsed once."""
    return _parsed_once(text) if len(text) <= MAX_CACHED_DEFINITION else _parse_definition(text)


def _parse_definition(text: str) -> Definition:
    fields = from_json(text)
    fields["kind"] = Kind(fields["kind"])
    retry = fields["retry"]
    fields["retry"] = RetryPolicy(**retry | {"non_retryable_errors": tuple(retry["non_retryable_errors"])})
    fields["limits"] = Limits.model_validate(fields["limits"])
    for name in ("dependencies", "network", "secrets", "examples"):
        fields[name] = tuple(fields[name])
    fields["injected"] = tuple(InjectedSecret.model_validate(one) for one in fields.get("injected", ()))
    if "isolation" in fields:
        fields["isolation"] = Isolation(fields["isolation"])
    return Definition(**fields)


_parsed_once = functools.lru_cache(maxsize=128)(_parse_definition)
