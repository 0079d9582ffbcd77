"""Instants that clients name: ISO 8601 with an offset, so that no zone has to be guessed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from flow_platform.engine.validation import invalid

EXPECTED: Final = "a time of ISO 8601 with its offset, such as '2026-12-01T08:00:00+01:00'"
_LONGEST: Final = 40  # Characters: microseconds and offset included.


def instant(value: object) -> datetime:
    """An instant in UTC.

    Raises:
        ValueError: It is no text of that form.
    """
    if isinstance(value, str) and len(value) <= _LONGEST:
        try:
            found = datetime.fromisoformat(value)
            if found.tzinfo is not None:
                return found.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"expected {EXPECTED}")


def parse_instant(field: str, value: object) -> datetime:
    """The same, of a named field.

    Raises:
        InvalidInput: It is no text of that form.
    """
    try:
        return instant(value)
    except ValueError:
        raise invalid(field, value, EXPECTED) from None
