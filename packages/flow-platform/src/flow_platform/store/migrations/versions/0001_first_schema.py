"""The first schema.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    _components()
    _executions()
    _execution_indexes()
    _organizations()
    _rings()
    _runners()
    _signing_keys()
    _attempts()
    _events()
    _execution_payloads()
    _execution_results()
    _idempotency_keys()
    _versions()
    _workspaces()
    _deployments()


def _components() -> None:
    op.create_table(
        "components",
        sa.Column("id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("slug", WORD, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("latest_version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_components")),
        sa.UniqueConstraint(
            "workspace_id", "org_id", "kind", "slug", name=op.f("uq_components_workspace_id_org_id_kind_slug")
        ),
    )
    op.create_index("ix_components_list", "components", ["workspace_id", "kind", "created_at", "id"], unique=False)


def _executions() -> None:
    op.create_table(
        "executions",
        sa.Column("id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("component_id", WORD, nullable=False),
        sa.Column("component_slug", WORD, nullable=False),
        sa.Column("component_name", sa.Text(), nullable=False),
        sa.Column("version_id", WORD, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("deployment_id", WORD, nullable=True),
        sa.Column("ring_id", WORD, nullable=True),
        sa.Column("root_id", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deadline_at", sa.BigInteger(), nullable=False),
        sa.Column("timeout_seconds", sa.Double[float](), nullable=False),
        sa.Column("parent_id", WORD, nullable=True),
        sa.Column("depth", sa.BigInteger(), nullable=False),
        sa.Column("lifecycle_event", WORD, nullable=False),
        sa.Column("billing_transaction_id", WORD, nullable=True),
        sa.Column("parent_billing_transaction_id", WORD, nullable=True),
        sa.Column("session_id", WORD, nullable=True),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("retry", sa.Text(), nullable=True),
        sa.Column("status", WORD, nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("losses", sa.BigInteger(), nullable=False),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.Column("lease_holder", WORD, nullable=True),
        sa.Column("lease_instance", WORD, nullable=True),
        sa.Column("lease_expires_at", sa.BigInteger(), nullable=True),
        sa.Column("available_at", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("live_children", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("metrics", sa.Text(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_executions")),
    )


def _execution_indexes() -> None:
    op.create_index(
        "ix_executions_delayed",
        "executions",
        ["available_at"],
        unique=False,
        sqlite_where=sa.text("status = 'queued' AND available_at IS NOT NULL"),
        postgresql_where=sa.text("status = 'queued' AND available_at IS NOT NULL"),
    )
    op.create_index(
        "ix_executions_due",
        "executions",
        ["due_at", "id", "status"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_executions_lease",
        "executions",
        ["lease_holder", "lease_instance"],
        unique=False,
        sqlite_where=sa.text("lease_holder IS NOT NULL"),
        postgresql_where=sa.text("lease_holder IS NOT NULL"),
    )
    op.create_index(
        "ix_executions_parent",
        "executions",
        ["parent_id", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text("parent_id IS NOT NULL"),
        postgresql_where=sa.text("parent_id IS NOT NULL"),
    )
    op.create_index(
        "ix_executions_ready",
        "executions",
        [sa.literal_column("priority DESC"), "created_at", "id"],
        unique=False,
        sqlite_where=sa.text("status = 'queued' AND available_at IS NULL"),
        postgresql_where=sa.text("status = 'queued' AND available_at IS NULL"),
    )
    op.create_index(
        "ix_executions_root",
        "executions",
        ["root_id", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text("parent_id IS NOT NULL"),
        postgresql_where=sa.text("parent_id IS NOT NULL"),
    )
    op.create_index(
        "ix_executions_workspace", "executions", ["workspace_id", "created_at", "id", "kind", "ring_id"], unique=False
    )
    op.create_index(
        "ix_executions_workspace_component",
        "executions",
        ["workspace_id", "component_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_executions_workspace_status", "executions", ["workspace_id", "status", "created_at", "id"], unique=False
    )


def _organizations() -> None:
    op.create_table(
        "organizations",
        sa.Column("id", WORD, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organizations")),
    )


def _rings() -> None:
    op.create_table(
        "rings",
        sa.Column("id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("order", sa.BigInteger(), nullable=False),
        sa.Column("auto_deploy", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("env", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rings")),
        sa.UniqueConstraint("workspace_id", "org_id", "name", name=op.f("uq_rings_workspace_id_org_id_name")),
    )


def _runners() -> None:
    op.create_table(
        "runners",
        sa.Column("id", WORD, nullable=False),
        sa.Column("instance", WORD, nullable=False),
        sa.Column("slots", sa.BigInteger(), nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("completed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runners")),
    )
    op.create_index("ix_runners_seen", "runners", ["seen_at"], unique=False)


def _signing_keys() -> None:
    op.create_table(
        "signing_keys",
        sa.Column("kid", WORD, nullable=False),
        sa.Column("private_pem", sa.Text(), nullable=False),
        sa.Column("public_pem", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_keys")),
    )


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("execution_id", WORD, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.Column("runner_id", WORD, nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("metrics", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_attempts_execution_id")),
        sa.PrimaryKeyConstraint("execution_id", "number", name=op.f("pk_attempts")),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("execution_id", WORD, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("key", WORD, nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("event_type", WORD, nullable=False),
        sa.Column("event_data", sa.Text(), nullable=True),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_events_execution_id")),
        sa.PrimaryKeyConstraint("execution_id", "position", name=op.f("pk_events")),
        sa.UniqueConstraint("execution_id", "key", name=op.f("uq_events_execution_id_key")),
    )


def _execution_payloads() -> None:
    op.create_table(
        "execution_payloads",
        sa.Column("execution_id", WORD, nullable=False),
        sa.Column("input_data", sa.Text(), nullable=True),
        sa.Column("config", sa.Text(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("messages", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_execution_payloads_execution_id")),
        sa.PrimaryKeyConstraint("execution_id", name=op.f("pk_execution_payloads")),
    )


def _execution_results() -> None:
    op.create_table(
        "execution_results",
        sa.Column("execution_id", WORD, nullable=False),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("usage", sa.Text(), nullable=True),
        sa.Column("messages", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_execution_results_execution_id")),
        sa.PrimaryKeyConstraint("execution_id", name=op.f("pk_execution_results")),
    )


def _idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("key", WORD, nullable=False),
        sa.Column("fingerprint", WORD, nullable=False),
        sa.Column("execution_id", WORD, nullable=False),
        sa.Column("saved_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name=op.f("fk_idempotency_keys_execution_id")),
        sa.PrimaryKeyConstraint("workspace_id", "org_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_saved", "idempotency_keys", ["saved_at"], unique=False)


def _versions() -> None:
    op.create_table(
        "versions",
        sa.Column("id", WORD, nullable=False),
        sa.Column("component_id", WORD, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", WORD, nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=True),
        sa.Column("input_schema", sa.Text(), nullable=True),
        sa.Column("output_schema", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["component_id"], ["components.id"], name=op.f("fk_versions_component_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_versions")),
        sa.UniqueConstraint("component_id", "digest", name=op.f("uq_versions_component_id_digest")),
        sa.UniqueConstraint("component_id", "number", name=op.f("uq_versions_component_id_number")),
    )


def _workspaces() -> None:
    op.create_table(
        "workspaces",
        sa.Column("id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name=op.f("fk_workspaces_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
    )


def _deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("id", WORD, nullable=False),
        sa.Column("org_id", WORD, nullable=False),
        sa.Column("workspace_id", WORD, nullable=False),
        sa.Column("component_id", WORD, nullable=False),
        sa.Column("version_id", WORD, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("ring_id", WORD, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("activated_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["component_id"], ["components.id"], name=op.f("fk_deployments_component_id")),
        sa.ForeignKeyConstraint(["ring_id"], ["rings.id"], name=op.f("fk_deployments_ring_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_deployments_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
    )
    op.create_index("ix_deployments_component", "deployments", ["component_id", "created_at", "id"], unique=False)
    op.create_index(
        "ix_deployments_workspace", "deployments", ["workspace_id", "created_at", "id", "ring_id"], unique=False
    )
    op.create_index(
        "uq_deployments_active",
        "deployments",
        ["component_id", "ring_id"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )
