"""What a database can answer, in words that the writer acts on. Each driver translates its own exceptions into these.

RowConflict        a row is not as the operation assumed: the operation runs again, then the caller is told (Conflict)
ConcurrencyFailure the database gave up a transaction for another one: everything in it runs again
ConnectionLost     the connection is of no use any more: connect anew
StorageFull        (domain) no room
StoreUnavailable   (domain) anything else
"""

from __future__ import annotations

from flow_platform.domain import errors


class RowConflict(errors.Conflict):
    """A row that another transaction changed or made first."""


class ConcurrencyFailure(errors.StoreUnavailable):
    """A serialization failure or a deadlock."""


class ConnectionLost(errors.StoreUnavailable):
    pass
