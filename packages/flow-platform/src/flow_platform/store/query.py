"""One statement, written once in SQLAlchemy Core at module level, compiled once per database.

The hot path then hands a finished text and a dict of parameters to the driver: nothing is built, hashed or looked up
per call. Measured on the reference machine, that is a fifth of the time of executing the same construct through
SQLAlchemy's engine, and the texts of both databases still come from one source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import Table
from sqlalchemy.sql import ClauseElement

DialectName = Literal["sqlite", "postgresql"]
Upsert = Callable[[Any], ClauseElement]

_DIALECTS: Final[dict[DialectName, Dialect]] = {
    "sqlite": sqlite.dialect(paramstyle="named"),
    "postgresql": psycopg.dialect(),
}


class Query:
    """A statement with named parameters.

    Attributes:
        name: For plans and errors.
    """

    def __init__(self, name: str, statement: ClauseElement) -> None:
        self.name = name
        self._statement = statement
        self._compiled: dict[DialectName, tuple[str, dict[str, Any]]] = {}

    def text(self, dialect: DialectName) -> tuple[str, dict[str, Any]]:
        """The SQL, and the values of parameters that are part of the statement itself (such as an OFFSET of 0)."""
        found = self._compiled.get(dialect)
        if found is None:
            # Two threads may both get here; they write the same.
            compiled = self._in(dialect).compile(dialect=_DIALECTS[dialect])
            constants = {name: value for name, value in (compiled.params or {}).items() if value is not None}
            found = self._compiled[dialect] = (str(compiled), constants)
        return found

    def _in(self, dialect: DialectName) -> ClauseElement:
        del dialect
        return self._statement


class UpsertQuery(Query):
    """An INSERT ... ON CONFLICT: the same text in both databases, a construct of its own in each of SQLAlchemy's."""

    def __init__(self, name: str, table: Table, build: Upsert) -> None:
        super().__init__(name, build(sqlite.insert(table)))
        self._table = table
        self._build = build

    def _in(self, dialect: DialectName) -> ClauseElement:
        return self._build(postgresql.insert(self._table)) if dialect == "postgresql" else self._statement
