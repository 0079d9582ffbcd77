"""Parts of agents, and sessions of agents.

Revision ID: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "parts",
        sa.Column("id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("slug", WORD, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("latest_version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parts")),
        sa.UniqueConstraint(
            "workspace_id", "org_id", "kind", "slug", name=op.f("uq_parts_workspace_id_org_id_kind_slug")
        ),
    )
    op.create_index("ix_parts_list", "parts", ["workspace_id", "kind", "created_at", "id"], unique=False)
    op.create_table(
        "part_versions",
        sa.Column("part_id", WORD, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", WORD, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["part_id"], ["parts.id"], name=op.f("fk_part_versions_part_id")),
        sa.PrimaryKeyConstraint("part_id", "number", name=op.f("pk_part_versions")),
        sa.UniqueConstraint("part_id", "digest", name=op.f("uq_part_versions_part_id_digest")),
    )
    op.create_table(
        "sessions",
        sa.Column("component_id", WORD, nullable=False),
        sa.Column("ring_id", WORD, nullable=False),
        sa.Column("owner", WORD, nullable=False),
        sa.Column("session_id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("messages", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("turns", sa.BigInteger(), nullable=False),
        sa.Column("holder_id", WORD, nullable=True),
        sa.Column("queued", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("component_id", "ring_id", "owner", "session_id", name=op.f("pk_sessions")),
    )
    op.create_index("ix_sessions_list", "sessions", ["workspace_id", "component_id", "updated_at"], unique=False)
    op.create_table(
        "session_turns",
        sa.Column("execution_id", WORD, nullable=False),
        sa.Column("component_id", WORD, nullable=False),
        sa.Column("ring_id", WORD, nullable=False),
        sa.Column("owner", WORD, nullable=False),
        sa.Column("session_id", WORD, nullable=False),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_session_turns_execution_id")),
        sa.PrimaryKeyConstraint("execution_id", name=op.f("pk_session_turns")),
    )
