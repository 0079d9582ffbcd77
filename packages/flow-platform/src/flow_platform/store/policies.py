"""Policies of workspaces, their revisions, and what is left of their rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, PrimaryKeyConstraint, Table, bindparam

from flow_platform.domain.execution import RetryPolicy
from flow_platform.domain.policy import FIELDS, Policies, Policy
from flow_platform.domain.rate_limit import Bucket, RateLimit
from flow_platform.store.connection import Connection, Row
from flow_platform.store.documents import from_json, to_json
from flow_platform.store.instants import from_micros, to_micros
from flow_platform.store.policy_cache import PolicyCache
from flow_platform.store.policy_table import StoredPolicy
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.tables import Instant, Json, Word, metadata

# `component_id` and `ring_id` are empty where the policy is for all: part of the key, so they cannot be NULL.
policies = Table(
    "policies",
    metadata,
    Column("workspace_id", Word, nullable=False),
    Column("org_id", Word, nullable=False),
    Column("component_id", Word, nullable=False),
    Column("ring_id", Word, nullable=False),
    Column("policy", Json, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("updated_by", sa.Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "org_id", "component_id", "ring_id"),
)

# A row per workspace that ever had policies: how engines notice a change, and what they lock to decide alone.
policy_revisions = Table(
    "policy_revisions",
    metadata,
    Column("workspace_id", Word, primary_key=True),
    Column("revision", sa.BigInteger, nullable=False),
    Column("limit_starts", sa.Boolean, nullable=False),
)

rate_buckets = Table(
    "rate_buckets",
    metadata,
    Column("key", Word, primary_key=True),
    Column("workspace_id", Word, nullable=False),
    Column("level", sa.BigInteger, nullable=False),
    Column("at", Instant, nullable=False),
)

_MILLISECOND: Final = timedelta(milliseconds=1)
_p = policies.c
_r = policy_revisions.c
_b = rate_buckets.c
_SCOPE = (_p.workspace_id, _p.org_id, _p.component_id, _p.ring_id)
_COLUMNS = (_p.component_id, _p.ring_id, _p.policy, _p.updated_at, _p.updated_by)
_OF_WORKSPACE = Query(
    "policies of a workspace",
    sa.select(*_COLUMNS)
    .where(_p.workspace_id == bindparam("workspace_id"), _p.org_id == bindparam("org_id"))
    .order_by(_p.component_id, _p.ring_id),
)
_LOAD = Query(
    "load policies",
    sa.select(_p.component_id, _p.ring_id, _p.policy).where(_p.workspace_id == bindparam("workspace_id")),
)
_SAVE = UpsertQuery(
    "save policy",
    policies,
    lambda insert: insert.on_conflict_do_update(
        index_elements=list(_SCOPE),
        set_={name: insert.excluded[name] for name in ("policy", "updated_at", "updated_by")},
    ),
)
_DELETE = Query("delete policy", sa.delete(policies).where(*(column == bindparam(column.name) for column in _SCOPE)))
_REVISE = UpsertQuery(
    "revise policies",
    policy_revisions,
    lambda insert: insert.on_conflict_do_update(
        index_elements=[_r.workspace_id],
        set_={
            # Never one that was seen before, not even in a transaction that was undone.
            "revision": sa.case(
                (_r.revision < insert.excluded.revision, insert.excluded.revision),
                else_=_r.revision + sa.literal_column("1"),
            ),
            "limit_starts": insert.excluded.limit_starts,
        },
    ),
)
_REVISIONS = Query("revisions of policies", sa.select(_r.workspace_id, _r.revision))
_LOCK = Query(
    "lock policies",
    sa.select(_r.workspace_id, _r.revision)
    .where(_r.workspace_id == bindparam("workspace_id"))
    .with_for_update(skip_locked=True),
)
_BUCKET = Query("rate bucket", sa.select(_b.key, _b.level, _b.at).where(_b.key == bindparam("key")))
_SAVE_BUCKET = UpsertQuery(
    "save rate bucket",
    rate_buckets,
    lambda insert: insert.on_conflict_do_update(
        index_elements=[_b.key], set_={name: insert.excluded[name] for name in ("level", "at")}
    ),
)


class PolicyRows:
    """Implements `policy_table.PolicyTable`."""

    def __init__(self, connection: Connection, cache: PolicyCache) -> None:
        self._connection = connection
        self._cache = cache

    def of_workspace(self, org_id: str, workspace_id: str) -> list[StoredPolicy]:
        rows = self._connection.rows(_OF_WORKSPACE, {"workspace_id": workspace_id, "org_id": org_id})
        return [StoredPolicy(_policy(row), from_micros(row[3]), row[4]) for row in rows]

    def save(self, org_id: str, workspace_id: str, stored: StoredPolicy) -> None:
        self._connection.run(
            _SAVE,
            {
                **_scope(org_id, workspace_id, stored.policy.component_id, stored.policy.ring_id),
                "policy": _to_json(stored.policy),
                "updated_at": to_micros(stored.updated_at),
                "updated_by": stored.updated_by,
            },
        )

    def delete(self, org_id: str, workspace_id: str, component_id: str | None, ring_id: str | None) -> bool:
        return self._connection.run(_DELETE, _scope(org_id, workspace_id, component_id, ring_id)) == 1

    def revise(self, workspace_id: str, at: datetime, *, limit_starts: bool) -> None:
        self._connection.run(
            _REVISE, {"workspace_id": workspace_id, "revision": to_micros(at), "limit_starts": limit_starts}
        )

    def last_seen(self, workspace_id: str) -> Policies:
        return self._cache.last_seen(workspace_id)

    def at(self, workspace_id: str, revision: int) -> Policies:
        found = self._cache.find(workspace_id, revision)
        if found is None:
            rows = self._connection.rows(_LOAD, {"workspace_id": workspace_id})
            found = self._cache.keep(workspace_id, revision, Policies([_policy(row) for row in rows]))
        return found

    def refresh(self) -> None:
        for workspace_id, revision in self._connection.rows(_REVISIONS, {}):
            self.at(workspace_id, revision)

    def lock(self, workspace_ids: Iterable[str]) -> dict[str, int]:
        parameters = [{"workspace_id": workspace_id} for workspace_id in workspace_ids]
        return {row[0]: row[1] for row in self._connection.rows_of_each(_LOCK, parameters)}

    def buckets(self, keys: Sequence[str]) -> dict[str, Bucket]:
        rows = self._connection.rows_of_each(_BUCKET, [{"key": key} for key in keys])
        return {key: Bucket(level, from_micros(at)) for key, level, at in rows}

    def save_buckets(self, workspace_id: str, buckets: Mapping[str, Bucket]) -> None:
        for key, bucket in buckets.items():
            self._connection.run(
                _SAVE_BUCKET,
                {"key": key, "workspace_id": workspace_id, "level": bucket.level, "at": to_micros(bucket.at)},
            )


def _scope(org_id: str, workspace_id: str, component_id: str | None, ring_id: str | None) -> dict[str, str]:
    return {
        "workspace_id": workspace_id,
        "org_id": org_id,
        "component_id": component_id or "",
        "ring_id": ring_id or "",
    }


def _to_json(policy: Policy) -> str:
    said: dict[str, Any] = {name: value for name in FIELDS if (value := getattr(policy, name)) is not None}
    if policy.rate is not None:
        rate = policy.rate
        said["rate"] = {"count": rate.count, "period_ms": rate.period // _MILLISECOND, "burst": rate.burst}
    if policy.retry is not None:
        said["retry"] = asdict(policy.retry)
    return to_json(said)


def _policy(row: Row) -> Policy:
    said = from_json(row[2])
    if "rate" in said:
        rate = said["rate"]
        said["rate"] = RateLimit(rate["count"], rate["period_ms"] * _MILLISECOND, rate["burst"])
    if "retry" in said:
        retry = said["retry"]
        retry["non_retryable_errors"] = tuple(retry["non_retryable_errors"])
        said["retry"] = RetryPolicy(**retry)
    return Policy(row[0] or None, row[1] or None, **said)
