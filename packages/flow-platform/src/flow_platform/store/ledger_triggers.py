"""Triggers that make a table append-only: the database itself refuses to change or delete a row."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy import event

SQLITE: Final = tuple(
    f"CREATE TRIGGER %(table)s_no_{action.lower()} BEFORE {action} ON %(table)s"
    " BEGIN SELECT RAISE(ABORT, '%(table)s is append-only'); END"
    for action in ("UPDATE", "DELETE")
)
POSTGRESQL: Final = (
    "CREATE FUNCTION %(table)s_append_only() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION '%(table)s is append-only' USING ERRCODE = 'restrict_violation'; END $$",
    "CREATE TRIGGER %(table)s_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %(table)s"
    " FOR EACH STATEMENT EXECUTE FUNCTION %(table)s_append_only()",
)


def refuse_changes(table: sa.Table) -> None:
    """Makes the triggers with the table, where the metadata makes it; the migration has them as text of its own."""
    for dialect, statements in (("sqlite", SQLITE), ("postgresql", POSTGRESQL)):
        for statement in statements:
            ddl = sa.DDL(statement).execute_if(dialect=dialect)
            event.listen(table, "after_create", ddl)
