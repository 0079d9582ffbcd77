"""Schedules, and the history of their firings.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    _schedules()
    _firings()


def _schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("component_id", WORD, nullable=False),
        sa.Column("component_slug", WORD, nullable=False),
        sa.Column("ring_id", WORD, nullable=False),
        sa.Column("cron", sa.Text(), nullable=True),
        sa.Column("interval_micros", sa.BigInteger(), nullable=True),
        sa.Column("time_zone", WORD, nullable=False),
        sa.Column("input_data", sa.Text(), nullable=True),
        sa.Column("config", sa.Text(), nullable=True),
        sa.Column("timeout_seconds", sa.Double[float](), nullable=True),
        sa.Column("overlap", WORD, nullable=False),
        sa.Column("catch_up_micros", sa.BigInteger(), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=True),
        sa.Column("ends_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("last_fired_at", sa.BigInteger(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("firings", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["component_id"], ["components.id"], name=op.f("fk_schedules_component_id")),
        sa.ForeignKeyConstraint(["ring_id"], ["rings.id"], name=op.f("fk_schedules_ring_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
    )
    op.create_index("ix_schedules_workspace", "schedules", ["workspace_id", "created_at", "id"], unique=False)
    _partial("ix_schedules_due", "schedules", ["due_at", "id"], "due_at IS NOT NULL")


def _firings() -> None:
    op.create_table(
        "schedule_firings",
        sa.Column("schedule_id", WORD, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("cause", WORD, nullable=False),
        sa.Column("scheduled_at", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("status", WORD, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("key", WORD, nullable=False),
        sa.Column("reason", WORD, nullable=False),
        sa.Column("execution_id", WORD, nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_schedule_firings_execution_id")),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedules.id"], name=op.f("fk_schedule_firings_schedule_id")),
        sa.PrimaryKeyConstraint("schedule_id", "number", name=op.f("pk_schedule_firings")),
    )
    _partial("uq_schedule_firings_key", "schedule_firings", ["schedule_id", "key"], "key <> ''", unique=True)
    _partial("ix_schedule_firings_execution", "schedule_firings", ["execution_id"], "execution_id IS NOT NULL")
    live = "execution_id IS NOT NULL AND ended_at IS NULL"
    _partial("ix_schedule_firings_live", "schedule_firings", ["schedule_id", "execution_id"], live)
    _partial("ix_schedule_firings_waiting", "schedule_firings", ["schedule_id"], "status = 'waiting'")


def _partial(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)
