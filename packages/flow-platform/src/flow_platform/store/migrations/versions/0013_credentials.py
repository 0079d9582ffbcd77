"""Revocations of tokens, and custom roles.

Revision ID: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "revocations",
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "kind", "name", name=op.f("pk_revocations")),
    )
    op.create_table(
        "roles",
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("actions", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "name", name=op.f("pk_roles")),
    )
    # A key's custom role; null: the built-in one of `role`.
    op.add_column("api_keys", sa.Column("custom_role", WORD, nullable=True))
