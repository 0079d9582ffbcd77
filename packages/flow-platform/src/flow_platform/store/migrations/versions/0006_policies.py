"""Policies: retries, limits and priorities of components in rings; the queue by age and by lane.

Revision ID: 0006
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
READY = "status = 'queued' AND available_at IS NULL"
RANK = "created_at - priority * 60000000"
LANE = "component_id || '@' || coalesce(ring_id, '') || coalesce(limit_keys, '')"


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("component_id", WORD, nullable=False),
        sa.Column("ring_id", WORD, nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "org_id", "component_id", "ring_id", name=op.f("pk_policies")),
    )
    op.create_table(
        "policy_revisions",
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("limit_starts", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", name=op.f("pk_policy_revisions")),
    )
    op.create_table(
        "rate_buckets",
        sa.Column("key", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("level", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate_buckets")),
    )
    op.drop_index("ix_executions_ready", table_name="executions")
    _partial("ix_executions_ready", [sa.text(f"({RANK})"), "id"], READY)
    _partial("ix_executions_lane", ["workspace_id", sa.text(f"({LANE})"), sa.text(f"({RANK})"), "id"], READY)
    op.drop_index("ix_executions_lease", table_name="executions")
    leased = ["lease_holder", "lease_instance", "workspace_id", "component_id", "ring_id", "limit_keys"]
    _partial("ix_executions_lease", leased, "lease_holder IS NOT NULL")


def _partial(name: str, columns: Sequence[str | sa.TextClause], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "executions", list(columns), unique=False, sqlite_where=where, postgresql_where=where)
