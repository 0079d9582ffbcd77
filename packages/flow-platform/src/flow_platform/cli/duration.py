"""Durations as people write them: `90`, `90s`, `10m`, `1h30m`, `2d`."""

from __future__ import annotations

import re
from typing import Final

from flow_platform.domain.errors import InvalidInput

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])")
_NUMBER: Final = re.compile(r"\d{1,9}(?:\.\d{1,6})?")


def parse_duration(option: str, text: str) -> float:
    """Returns seconds.

    Raises:
        InvalidInput: It is no duration; names the option.
    """
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInput(f"{option} {text!r}: expected a duration such as 90s, 10m, 1h30m or 2d")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def shown_duration(seconds: float) -> str:
    """The shortest of these forms."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"
