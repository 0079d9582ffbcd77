"""Triggers of the audit log: no entry is changed, and none deleted but those that the log's head says are removed."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy import event

SQLITE: Final = (
    "CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries"
    " BEGIN SELECT RAISE(ABORT, 'audit_entries is append-only'); END",
    "CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries"
    " WHEN OLD.sequence > coalesce((SELECT removed_to FROM audit_heads WHERE org_id = OLD.org_id), 0)"
    " BEGIN SELECT RAISE(ABORT, 'audit_entries is append-only'); END",
)
POSTGRESQL: Final = (
    "CREATE FUNCTION audit_entries_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF TG_OP = 'DELETE' THEN"
    " IF OLD.sequence <= (SELECT removed_to FROM audit_heads WHERE org_id = OLD.org_id) THEN RETURN OLD; END IF;"
    " END IF;"
    " RAISE EXCEPTION 'audit_entries is append-only' USING ERRCODE = 'restrict_violation'; END $$",
    "CREATE TRIGGER audit_entries_append_only BEFORE UPDATE OR DELETE ON audit_entries"
    " FOR EACH ROW EXECUTE FUNCTION audit_entries_append_only()",
    "CREATE TRIGGER audit_entries_no_truncate BEFORE TRUNCATE ON audit_entries"
    " FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_append_only()",
)


def protect(table: sa.Table) -> None:
    """Makes the triggers with the table, where the metadata makes it; the migration has them as text of its own."""
    for dialect, statements in (("sqlite", SQLITE), ("postgresql", POSTGRESQL)):
        for statement in statements:
            event.listen(table, "after_create", sa.DDL(statement).execute_if(dialect=dialect))
