"""Parts of agents and their versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, PrimaryKeyConstraint, Table, UniqueConstraint, bindparam

from flow_platform.domain.part import Part, PartKind, PartVersion
from flow_platform.store import cursors
from flow_platform.store.connection import Connection, Row
from flow_platform.store.documents import from_json, to_json
from flow_platform.store.instants import from_micros, to_micros
from flow_platform.store.part_table import PartPage
from flow_platform.store.query import Query
from flow_platform.store.tables import Instant, Json, Word, metadata

parts = Table(
    "parts",
    metadata,
    Column("id", Word, primary_key=True),
    Column("org_id", Word, nullable=False),
    Column("workspace_id", Word, nullable=False),
    Column("kind", Word, nullable=False),
    Column("slug", Word, nullable=False),
    Column("name", sa.Text, nullable=False),
    Column("description", sa.Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("latest_version", sa.BigInteger, nullable=False),
    UniqueConstraint("workspace_id", "org_id", "kind", "slug"),
)
part_versions = Table(
    "part_versions",
    metadata,
    Column("part_id", Word, ForeignKey("parts.id"), nullable=False),
    Column("number", sa.BigInteger, nullable=False),
    Column("digest", Word, nullable=False),
    Column("content", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
    PrimaryKeyConstraint("part_id", "number"),
    UniqueConstraint("part_id", "digest"),
)
_p = parts.c
_v = part_versions.c
Index("ix_parts_list", _p.workspace_id, _p.kind, _p.created_at, _p.id)

_IN_KIND = (
    _p.org_id == bindparam("org_id"),
    _p.workspace_id == bindparam("workspace_id"),
    _p.kind == bindparam("kind"),
)
_INSERT = Query("insert part", sa.insert(parts).inline())
_UPDATE = Query(
    "update part",
    sa.update(parts)
    .where(_p.id == bindparam("id_"))
    .values({name: bindparam(name) for name in ("name", "description", "latest_version")}),
)
_BY_ID = Query("part by id", sa.select(*_p).where(_p.id == bindparam("id"), *_IN_KIND))
_BY_SLUG = Query("part by slug", sa.select(*_p).where(_p.slug == bindparam("slug"), *_IN_KIND))
_list = sa.select(*_p).where(*_IN_KIND).order_by(_p.created_at.desc(), _p.id.desc()).limit(bindparam("limit"))
_LIST = Query("list parts", _list)
_LIST_AFTER = Query(
    "list parts after",
    _list.where(
        sa.tuple_(_p.created_at, _p.id) < sa.tuple_(bindparam("created_at", type_=Instant), bindparam("id", type_=Word))
    ),
)
_INSERT_VERSION = Query("insert part version", sa.insert(part_versions).inline())
_OF_PART = _v.part_id == bindparam("part_id")
_BY_NUMBER = Query("part version by number", sa.select(*_v).where(_OF_PART, _v.number == bindparam("number")))
_BY_DIGEST = Query("part version by digest", sa.select(*_v).where(_OF_PART, _v.digest == bindparam("digest")))
_VERSIONS = Query(
    "list part versions", sa.select(*_v).where(_OF_PART).order_by(_v.number.desc()).limit(bindparam("limit"))
)


class PartRows:
    """Implements `part_table.PartTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, org_id: str, workspace_id: str, kind: PartKind, id_or_slug: str) -> Part | None:
        # The id first: a slug may be made to look like another part's id.
        parameters = {"org_id": org_id, "workspace_id": workspace_id, "kind": kind.value}
        row = self._connection.row(_BY_ID, {**parameters, "id": id_or_slug})
        if row is None:
            row = self._connection.row(_BY_SLUG, {**parameters, "slug": id_or_slug})
        return _part(row) if row else None

    def insert(self, part: Part) -> None:
        values = {**vars(part), "kind": part.kind.value, "created_at": to_micros(part.created_at)}
        self._connection.run(_INSERT, values)

    def update(self, part: Part) -> None:
        values = {"name": part.name, "description": part.description, "latest_version": part.latest_version}
        self._connection.run(_UPDATE, {"id_": part.id, **values})

    def list(self, org_id: str, workspace_id: str, kind: PartKind, cursor: str | None, limit: int) -> PartPage:
        parameters: dict[str, Any] = {
            "org_id": org_id,
            "workspace_id": workspace_id,
            "kind": kind.value,
            "limit": limit + 1,
        }
        query = _LIST
        if cursor is not None:
            query = _LIST_AFTER
            parameters["created_at"], parameters["id"] = cursors.decode("parts", cursor)
        items = [_part(row) for row in self._connection.rows(query, parameters)]
        if len(items) <= limit:
            return PartPage(items, None)
        last = items[limit - 1]
        return PartPage(items[:limit], cursors.encode("parts", to_micros(last.created_at), last.id))

    def insert_version(self, version: PartVersion) -> None:
        values = {
            **vars(version),
            "content": to_json(version.content),
            "created_at": to_micros(version.created_at),
        }
        self._connection.run(_INSERT_VERSION, values)

    def find_version(self, part_id: str, number: int | None = None) -> PartVersion | None:
        if number is None:
            row = self._connection.row(_VERSIONS, {"part_id": part_id, "limit": 1})
        else:
            row = self._connection.row(_BY_NUMBER, {"part_id": part_id, "number": number})
        return _version(row) if row else None

    def find_version_by_digest(self, part_id: str, digest: str) -> PartVersion | None:
        row = self._connection.row(_BY_DIGEST, {"part_id": part_id, "digest": digest})
        return _version(row) if row else None

    def versions(self, part_id: str, limit: int) -> Sequence[PartVersion]:
        return [_version(row) for row in self._connection.rows(_VERSIONS, {"part_id": part_id, "limit": limit})]


def _part(row: Row) -> Part:
    part_id, org_id, workspace_id, kind, slug, name, description, created_at, latest_version = row
    return Part(
        id=part_id,
        org_id=org_id,
        workspace_id=workspace_id,
        kind=PartKind(kind),
        slug=slug,
        name=name,
        description=description,
        created_at=from_micros(created_at),
        latest_version=latest_version,
    )


def _version(row: Row) -> PartVersion:
    part_id, number, digest, content, created_at = row
    return PartVersion(part_id, number, digest, from_json(content), from_micros(created_at))
