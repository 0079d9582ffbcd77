"""The audit log, and who submitted an execution.

Revision ID: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("action", WORD, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("workspace_id", WORD, nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("hash", WORD, nullable=False),
        sa.PrimaryKeyConstraint("org_id", "sequence", name=op.f("pk_audit_entries")),
    )
    op.create_index("ix_audit_entries_at", "audit_entries", ["org_id", "at"], unique=False)
    op.create_table(
        "audit_heads",
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", WORD, nullable=False),
        sa.Column("removed_to", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("org_id", name=op.f("pk_audit_heads")),
    )
    _refuse_changes()
    # A submit is its own record: the row that it makes says by whom.
    op.add_column("executions", sa.Column("submitted_by", sa.Text(), nullable=True))


def _refuse_changes() -> None:
    """No entry is changed, and none deleted but those that the head says are removed, as they are old enough."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries"
            " BEGIN SELECT RAISE(ABORT, 'audit_entries is append-only'); END"
        )
        op.execute(
            "CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries"
            " WHEN OLD.sequence > coalesce((SELECT removed_to FROM audit_heads WHERE org_id = OLD.org_id), 0)"
            " BEGIN SELECT RAISE(ABORT, 'audit_entries is append-only'); END"
        )
        return
    op.execute(
        "CREATE FUNCTION audit_entries_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF TG_OP = 'DELETE' THEN"
        " IF OLD.sequence <= (SELECT removed_to FROM audit_heads WHERE org_id = OLD.org_id) THEN RETURN OLD; END IF;"
        " END IF;"
        " RAISE EXCEPTION 'audit_entries is append-only' USING ERRCODE = 'restrict_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_entries_append_only BEFORE UPDATE OR DELETE ON audit_entries"
        " FOR EACH ROW EXECUTE FUNCTION audit_entries_append_only()"
    )
    op.execute(
        "CREATE TRIGGER audit_entries_no_truncate BEFORE TRUNCATE ON audit_entries"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_append_only()"
    )
