"""Services, their endpoints, versions and tokens.

Revision ID: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    _services()
    _tokens()


def _services() -> None:
    op.create_table(
        "services",
        sa.Column("id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("slug", WORD, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("ring_id", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("latest_version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["ring_id"], ["rings.id"], name=op.f("fk_services_ring_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_services")),
        sa.UniqueConstraint("org_id", "slug", name=op.f("uq_services_org_id_slug")),
    )
    op.create_index("ix_services_workspace", "services", ["workspace_id", "created_at", "id"], unique=False)
    op.create_table(
        "service_endpoints",
        sa.Column("id", WORD, nullable=False),
        sa.Column("service_id", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["service_id"], ["services.id"], name=op.f("fk_service_endpoints_service_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_endpoints")),
        sa.UniqueConstraint("service_id", "name", name=op.f("uq_service_endpoints_service_id_name")),
    )
    op.create_table(
        "service_versions",
        sa.Column("service_id", WORD, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", WORD, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("endpoints", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("skills", sa.Text(), nullable=False),
        sa.Column("checksum", WORD, nullable=False),
        sa.ForeignKeyConstraint(["service_id"], ["services.id"], name=op.f("fk_service_versions_service_id")),
        sa.PrimaryKeyConstraint("service_id", "number", name=op.f("pk_service_versions")),
    )


def _tokens() -> None:
    op.create_table(
        "service_tokens",
        sa.Column("id", WORD, nullable=False),
        sa.Column("service_id", WORD, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("shown", WORD, nullable=False),
        sa.Column("digest", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["service_id"], ["services.id"], name=op.f("fk_service_tokens_service_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_service_tokens_digest")),
    )
    op.create_index("ix_service_tokens_service", "service_tokens", ["service_id", "created_at", "id"], unique=False)
