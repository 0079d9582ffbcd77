"""Calls of language models: their records, answers to ask for again, settings of workspaces.

Revision ID: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "model_calls",
        sa.Column("id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("execution_id", WORD, nullable=True),
        sa.Column("billing_transaction_id", WORD, nullable=True),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("provider", WORD, nullable=False),
        sa.Column("model", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("is_estimated", sa.Boolean(), nullable=False),
        sa.Column("cost_micro_credits", sa.BigInteger(), nullable=False),
        sa.Column("price_version", WORD, nullable=True),
        sa.Column("latency_ms", sa.Double[float](), nullable=False),
        sa.Column("first_token_ms", sa.Double[float](), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("is_streamed", sa.Boolean(), nullable=False),
        sa.Column("error_code", WORD, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_calls")),
    )
    op.create_index("ix_model_calls_workspace", "model_calls", ["workspace_id", "created_at", "id"], unique=False)
    op.create_index(
        "ix_model_calls_execution",
        "model_calls",
        ["execution_id", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text("execution_id IS NOT NULL"),
        postgresql_where=sa.text("execution_id IS NOT NULL"),
    )
    op.create_table(
        "model_answers",
        sa.Column("execution_id", WORD, nullable=False),
        sa.Column("key", WORD, nullable=False),
        sa.Column("fingerprint", WORD, nullable=False),
        sa.Column("call_id", WORD, nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("saved_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_model_answers_execution_id")),
        sa.PrimaryKeyConstraint("execution_id", "key", name=op.f("pk_model_answers")),
    )
    op.create_index("ix_model_answers_saved", "model_answers", ["saved_at"], unique=False)
    op.create_table(
        "model_settings",
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "org_id", name=op.f("pk_model_settings")),
    )
