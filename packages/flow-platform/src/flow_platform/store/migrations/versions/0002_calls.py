"""The calls that executions made, for replay.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("parent_id", WORD, nullable=False),
        sa.Column("key", WORD, nullable=False),
        sa.Column("occurrence", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("first_attempt", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("execution_id", WORD, nullable=False),
        sa.Column("component", WORD, nullable=False),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_calls_execution_id")),
        sa.ForeignKeyConstraint(["parent_id"], ["executions.id"], name=op.f("fk_calls_parent_id")),
        sa.PrimaryKeyConstraint("parent_id", "key", "occurrence", name=op.f("pk_calls")),
    )
    op.create_index("ix_calls_ordinal", "calls", ["parent_id", "ordinal"], unique=False)
    op.create_index("ix_calls_attempt", "calls", ["parent_id", "attempt", "ordinal"], unique=False)
