"""Tokens of services, by their digests."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, Table, UniqueConstraint, bindparam

from flow_platform.domain.service import ServiceToken
from flow_platform.store.connection import Connection, Row
from flow_platform.store.instants import from_micros, from_micros_or_none, to_micros, to_micros_or_none
from flow_platform.store.query import Query
from flow_platform.store.tables import Instant, Word, metadata

service_tokens = Table(
    "service_tokens",
    metadata,
    Column("id", Word, primary_key=True),
    Column("service_id", Word, ForeignKey("services.id"), nullable=False),
    Column("name", sa.Text, nullable=False),
    Column("shown", Word, nullable=False),
    Column("digest", Word, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", sa.Text, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("last_used_at", Instant, nullable=True),
    UniqueConstraint("digest"),
)
_t = service_tokens.c
Index("ix_service_tokens_service", _t.service_id, _t.created_at, _t.id)

_INSTANTS: Final = ("created_at", "expires_at")
_OF_SERVICE = _t.service_id == bindparam("service_id")
_INSERT = Query("insert service token", sa.insert(service_tokens).inline())
_FIND = Query("find service token", sa.select(*_t).where(_t.digest == bindparam("digest")))
_LIST = Query("list service tokens", sa.select(*_t).where(_OF_SERVICE).order_by(_t.created_at.desc(), _t.id.desc()))
_DELETE = Query("delete service token", sa.delete(service_tokens).where(_t.id == bindparam("id"), _OF_SERVICE))
_DELETE_ALL = Query("delete service tokens", sa.delete(service_tokens).where(_OF_SERVICE))
_NOTE_USE = Query(
    "note use of service token",
    sa.update(service_tokens).where(_t.id == bindparam("id_")).values(last_used_at=bindparam("at")),
)


class ServiceTokenRows:
    """The part of `service_table.ServiceTable` that is about tokens."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert_token(self, token: ServiceToken) -> None:
        instants = {name: to_micros(getattr(token, name)) for name in _INSTANTS}
        row = {**vars(token), **instants, "last_used_at": to_micros_or_none(token.last_used_at)}
        self._connection.run(_INSERT, row)

    def find_token(self, digest: str) -> ServiceToken | None:
        row = self._connection.row(_FIND, {"digest": digest})
        return _token(row) if row else None

    def tokens(self, service_id: str) -> list[ServiceToken]:
        return [_token(row) for row in self._connection.rows(_LIST, {"service_id": service_id})]

    def delete_token(self, service_id: str, token_id: str) -> bool:
        return self._connection.run(_DELETE, {"id": token_id, "service_id": service_id}) == 1

    def delete_tokens(self, service_id: str) -> None:
        self._connection.run(_DELETE_ALL, {"service_id": service_id})

    def note_token_use(self, token_id: str, at: datetime) -> None:
        self._connection.run(_NOTE_USE, {"id_": token_id, "at": to_micros(at)})


def _token(row: Row) -> ServiceToken:
    found: dict[str, Any] = dict(zip((column.name for column in _t), row, strict=True))
    found |= {name: from_micros(found[name]) for name in _INSTANTS}
    found["last_used_at"] = from_micros_or_none(found["last_used_at"])
    return ServiceToken(**found)
