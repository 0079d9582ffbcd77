"""Approval, rollback rule and share of rings and deployments; variables of organizations and workspaces.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("organizations", sa.Column("env", sa.Text(), nullable=True))
    op.add_column("workspaces", sa.Column("env", sa.Text(), nullable=True))
    op.add_column("rings", sa.Column("requires_approval", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("rings", sa.Column("rollback", sa.Text(), nullable=True))
    _deployments()
    op.create_table(
        "smoke_inputs",
        sa.Column("component_id", WORD, nullable=False),
        sa.Column("input_data", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["component_id"], ["components.id"], name=op.f("fk_smoke_inputs_component_id")),
        sa.PrimaryKeyConstraint("component_id", name=op.f("pk_smoke_inputs")),
    )
    _partial("ix_executions_ended", "executions", ["deployment_id", "finished_at", "status"], "finished_at IS NOT NULL")


def _deployments() -> None:
    for column in (
        sa.Column("digest", WORD, server_default="", nullable=False),
        sa.Column("share", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("previous_id", WORD, nullable=True),
        sa.Column("promoted_from_id", WORD, nullable=True),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("is_restored", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("requested_by", sa.Text(), server_default="", nullable=False),
        sa.Column("set_id", WORD, nullable=True),
        sa.Column("smoke_execution_id", WORD, nullable=True),
        sa.Column("first_share", sa.BigInteger(), server_default="0", nullable=False),
    ):
        op.add_column("deployments", column)
    op.execute(
        "UPDATE deployments SET digest = (SELECT digest FROM versions WHERE versions.id = deployments.version_id)"
    )
    # What was superseded last before the active one is what a rollback goes back to.
    op.execute(
        "UPDATE deployments SET previous_id = ("
        " SELECT earlier.id FROM deployments AS earlier"
        " WHERE earlier.component_id = deployments.component_id AND earlier.ring_id = deployments.ring_id"
        " AND earlier.activated_at IS NOT NULL AND earlier.id < deployments.id"
        " ORDER BY earlier.id DESC LIMIT 1)"
    )
    on_its_way = "'queued', 'building', 'deploying', 'validating'"
    where = ["component_id", "ring_id"]
    _partial("uq_deployments_on_its_way", "deployments", where, f"state IN ({on_its_way})", unique=True)
    _partial("ix_deployments_current", "deployments", where, f"state IN ('active', {on_its_way})")
    _partial("ix_deployments_moving", "deployments", ["id"], f"state IN ({on_its_way}, 'rolling_back')")
    _partial("ix_deployments_new", "deployments", ["ring_id", "activated_at"], "state = 'active'")
    _partial("ix_deployments_set", "deployments", ["set_id", "id"], "set_id IS NOT NULL")


def _partial(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)
