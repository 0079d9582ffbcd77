"""Cursors of lists: the position of the last item seen, opaque to clients.

A cursor carries no authority: the tenant and the filter come from the request, so a forged one can at worst start the
caller's own list elsewhere. It is checked all the same, because a client that mixes up its cursors should hear of it.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final, cast

from flow_platform.domain import errors

_MAX_LENGTH: Final = 512
_MAX_INTEGER: Final = 2**63 - 1  # What a database compares with.


def encode(table: str, number: int, tie: str) -> str:
    """The position after the item that has this number (an instant, a version) and, among equals, this id."""
    text = json.dumps([table, number, tie], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(table: str, cursor: str) -> tuple[int, str]:
    """Returns number and id.

    Raises:
        InvalidInput: It is not a cursor that `encode` made for this list.
    """
    position = _parse(cursor)
    match position:
        case [str(name), int(number), str(tie)] if (
            name == table
            and not isinstance(number, bool)
            and abs(number) <= _MAX_INTEGER
            and "\0" not in tie
            and encode(name, number, tie) == cursor
        ):
            return number, tie
        case _:
            expected = f"the next_cursor of a list of {table}"
            raise errors.InvalidInput(
                f"cursor {cursor[:80]!r} is not valid: expected {expected}",
                details=[{"field": "cursor", "message": f"expected {expected}"}],
            )


def _parse(cursor: str) -> list[Any] | None:
    if len(cursor) > _MAX_LENGTH:
        return None
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        value: object = json.loads(raw.decode())
    except (binascii.Error, ValueError, RecursionError):
        return None
    return cast("list[Any]", value) if isinstance(value, list) else None
