"""Services: what is drafted, and the versions that were published of it."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, PrimaryKeyConstraint, Table, UniqueConstraint, bindparam

from flow_platform.domain.service import AuthMode, Endpoint, PublishedService, Service
from flow_platform.store import cursors
from flow_platform.store.connection import Connection, Row
from flow_platform.store.documents import from_json, to_json
from flow_platform.store.instants import from_micros, to_micros
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.service_table import ServicePage
from flow_platform.store.service_tokens import ServiceTokenRows
from flow_platform.store.tables import Instant, Json, Word, metadata
from flow_sdk.wire.status import Kind

services = Table(
    "services",
    metadata,
    Column("id", Word, primary_key=True),
    Column("org_id", Word, nullable=False),
    Column("workspace_id", Word, nullable=False),
    Column("slug", Word, nullable=False),
    Column("name", sa.Text, nullable=False),
    Column("description", sa.Text, nullable=False),
    Column("ring_id", Word, ForeignKey("rings.id"), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", sa.Text, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("latest_version", sa.BigInteger, nullable=False),
    UniqueConstraint("org_id", "slug"),
)
service_endpoints = Table(
    "service_endpoints",
    metadata,
    Column("id", Word, primary_key=True),
    Column("service_id", Word, ForeignKey("services.id"), nullable=False),
    Column("name", Word, nullable=False),
    Column("document", Json, nullable=False),
    UniqueConstraint("service_id", "name"),
)
service_versions = Table(
    "service_versions",
    metadata,
    Column("service_id", Word, ForeignKey("services.id"), nullable=False),
    Column("number", sa.BigInteger, nullable=False),
    Column("digest", Word, nullable=False),
    Column("name", sa.Text, nullable=False),
    Column("description", sa.Text, nullable=False),
    Column("endpoints", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", sa.Text, nullable=False),
    Column("skills", Json, nullable=False),
    Column("checksum", Word, nullable=False),
    PrimaryKeyConstraint("service_id", "number"),
)
_s, _e, _v = services.c, service_endpoints.c, service_versions.c
Index("ix_services_workspace", _s.workspace_id, _s.created_at, _s.id)

_CHANGING: Final = ("name", "description", "ring_id", "updated_at", "latest_version")
_IN_ORG = _s.org_id == bindparam("org_id")
_IN_WORKSPACE = (_s.workspace_id == bindparam("workspace_id"), _IN_ORG)
_by_id = sa.select(*_s).where(_s.id == bindparam("service"), _IN_ORG)
_by_slug = sa.select(*_s).where(_s.slug == bindparam("service"), _IN_ORG)
_INSERT = Query("insert service", sa.insert(services).inline())
_FIND: Final = {
    False: (Query("service by id", _by_id), Query("service by slug", _by_slug)),
    True: (
        Query("service by id for update", _by_id.with_for_update()),
        Query("service by slug for update", _by_slug.with_for_update()),
    ),
}
_UPDATE = Query(
    "update service",
    sa.update(services).where(_s.id == bindparam("id_")).values({name: bindparam(name) for name in _CHANGING}),
)
_COUNT = Query("count services", sa.select(sa.func.count()).where(*_IN_WORKSPACE))
_list = (
    sa.select(*_s)
    .where(*_IN_WORKSPACE)
    .order_by(_s.created_at.desc(), _s.id.desc())
    .limit(bindparam("limit", type_=sa.BigInteger))
)
_LIST = Query("list services", _list)
_LIST_AFTER = Query(
    "list services after",
    _list.where(
        sa.tuple_(_s.created_at, _s.id) < sa.tuple_(bindparam("created_at", type_=Instant), bindparam("id", type_=Word))
    ),
)
_ENDPOINTS = Query(
    "endpoints of service", sa.select(*_e).where(_e.service_id == bindparam("service_id")).order_by(_e.name)
)
_SAVE_ENDPOINT = UpsertQuery(
    "save endpoint",
    service_endpoints,
    lambda insert: insert.values({column.name: bindparam(column.name) for column in _e}).on_conflict_do_update(
        index_elements=["id"], set_={"name": insert.excluded.name, "document": insert.excluded.document}
    ),
)
_DELETE_ENDPOINT = Query(
    "delete endpoint",
    sa.delete(service_endpoints).where(_e.id == bindparam("id"), _e.service_id == bindparam("service_id")),
)
_INSERT_VERSION = Query("insert service version", sa.insert(service_versions).inline())
_VERSION = Query(
    "service version",
    sa.select(*_v).where(_v.service_id == bindparam("service_id"), _v.number == bindparam("number")),
)
_LISTED: Final = [column for column in _v if column.name not in ("endpoints", "skills")]
_VERSIONS = Query(
    "service versions",
    sa.select(*_LISTED)
    .where(_v.service_id == bindparam("service_id"))
    .order_by(_v.number.desc())
    .limit(bindparam("limit", type_=sa.BigInteger)),
)
_DELETE_ALL: Final = tuple(
    Query(f"delete {table.name} of service", sa.delete(table).where(column == bindparam("service_id")))
    for table, column in (
        (service_endpoints, _e.service_id),
        (service_versions, _v.service_id),
        (services, _s.id),
    )
)


class ServiceRows(ServiceTokenRows):
    """Implements `service_table.ServiceTable`."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._connection = connection

    def insert(self, service: Service) -> None:
        self._connection.run(_INSERT, _row_of(service))

    def find(
        self, org_id: str, id_or_slug: str, *, inside: str | None = None, for_update: bool = False
    ) -> Service | None:
        # The id first: a slug may be made to look like another service's id.
        for query in _FIND[for_update]:
            row = self._connection.row(query, {"org_id": org_id, "service": id_or_slug})
            # One of another workspace is as none, and takes the same way.
            if row is not None and inside in (None, (found := _service(row)).workspace_id):
                return found
        return None

    def update(self, service: Service) -> None:
        row = _row_of(service)
        self._connection.run(_UPDATE, {"id_": service.id, **{name: row[name] for name in _CHANGING}})

    def delete(self, service_id: str) -> None:
        self.delete_tokens(service_id)
        for query in _DELETE_ALL:
            self._connection.run(query, {"service_id": service_id})

    def count(self, org_id: str, workspace_id: str) -> int:
        row = self._connection.row(_COUNT, {"org_id": org_id, "workspace_id": workspace_id})
        return row[0] if row else 0

    def list(self, org_id: str, workspace_id: str, cursor: str | None, limit: int) -> ServicePage:
        parameters: dict[str, Any] = {"org_id": org_id, "workspace_id": workspace_id, "limit": limit + 1}
        query = _LIST
        if cursor is not None:
            query = _LIST_AFTER
            parameters["created_at"], parameters["id"] = cursors.decode("services", cursor)
        items = [_service(row) for row in self._connection.rows(query, parameters)]
        if len(items) <= limit:
            return ServicePage(items, None)
        last = items[limit - 1]
        return ServicePage(items[:limit], cursors.encode("services", to_micros(last.created_at), last.id))

    def endpoints(self, service_id: str) -> list[Endpoint]:
        rows = self._connection.rows(_ENDPOINTS, {"service_id": service_id})
        return [_endpoint(from_json(row[3])) for row in rows]

    def save_endpoint(self, service_id: str, endpoint: Endpoint) -> None:
        self._connection.run(
            _SAVE_ENDPOINT,
            {
                "id": endpoint.id,
                "service_id": service_id,
                "name": endpoint.name,
                "document": to_json(vars(endpoint)),
            },
        )

    def delete_endpoint(self, service_id: str, endpoint_id: str) -> bool:
        return self._connection.run(_DELETE_ENDPOINT, {"id": endpoint_id, "service_id": service_id}) == 1

    def insert_version(self, version: PublishedService) -> None:
        self._connection.run(
            _INSERT_VERSION,
            {
                "service_id": version.service_id,
                "number": version.number,
                "digest": version.digest,
                "name": version.name,
                "description": version.description,
                "endpoints": to_json([vars(endpoint) for endpoint in version.endpoints]),
                "created_at": to_micros(version.created_at),
                "created_by": version.created_by,
                "skills": version.skills.decode(),
                "checksum": version.checksum,
            },
        )

    def find_version(self, service_id: str, number: int) -> PublishedService | None:
        row = self._connection.row(_VERSION, {"service_id": service_id, "number": number})
        return _version(row) if row else None

    def list_versions(self, service_id: str, limit: int) -> list[PublishedService]:
        rows = self._connection.rows(_VERSIONS, {"service_id": service_id, "limit": limit})
        return [_listed_version(row) for row in rows]


def _row_of(service: Service) -> dict[str, Any]:
    instants = {"created_at": to_micros(service.created_at), "updated_at": to_micros(service.updated_at)}
    return {**vars(service), **instants}


def _service(row: Row) -> Service:
    found: dict[str, Any] = dict(zip((column.name for column in _s), row, strict=True))
    found |= {name: from_micros(found[name]) for name in ("created_at", "updated_at")}
    return Service(**found)


def _endpoint(document: dict[str, Any]) -> Endpoint:
    typed: dict[str, Any] = {
        "kind": Kind(document["kind"]),
        "auth": AuthMode(document["auth"]),
        "tags": tuple(document["tags"]),
        "when_to_use": tuple(document["when_to_use"]),
    }
    return Endpoint(**{**document, **typed})


def _version(row: Row) -> PublishedService:
    found: dict[str, Any] = dict(zip((column.name for column in _v), row, strict=True))
    found["endpoints"] = tuple(_endpoint(document) for document in from_json(found["endpoints"]))
    found["created_at"] = from_micros(found["created_at"])
    found["skills"] = found["skills"].encode()
    return PublishedService(**found)


def _listed_version(row: Row) -> PublishedService:
    found: dict[str, Any] = dict(zip((column.name for column in _LISTED), row, strict=True))
    found["created_at"] = from_micros(found["created_at"])
    return PublishedService(**found, endpoints=(), skills=b"")
