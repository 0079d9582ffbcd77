"""One field of a cron expression: its bounds, its names, its grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from flow_platform.domain import errors


@dataclass(frozen=True)
class Field:
    """A field's inclusive bounds. The n-th of `names` means the value `lowest + n`."""

    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()

    def expected(self) -> str:
        """The allowed values, for people."""
        named = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        return f"{self.lowest}-{self.highest}{named}"


MINUTE: Final = Field("minute", 0, 59)
HOUR: Final = Field("hour", 0, 23)
DAY_OF_MONTH: Final = Field("day of month", 1, 31)
MONTH: Final = Field(
    "month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
)
DAY_OF_WEEK: Final = Field("day of week", 0, 7, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))
FIELDS: Final = (MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)

_SUNDAY: Final = 7


def parse_field(field: Field, text: str) -> frozenset[int]:
    """The values that a field's text allows; never empty.

    Raises:
        InvalidInput: Names the field, the item that is wrong, and the bounds.
    """
    values: set[int] = set()
    for item in text.split(","):
        values |= _item(field, item)
    return frozenset(values)


def _item(field: Field, item: str) -> set[int]:
    span, slash, step_text = item.partition("/")
    step = _step(field, item, step_text) if slash else 1
    first_text, dash, last_text = span.partition("-")
    if span == "*":
        # Day of week counts 0-6 here, so that a step does not take Sunday twice.
        first, last = field.lowest, 6 if field is DAY_OF_WEEK else field.highest
    elif dash:
        first, last = _value(field, item, first_text), _value(field, item, last_text)
        if field is DAY_OF_WEEK and last == 0 and first > 0:
            last = _SUNDAY  # SAT-SUN: the week ends with it as well.
        if first > last:
            raise _invalid(field, item, f"a range that ascends, within {field.expected()}")
    else:
        first = _value(field, item, span)
        last = field.highest if slash else first
    return set(range(first, last + 1, step))


def _value(field: Field, item: str, text: str) -> int:
    if text.upper() in field.names:
        return field.names.index(text.upper()) + field.lowest
    number = _number(text)
    if number is None or not field.lowest <= number <= field.highest:
        raise _invalid(field, item, field.expected())
    return number


def _step(field: Field, item: str, text: str) -> int:
    number = _number(text)
    if number is None or not 1 <= number <= field.highest:
        raise _invalid(field, item, f"a step of 1-{field.highest}")
    return number


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,4}", text) else None


def _invalid(field: Field, item: str, expected: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"cron field {field.name!r}: {item!r} is not valid: expected {expected}",
        details=[{"field": "cron", "message": f"{field.name}: expected {expected}, got {item!r}"}],
    )
