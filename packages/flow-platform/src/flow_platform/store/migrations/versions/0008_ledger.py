"""The ledger of what executions cost.

Revision ID: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
BILLED = "parent_id IS NULL AND parent_billing_transaction_id IS NOT NULL"
NAMES_A_PARENT = "parent_transaction_id IS NOT NULL"


def upgrade() -> None:
    op.create_table(
        "ledger_entries",
        sa.Column("tree_id", WORD, nullable=False),
        sa.Column("node_id", WORD, nullable=False),
        sa.Column("source", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("lifecycle_event", WORD, nullable=False),
        sa.Column("rate_version", WORD, nullable=False),
        sa.Column("discount_percent", sa.BigInteger(), nullable=False),
        sa.Column("micro_credits", sa.BigInteger(), nullable=False),
        sa.Column("component_id", WORD, nullable=True),
        sa.Column("model", WORD, nullable=True),
        sa.Column("cpu_us", sa.BigInteger(), nullable=False),
        sa.Column("memory_kib_ms", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("parent_transaction_id", WORD, nullable=True),
        sa.PrimaryKeyConstraint("tree_id", "node_id", "source", name=op.f("pk_ledger_entries")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_ledger_entries_workspace", "ledger_entries", ["workspace_id", "at", "micro_credits"])
    op.create_index(
        "ix_ledger_entries_parent",
        "ledger_entries",
        ["parent_transaction_id", "at"],
        sqlite_where=sa.text(NAMES_A_PARENT),
        postgresql_where=sa.text(NAMES_A_PARENT),
    )
    _refuse_changes()
    op.create_table(
        "budgets",
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("daily", sa.BigInteger(), nullable=True),
        sa.Column("monthly", sa.BigInteger(), nullable=True),
        sa.Column("warn_percent", sa.BigInteger(), nullable=False),
        sa.Column("refuses", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "org_id", name=op.f("pk_budgets")),
    )
    op.create_table(
        "budget_spent",
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("period", WORD, nullable=False),
        sa.Column("micro_credits", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "org_id", "period", name=op.f("pk_budget_spent")),
    )
    op.create_index(
        "ix_executions_billed",
        "executions",
        ["parent_billing_transaction_id", "created_at", "id"],
        sqlite_where=sa.text(BILLED),
        postgresql_where=sa.text(BILLED),
    )
    # A transaction is found by its id from now on: it is its execution's. Until now nothing was recorded under either.
    op.execute(
        "UPDATE executions SET billing_transaction_id = id,"
        " parent_billing_transaction_id = coalesce(parent_id, parent_billing_transaction_id)"
    )


def _refuse_changes() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER ledger_entries_no_{action.lower()} BEFORE {action} ON ledger_entries"
                " BEGIN SELECT RAISE(ABORT, 'ledger_entries is append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION ledger_entries_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'ledger_entries is append-only' USING ERRCODE = 'restrict_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER ledger_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries"
        " FOR EACH STATEMENT EXECUTE FUNCTION ledger_entries_append_only()"
    )
