"""Secrets, encrypted.

Revision ID: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "data_keys",
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("master_key_id", WORD, nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "org_id", name=op.f("pk_data_keys")),
    )
    op.create_table(
        "secrets",
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("ring_id", WORD, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "org_id", "name", "ring_id", name=op.f("pk_secrets")),
    )
