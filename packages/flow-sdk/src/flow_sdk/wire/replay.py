"""How a call of a workflow is known when it is made again, and what its container says of its calls.

A call is known by what is called with what (`call_key`, `checkpoint_key`), and by how often before: its occurrence.
Any client may leave it to the platform to count. Our harness says more with a request, in the header `X-Flow-Replay`:

    occurrence=N   how many equal calls this attempt made before this one
    after=N        asks for the ended calls behind call N of the earlier attempts, see `wire.durable.AheadDocument`
    made=1-9,12    calls that it was given ahead and that its code has made since
    over           of those that it was given ahead, its code makes no others

An answer to `after` is an offer: whoever does not take it up makes the calls, and is answered as always.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

HEADER: Final = "X-Flow-Replay"
MAX_RANGES: Final = 100  # Said with one request: a header stays below the 8 KiB that servers commonly take.

_NUMBER: Final = "[0-9]{1,9}"
_WORDS: Final = re.compile(rf"(?:(occurrence|after)=({_NUMBER})|(made)=([0-9,-]+)|(over))")
_RANGE: Final = re.compile(rf"({_NUMBER})(?:-({_NUMBER}))?")


@dataclass(frozen=True)
class Told:
    """What the header says. `made`: from the first to the last of a range, both included."""

    occurrence: int | None = None
    after: int | None = None
    made: tuple[tuple[int, int], ...] = ()
    is_over: bool = False

    def __str__(self) -> str:
        words = [f"{name}={value}" for name in ("occurrence", "after") if (value := getattr(self, name)) is not None]
        if self.made:
            words.append("made=" + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.made))
        return "; ".join([*words, "over"] if self.is_over else words)


def parse(text: str) -> Told:
    """Reads the header.

    Raises:
        ValueError: It is none.
    """
    found: dict[str, Any] = {}
    for word in filter(None, (part.strip() for part in text.split(";"))):
        matched = _WORDS.fullmatch(word)
        if matched is None:
            raise ValueError(word)
        name, number, made, ranges, over = matched.groups()
        if name:
            found[name] = int(number)
        elif made:
            found["made"] = _parse_ranges(ranges)
        elif over:
            found["is_over"] = True
    return Told(**found)


def ranges_of(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """The lowest of the numbers as ranges, as many as one header says."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = found[-1][0], number
        elif len(found) == MAX_RANGES:
            break
        else:
            found.append((number, number))
    return tuple(found)


def numbers_in(ranges: Iterable[tuple[int, int]]) -> Iterable[int]:
    return itertools.chain.from_iterable(range(first, last + 1) for first, last in ranges)


def content_of(input_data: Any, config: Any, messages: Any, state: Any) -> str:
    """What is called with, as one text: equal for equal values, whatever the order of their keys."""
    return json.dumps([input_data, config, messages, state], sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def call_key(kind: str, component_id: str, content: str) -> str:
    """The digest of what is called with what: of one list, of which `content_of` is the end."""
    canonical = f"[{json.dumps(kind)},{json.dumps(component_id)},{content[1:]}"
    return hashlib.sha256(canonical.encode()).hexdigest()


def checkpoint_key(kind: str, name: str, seconds: float | None) -> str:
    """The same for a checkpoint. How long to wait belongs to it: `sleep(5)` and `sleep(6)` are two different calls."""
    canonical = json.dumps(["checkpoint", kind, name, seconds])
    return hashlib.sha256(canonical.encode()).hexdigest()


def _parse_ranges(text: str) -> tuple[tuple[int, int], ...]:
    parts = text.split(",")
    if len(parts) > MAX_RANGES:
        raise ValueError(f"{len(parts)} ranges")
    found: list[tuple[int, int]] = []
    for part in parts:
        matched = _RANGE.fullmatch(part)
        if matched is None:
            raise ValueError(part)
        found.append((int(matched[1]), int(matched[2] or matched[1])))
    return tuple(found)
