"""The schema, once, for SQLite and PostgreSQL. `migrations/` makes it; a test holds the two equal.

Rules of the schema:

- An instant is an integer: microseconds since 1970 in UTC (`instants.py`). Both databases compare it the same way.
- A JSON value is text: written and read whole, never searched. NULL stands for the value's default.
- `executions` is the hot table and stays narrow; what only one reader wants (payload, result, attempts, events) lives
  in side tables with the execution's id as key.
- Every query of the hot path has its index, and a test asserts that both planners use it. Partial indexes keep the
  queue, the due times and the leases as small as the work in progress, however many executions have ended.
- A workspace's id is unique over all organizations, so indexes begin with it; queries compare `org_id` as well.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, PrimaryKeyConstraint, Table, UniqueConstraint

from flow_sdk.wire.isolation import DEFAULT

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

# Ids and words compare byte by byte in both databases; a locale's order would differ, and is slower.
Word = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Instant = sa.BigInteger()
Json = sa.Text()


def _word(name: str, *args: Any, nullable: bool = False, **kwargs: Any) -> Column[str]:
    return Column(name, Word, *args, nullable=nullable, **kwargs)


def _json(name: str) -> Column[str]:
    return Column(name, Json, nullable=True)


def _at(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, Instant, nullable=nullable)


def _count(name: str, **kwargs: Any) -> Column[int]:
    return Column(name, sa.BigInteger, nullable=False, **kwargs)


# Executions.

executions = Table(
    "executions",
    metadata,
    _word("id", primary_key=True),
    _word("org_id"),
    _word("workspace_id"),
    _word("kind"),
    _word("component_id"),
    _word("component_slug"),
    Column("component_name", sa.Text, nullable=False),
    _word("version_id"),
    _count("version"),
    _word("deployment_id", nullable=True),
    _word("ring_id", nullable=True),
    _word("root_id"),
    _at("created_at"),
    _at("deadline_at"),
    Column("timeout_seconds", sa.Double[float](), nullable=False),
    _word("parent_id", nullable=True),
    _count("depth"),
    _word("lifecycle_event"),
    _word("billing_transaction_id", nullable=True),
    _word("parent_billing_transaction_id", nullable=True),
    _word("session_id", nullable=True),
    _count("priority"),
    _json("retry"),
    _word("status"),
    _count("attempt"),
    _count("failures"),
    _count("losses"),
    _count("lease_epoch"),
    _word("lease_holder", nullable=True),
    _word("lease_instance", nullable=True),
    _at("lease_expires_at", nullable=True),
    _at("available_at", nullable=True),
    _at("started_at", nullable=True),
    _at("finished_at", nullable=True),
    _count("live_children"),
    _json("error"),
    _json("metrics"),
    _at("due_at", nullable=True),
    _json("limit_keys"),
    _word("retry_of_id", nullable=True),
    _word("retried_as_id", nullable=True),
    Column("submitted_by", sa.Text, nullable=True),
    _word("isolation", server_default=DEFAULT.value),
)

_e = executions.c
_QUEUED = "status = 'queued'"  # Literal: a planner matches a partial index to a query by its text.


def partial_index(name: str, condition: str, *columns: Any, unique: bool = False) -> Index:
    """An index of the rows that fulfil the condition, in both databases."""
    where = sa.text(condition)
    return Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


# The queue, in the order of claims. Those in back-off are apart, so that a claim never walks over them.
_RANK = sa.text("(created_at - priority * 60000000)")  # `execution_queue` says why; a minute is `limits.AGING`.
_LANE = sa.text("(component_id || '@' || coalesce(ring_id, '') || ':' || isolation || coalesce(limit_keys, ''))")
# An expression: of the bare column PostgreSQL knows that it is nearly always the same, and thinks a scan of all cheap.
_RUNG = sa.text("(isolation || '')")
partial_index("ix_executions_ready", f"{_QUEUED} AND available_at IS NULL", _RUNG, _RANK, _e.id)
partial_index("ix_executions_lane", f"{_QUEUED} AND available_at IS NULL", _e.workspace_id, _LANE, _RANK, _e.id)
partial_index("ix_executions_delayed", f"{_QUEUED} AND available_at IS NOT NULL", _e.available_at)
# The sweeper's index. `status` makes it answer the counts of unfinished executions alone.
partial_index("ix_executions_due", "due_at IS NOT NULL", _e.due_at, _e.id, _e.status)
# Who holds which leases; with the rest it answers alone what runs under each limit.
partial_index(
    "ix_executions_lease",
    "lease_holder IS NOT NULL",
    _e.lease_holder,
    _e.lease_instance,
    _e.workspace_id,
    _e.component_id,
    _e.ring_id,
    _e.limit_keys,
)
partial_index("ix_executions_parent", "parent_id IS NOT NULL", _e.parent_id, _e.created_at, _e.id)
partial_index("ix_executions_root", "parent_id IS NOT NULL", _e.root_id, _e.created_at, _e.id)
# What ended without a result and was not retried: small, however many were retried or completed.
UNRETRIED: Final = "retried_as_id IS NULL AND status IN ('failed', 'dead_letter', 'timeout', 'cancelled')"
partial_index("ix_executions_unretried", UNRETRIED, _e.workspace_id, _e.status, _e.created_at, _e.id)
partial_index("ix_executions_retried", "retried_as_id IS NOT NULL", _e.workspace_id, _e.created_at, _e.id)
# How the executions of a deployment ended lately: its health, from the index alone.
partial_index("ix_executions_ended", "finished_at IS NOT NULL", _e.deployment_id, _e.finished_at, _e.status)
# What was started from outside, and billed to a transaction by a header.
partial_index(
    "ix_executions_billed",
    "parent_id IS NULL AND parent_billing_transaction_id IS NOT NULL",
    _e.parent_billing_transaction_id,
    _e.created_at,
    _e.id,
)
# Lists. `kind` and `ring_id` ride along behind the order: few values, compared inside the index.
Index("ix_executions_workspace", _e.workspace_id, _e.created_at, _e.id, _e.kind, _e.ring_id)
Index("ix_executions_workspace_status", _e.workspace_id, _e.status, _e.created_at, _e.id)
Index("ix_executions_workspace_component", _e.workspace_id, _e.component_id, _e.created_at, _e.id)


def _execution_id(**kwargs: Any) -> Column[str]:
    return Column("execution_id", Word, ForeignKey("executions.id"), nullable=False, **kwargs)


execution_payloads = Table(
    "execution_payloads",
    metadata,
    _execution_id(primary_key=True),
    _json("input_data"),
    _json("config"),
    _json("session_id"),
    _json("messages"),
    _json("state"),
)

execution_results = Table(
    "execution_results",
    metadata,
    _execution_id(primary_key=True),
    _json("output"),
    _json("usage"),
    _json("messages"),
    _json("state"),
)

attempts = Table(
    "attempts",
    metadata,
    _execution_id(),
    _count("number"),
    _count("lease_epoch"),
    _word("runner_id"),
    _at("started_at"),
    _at("finished_at", nullable=True),
    _json("error"),
    _json("metrics"),
    PrimaryKeyConstraint("execution_id", "number"),
)

events = Table(
    "events",
    metadata,
    _execution_id(),
    _count("position"),
    _word("key"),
    _count("attempt"),
    _word("event_type"),
    _json("event_data"),
    _at("timestamp"),
    PrimaryKeyConstraint("execution_id", "position"),
    UniqueConstraint("execution_id", "key"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _word("org_id"),
    _word("workspace_id"),
    _word("key"),
    _word("fingerprint"),
    _execution_id(),
    _at("saved_at"),
    PrimaryKeyConstraint("workspace_id", "org_id", "key"),
)
Index("ix_idempotency_keys_saved", idempotency_keys.c.saved_at)

# What executions called: a new attempt is replayed from it. `execution_id` is the child, or None for a checkpoint.
calls = Table(
    "calls",
    metadata,
    _word("parent_id", ForeignKey("executions.id")),
    _word("key"),
    _count("occurrence"),
    _count("ordinal"),
    _count("first_attempt"),
    _count("attempt"),
    _word("execution_id", ForeignKey("executions.id"), nullable=True),
    _word("component"),
    _word("checkpoint_id", nullable=True),
    Column("is_numbered", sa.Boolean, nullable=False, server_default=sa.false()),
    _count("lent", server_default="0"),
    PrimaryKeyConstraint("parent_id", "key", "occurrence"),
)
Index("ix_calls_ordinal", calls.c.parent_id, calls.c.ordinal)
Index("ix_calls_attempt", calls.c.parent_id, calls.c.attempt, calls.c.ordinal)
# Calls that an execution has from the one that it repeats: who was called by whom, beside the parents.
partial_index("ix_calls_inherited", "first_attempt = 0", calls.c.parent_id, calls.c.execution_id)

# Tenancy.

organizations = Table(
    "organizations",
    metadata,
    _word("id", primary_key=True),
    Column("name", sa.Text, nullable=False),
    _at("created_at"),
    _json("env"),
)

workspaces = Table(
    "workspaces",
    metadata,
    _word("id", primary_key=True),
    _word("org_id", ForeignKey("organizations.id")),
    Column("name", sa.Text, nullable=False),
    _at("created_at"),
    _json("env"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    _word("kid", primary_key=True),
    Column("private_pem", sa.Text, nullable=False),
    Column("public_pem", sa.Text, nullable=False),
    _at("created_at"),
    _at("retired_at", nullable=True),
)

# The catalog.

components = Table(
    "components",
    metadata,
    _word("id", primary_key=True),
    _word("org_id"),
    _word("workspace_id"),
    _word("kind"),
    _word("slug"),
    Column("name", sa.Text, nullable=False),
    Column("description", sa.Text, nullable=False),
    _json("tags"),
    _at("created_at"),
    _count("latest_version"),
    UniqueConstraint("workspace_id", "org_id", "kind", "slug"),
)
Index(
    "ix_components_list",
    components.c.workspace_id,
    components.c.kind,
    components.c.created_at,
    components.c.id,
)

versions = Table(
    "versions",
    metadata,
    _word("id", primary_key=True),
    _word("component_id", ForeignKey("components.id")),
    _count("number"),
    _word("digest"),
    Column("definition", Json, nullable=False),
    _at("created_at"),
    _json("environment"),
    _json("input_schema"),
    _json("output_schema"),
    UniqueConstraint("component_id", "number"),
    UniqueConstraint("component_id", "digest"),
)

rings = Table(
    "rings",
    metadata,
    _word("id", primary_key=True),
    _word("org_id"),
    _word("workspace_id"),
    Column("name", Word, nullable=False),
    _count("order"),
    Column("auto_deploy", sa.Boolean, nullable=False),
    _at("created_at"),
    _json("env"),
    Column("requires_approval", sa.Boolean, nullable=False, server_default=sa.false()),
    _json("rollback"),
    _word("minimum_isolation", server_default=DEFAULT.value),
    UniqueConstraint("workspace_id", "org_id", "name"),
)

deployments = Table(
    "deployments",
    metadata,
    _word("id", primary_key=True),
    _word("org_id"),
    _word("workspace_id"),
    _word("component_id", ForeignKey("components.id")),
    _word("version_id", ForeignKey("versions.id")),
    _count("version"),
    _word("ring_id", ForeignKey("rings.id")),
    _word("state"),
    _at("created_at"),
    _at("activated_at", nullable=True),
    _word("digest", server_default=""),
    _count("share", server_default="0"),
    _word("previous_id", nullable=True),
    _word("promoted_from_id", nullable=True),
    Column("approved_by", sa.Text, nullable=True),
    Column("is_restored", sa.Boolean, nullable=False, server_default=sa.false()),
    Column("reason", sa.Text, nullable=False, server_default=""),
    Column("requested_by", sa.Text, nullable=False, server_default=""),
    _word("set_id", nullable=True),
    _word("smoke_execution_id", nullable=True),
    _count("first_share", server_default="0"),
)

_d = deployments.c
ON_ITS_WAY: Final = "state IN ('queued', 'building', 'deploying', 'validating')"
CURRENT: Final = "state IN ('active', 'queued', 'building', 'deploying', 'validating')"
MOVING: Final = "state IN ('queued', 'building', 'deploying', 'validating', 'rolling_back')"
# At most one active per component and ring, and one on its way: the database itself refuses a second.
partial_index("uq_deployments_active", "state = 'active'", _d.component_id, _d.ring_id, unique=True)
partial_index("uq_deployments_on_its_way", ON_ITS_WAY, _d.component_id, _d.ring_id, unique=True)
# What a new execution may run on; found for each one.
partial_index("ix_deployments_current", CURRENT, _d.component_id, _d.ring_id)
partial_index("ix_deployments_moving", MOVING, _d.id)
partial_index("ix_deployments_new", "state = 'active'", _d.ring_id, _d.activated_at)
partial_index("ix_deployments_set", "set_id IS NOT NULL", _d.set_id, _d.id)
Index("ix_deployments_workspace", _d.workspace_id, _d.created_at, _d.id, _d.ring_id)
Index("ix_deployments_component", _d.component_id, _d.created_at, _d.id)

# Runners.

runners = Table(
    "runners",
    metadata,
    _word("id", primary_key=True),
    _word("instance"),
    _count("slots"),
    _at("registered_at"),
    _at("seen_at"),
    _count("completed"),
    _word("isolations", server_default=DEFAULT.value),  # One after the other, with commas.
)
Index("ix_runners_seen", runners.c.seen_at)
