"""The ports between the statements and the two drivers.

A `Connection` runs queries and controls one transaction at a time. It is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from flow_platform.domain import errors
from flow_platform.store.query import DialectName, Query

Row = tuple[Any, ...]
Parameters = Mapping[str, Any]


class Connection(Protocol):
    """Raises only errors of `failures` and `domain.errors`.

    Attributes:
        failure: The first database error since the transaction (or savepoint) began. The transaction can't go on after
            it, even when the operation swallowed it.
    """

    dialect: DialectName
    failure: errors.FlowError | None

    def rows(self, query: Query, parameters: Parameters) -> Sequence[Row]: ...

    def row(self, query: Query, parameters: Parameters) -> Row | None:
        """The first row."""
        ...

    def run(self, query: Query, parameters: Parameters) -> int:
        """Returns how many rows were written."""
        ...

    def rows_of_each(self, query: Query, parameters: Sequence[Parameters]) -> list[Row]:
        """Runs a query that returns rows once per set of parameters, in order; one round trip where there are any."""
        ...

    def begin(self) -> None: ...

    def savepoint(self) -> None:
        """Begins an operation inside of the transaction; ends the one before, if any, for good."""
        ...

    def rollback_to_savepoint(self) -> None:
        """Undoes the current operation. The savepoint stays."""
        ...

    def commit(self) -> None:
        """Durable when it returns.

        Raises:
            StoreUnavailable: Nothing was written. With the code `commit_unknown`, and only where the database is
                another machine: the answer was lost and could not be asked for again.
        """
        ...

    def rollback(self) -> None: ...

    def close(self) -> None:
        """Never raises."""
        ...


class Database(Protocol):
    """Makes connections to one database."""

    dialect: DialectName

    def prepare(self) -> None:
        """Migrates the schema to today's, making the database where that is possible. Called once, first.

        Raises:
            StoreUnavailable: With what the database said.
        """
        ...

    def connect_writer(self) -> Connection: ...

    def connect_reader(self) -> Connection:
        """Its transactions are snapshots, and write nothing."""
        ...


def checked(parameters: Parameters) -> Parameters:
    """Refuses, on every database, what one of them cannot keep.

    Raises:
        InvalidInput: A text has a NUL in it.
    """
    for name, value in parameters.items():
        if type(value) is str and "\0" in value:
            raise not_storable(name, value)
    return parameters


def not_storable(name: str, value: object) -> errors.InvalidInput:
    expected = "text without NUL and lone surrogates, integers of at most 64 bits"
    return errors.InvalidInput(
        f"{name} {str(value)[:80]!r} cannot be stored: expected {expected}",
        details=[{"field": name, "message": f"expected {expected}"}],
    )


def first_not_storable(parameters: Iterable[Parameters], cause: Exception) -> errors.InvalidInput:
    """Names the parameter that a driver refused before it spoke to the database."""
    for one in parameters:
        for name, value in one.items():
            if isinstance(value, str) and not _is_encodable(value):
                return not_storable(name, value)
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                return not_storable(name, value)
    return errors.InvalidInput(f"a value cannot be stored: {cause}")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
