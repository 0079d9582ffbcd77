"""What a component writes to stdout and stderr, as the text of bounded `log` events. Pure.

Bytes come as the pipe gave them: not whole lines, not always text. Decoding is incremental, so a character cut by a
read is whole again; what is no UTF-8 becomes U+FFFD. A line is bounded, so that an endless one cannot hoard memory.
"""

from __future__ import annotations

import codecs
import itertools
from operator import itemgetter
from typing import Final

from flow_platform.runner.redaction import RedactedStream, Redactor
from flow_platform.sandbox.base import LogChunk

MAX_LINE_CHARACTERS: Final = 8 << 10  # Longer lines are split: an event must stay readable and cheap to store.
MAX_EVENT_CHARACTERS: Final = 32 << 10  # Lines of one moment share an event up to here.
SANDBOX_LINE: Final = b"[flow] "  # So begins what the sandbox itself says in a container's log.
MAX_SWITCHES: Final = 64  # Between the streams in one moment; beyond, each stream's lines are put together.


class _Stream:
    """One of the two streams: a decoder and the line that is not finished yet."""

    def __init__(self, redactor: Redactor | None) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._redacted = RedactedStream(redactor) if redactor is not None else None
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> list[str]:
        text = self._decoder.decode(data, final)
        if self._redacted is not None:
            # Where the sandbox cut the log, no rest of a secret will follow.
            cut = self._redacted.feed("", final=True) if data.startswith(SANDBOX_LINE) else ""
            text = cut + self._redacted.feed(text, final=final)
        text = self._rest + text
        lines = text.split("\n")
        self._rest = lines.pop()
        if final and self._rest:
            lines.append(self._rest)
            self._rest = ""
        while len(self._rest) > MAX_LINE_CHARACTERS:
            lines.append(self._rest[:MAX_LINE_CHARACTERS])
            self._rest = self._rest[MAX_LINE_CHARACTERS:]
        return [piece for line in lines for piece in _pieces(line)]


class LogLines:
    """Collects chunks, gives back texts for events, and stops at a bound with a marker.

    Args:
        limit_bytes: Of all text together; what comes later is dropped.
        redactor: Takes secrets out, also those that are cut by a read or a line break.
    """

    def __init__(self, limit_bytes: int, redactor: Redactor | None = None) -> None:
        self._limit = limit_bytes
        self._redactor = redactor
        self._taken = 0
        self._is_full = False
        self._streams: dict[str, _Stream] = {}
        self._pending: list[tuple[str, str]] = []
        self.pending_characters = 0

    def feed(self, chunk: LogChunk) -> None:
        if self._is_full:
            return
        room = self._limit - self._taken
        data = chunk.data[:room]
        self._taken += len(data)
        self._append(chunk.stream, self._stream(chunk.stream).feed(data))
        if len(data) < len(chunk.data):
            self._is_full = True
            self.finish()
            self._append(chunk.stream, [f"[log truncated: more than {self._limit} bytes (limits.log_bytes)]"])

    def finish(self) -> None:
        """Counts the last, unfinished line of each stream as a line."""
        for name, stream in self._streams.items():
            self._append(name, stream.feed(b"", final=True))

    def take(self) -> list[tuple[str, str]]:
        """The texts since the last call, as `(stream, text)` in order; neighbours of one stream are joined.

        A component that writes to both streams in turns would make an event of every line. The two are different
        pipes, so their common order is a guess anyway: it is given up where it costs that much.
        """
        pending, self._pending, self.pending_characters = self._pending, [], 0
        if sum(one[0] != other[0] for one, other in itertools.pairwise(pending)) > MAX_SWITCHES:
            pending.sort(key=itemgetter(0))  # Stable: each stream keeps its own order.
        taken: list[tuple[str, str]] = []
        lines: list[str] = []
        current, size = "", 0
        for name, line in pending:
            if lines and (name != current or size + len(line) > MAX_EVENT_CHARACTERS):
                taken.append((current, "\n".join(lines)))
                lines, size = [], 0
            current = name
            lines.append(line)
            size += len(line) + 1
        if lines:
            taken.append((current, "\n".join(lines)))
        return taken

    def _stream(self, name: str) -> _Stream:
        if name not in self._streams:
            self._streams[name] = _Stream(self._redactor)
        return self._streams[name]

    def _append(self, name: str, lines: list[str]) -> None:
        self._pending.extend((name, line) for line in lines)
        self.pending_characters += sum(map(len, lines)) + len(lines)


def _pieces(line: str) -> list[str]:
    if len(line) <= MAX_LINE_CHARACTERS:
        return [line]
    return [line[at : at + MAX_LINE_CHARACTERS] for at in range(0, len(line), MAX_LINE_CHARACTERS)]
