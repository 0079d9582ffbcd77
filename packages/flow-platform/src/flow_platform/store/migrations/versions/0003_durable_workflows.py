"""What workflows wait for, and which execution repeats which.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    for column in (
        sa.Column("limit_keys", sa.Text(), nullable=True),
        sa.Column("retry_of_id", WORD, nullable=True),
        sa.Column("retried_as_id", WORD, nullable=True),
    ):
        op.add_column("executions", column)
    with op.batch_alter_table("calls") as calls:
        calls.alter_column("execution_id", existing_type=WORD, nullable=True)
        calls.add_column(sa.Column("checkpoint_id", WORD, nullable=True))
    _partial("ix_calls_inherited", "calls", ["parent_id", "execution_id"], "first_attempt = 0")
    ended = "retried_as_id IS NULL AND status IN ('failed', 'dead_letter', 'timeout', 'cancelled')"
    _partial("ix_executions_unretried", "executions", ["workspace_id", "status", "created_at", "id"], ended)
    _partial("ix_executions_retried", "executions", ["workspace_id", "created_at", "id"], "retried_as_id IS NOT NULL")
    _checkpoints()
    _sent_events()


def _checkpoints() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("id", WORD, nullable=False),
        sa.Column("execution_id", WORD, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("value_schema", sa.Text(), nullable=True),
        sa.Column("approvers", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("status", WORD, nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_checkpoints_execution_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
    )
    op.create_index("ix_checkpoints_execution", "checkpoints", ["execution_id", "id"], unique=False)
    _partial("ix_checkpoints_open", "checkpoints", ["execution_id", "name", "id"], "finished_at IS NULL")


def _sent_events() -> None:
    op.create_table(
        "sent_events",
        sa.Column("id", WORD, nullable=False),
        sa.Column("execution_id", WORD, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("payload", sa.Text(), nullable=True),
        sa.Column("sent_by", sa.Text(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=False),
        sa.Column("key", WORD, nullable=False),
        sa.Column("checkpoint_id", WORD, nullable=True),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoints.id"], name=op.f("fk_sent_events_checkpoint_id")),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_sent_events_execution_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sent_events")),
    )
    _partial("ix_sent_events_unread", "sent_events", ["execution_id", "name", "position"], "checkpoint_id IS NULL")
    op.create_index("uq_sent_events_position", "sent_events", ["execution_id", "position"], unique=True)
    _partial("uq_sent_events_key", "sent_events", ["execution_id", "key"], "key <> ''", unique=True)


def _partial(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)
