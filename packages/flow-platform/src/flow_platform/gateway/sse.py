"""Server-sent events, read from bytes as they come.

Source: HTML standard, section 9.2.6 (interpreting an event stream). Fields other than `event` and `data` are not used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_EVENT_BYTES: Final = 1 << 20  # One chunk of a model's answer; usual ones have 300 bytes.
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class SseEvent:
    data: str
    event: str = "message"


class SseParser:
    """Feed it bytes, however they were cut; it gives back the events that they complete.

    An event that the stream ends in the middle of is never given: the standard drops it.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._after_cr = False
        self._at_start = True
        self._event = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> list[SseEvent]:
        """Raises ValueError for an event that is larger than `MAX_EVENT_BYTES`."""
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")  # A CR LF that was cut in two.
        self._rest += data
        if len(self._rest) + self._size > MAX_EVENT_BYTES and not _LINE_END.search(self._rest):
            raise ValueError(f"an event has more than {MAX_EVENT_BYTES} bytes")
        found: list[SseEvent] = []
        start = 0
        for end in _LINE_END.finditer(self._rest):
            event = self._line(bytes(self._rest[start : end.start()]))
            if event is not None:
                found.append(event)
            start = end.end()
        self._after_cr = start == len(self._rest) and self._rest.endswith(b"\r")
        del self._rest[:start]
        return found

    def _line(self, line: bytes) -> SseEvent | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        self._size += len(line)
        if self._size > MAX_EVENT_BYTES:
            raise ValueError(f"an event has more than {MAX_EVENT_BYTES} bytes")
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        return None

    def _dispatch(self) -> SseEvent | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._size = "", [], 0
        return SseEvent("\n".join(data), event) if data else None
