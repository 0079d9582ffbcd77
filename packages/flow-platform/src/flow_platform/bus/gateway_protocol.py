"""The client side of the NATS protocol as bytes in, operations out. No I/O, no opinions about what is allowed.

The other end is a container, that is, anybody. Whatever bytes come, `next_operation` never raises, and the buffer never
holds more than one message and one control line. The first violation is final: after it, everything is ignored.

Source: docs.nats.io, "NATS Protocol"; ADR-4 (headers). Deliberately stricter than nats-server: lines end with CRLF
only, subjects are printable ASCII without empty tokens.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, cast

MAX_CONTROL_LINE_BYTES: Final = 4096  # As in nats-server; also bounds CONNECT's JSON.
MAX_HEADER_BYTES: Final = 64 << 10
MAX_SUBJECT_BYTES: Final = 512

_CRLF: Final = b"\r\n"
_SUBJECT: Final = re.compile(rb"[!-\-/-~]+(?:\.[!-\-/-~]+)*")  # Printable tokens joined by single dots.
_NUMBER: Final = re.compile(rb"[0-9]{1,10}")
_SUBSCRIPTION_ID: Final = re.compile(rb"[A-Za-z0-9]{1,32}")
_HEADER_BLOCK: Final = re.compile(rb"NATS/1\.0[^\r\n]*\r\n(?:[!-9;-~]+:[^\r\n]*\r\n)*\r\n")
_MESSAGE_ID: Final = re.compile(rb"\r\nNats-Msg-Id:[ \t]*([!-~]{1,128})[ \t]*\r\n")


@dataclass(frozen=True, slots=True)
class Connect:
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ping:
    pass


@dataclass(frozen=True, slots=True)
class Pong:
    pass


@dataclass(frozen=True, slots=True)
class Subscribe:
    subject: bytes
    subscription_id: bytes


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """`after`: how many messages in all the subscription may still have had; 0 ends it now."""

    subscription_id: bytes
    after: int


@dataclass(frozen=True, slots=True)
class Publish:
    """A message. Of its headers only the message id is kept: nothing else that a container says in them counts."""

    subject: bytes
    reply: bytes
    body: bytes
    message_id: bytes = b""


@dataclass(frozen=True, slots=True)
class Violation:
    """The bytes are not the protocol, or exceed a limit. The last operation that a parser gives."""

    reason: str


Operation = Connect | Ping | Pong | Subscribe | Unsubscribe | Publish | Violation


@dataclass(frozen=True, slots=True)
class _Announced:
    """A control line whose payload has not arrived completely."""

    subject: bytes
    reply: bytes
    header_bytes: int
    total_bytes: int


class Parser:
    """Parses one connection.

    Args:
        max_payload: Most bytes of one message, headers included.
    """

    def __init__(self, max_payload: int) -> None:
        self._max_payload = max_payload
        self._buffer = bytearray()
        self._position = 0
        self._scanned = 0
        self._announced: _Announced | None = None
        self._ended = False

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    @property
    def announced_bytes(self) -> int:
        """Size of the message that is being received, 0 between messages: what will have to be held soon."""
        return self._announced.total_bytes if self._announced else 0

    def feed(self, data: bytes) -> None:
        """Takes bytes as they came. Call `next_operation` until it returns None before feeding again."""
        if not self._ended:
            self._buffer += data

    def next_operation(self) -> Operation | None:
        """Returns the next complete operation, or None if more bytes are needed."""
        while not self._ended:
            operation = self._message() if self._announced else self._control_line()
            if isinstance(operation, _Announced):
                self._announced = operation
                continue
            if isinstance(operation, Violation):
                self._end()
            if operation is None:
                self._forget_consumed()
            return operation
        return None

    def _end(self) -> None:
        self._ended = True
        self._announced = None
        self._buffer.clear()
        self._position = self._scanned = 0

    def _forget_consumed(self) -> None:
        if self._position:
            del self._buffer[: self._position]
            self._scanned = max(0, self._scanned - self._position)
            self._position = 0

    def _message(self) -> Operation | None:
        announced = self._announced
        if announced is None or len(self._buffer) - self._position < announced.total_bytes + len(_CRLF):
            return None
        start = self._position
        body_start = start + announced.header_bytes
        end = start + announced.total_bytes
        self._announced = None
        self._position = end + len(_CRLF)
        with memoryview(self._buffer) as view:
            if bytes(view[end : end + len(_CRLF)]) != _CRLF:
                return Violation("Unknown Protocol Operation")
            headers = bytes(view[start:body_start])
            if headers and not _HEADER_BLOCK.fullmatch(headers):
                return Violation("Invalid Message Header")
            identified = _MESSAGE_ID.search(headers)
            message_id = identified[1] if identified else b""
            return Publish(announced.subject, announced.reply, bytes(view[body_start:end]), message_id)

    def _control_line(self) -> Operation | _Announced | None:
        # What was searched in vain is not searched again: slow bytes must not cost quadratic time.
        start = max(self._position, self._scanned - 1)
        at = self._buffer.find(_CRLF, start, self._position + MAX_CONTROL_LINE_BYTES + len(_CRLF))
        if at < 0:
            self._scanned = len(self._buffer)
            too_long = len(self._buffer) - self._position > MAX_CONTROL_LINE_BYTES
            return Violation("Maximum Control Line Exceeded") if too_long else None
        line = bytes(self._buffer[self._position : at])
        self._position = self._scanned = at + len(_CRLF)
        return self._interpret(line)

    def _interpret(self, line: bytes) -> Operation | _Announced:
        word, _, rest = line.replace(b"\t", b" ").partition(b" ")
        arguments = rest.split()
        match word.upper(), arguments:
            case b"PING", []:
                return Ping()
            case b"PONG", []:
                return Pong()
            case b"CONNECT", _:
                return _connect(rest)
            case b"PUB", [subject, *reply, total] if len(reply) <= 1:
                return self._publish(subject, reply, b"0", total)
            case b"HPUB", [subject, *reply, header, total] if len(reply) <= 1:
                return self._publish(subject, reply, header, total)
            case b"SUB", [subject, *queue, subscription_id] if len(queue) <= 1:
                return _subscribe(subject, subscription_id)
            case b"UNSUB", [subscription_id, *after] if len(after) <= 1:
                return _unsubscribe(subscription_id, after)
            case _:
                return Violation("Unknown Protocol Operation")

    def _publish(self, subject: bytes, replies: list[bytes], header: bytes, total: bytes) -> Violation | _Announced:
        if not _NUMBER.fullmatch(header) or not _NUMBER.fullmatch(total):
            return Violation("Unknown Protocol Operation")
        header_bytes, total_bytes = int(header), int(total)
        if total_bytes > self._max_payload:
            return Violation("Maximum Payload Violation")
        if header_bytes > min(total_bytes, MAX_HEADER_BYTES):
            return Violation("Invalid Message Header")
        reply = replies[0] if replies else b""
        if not _is_subject(subject) or (reply and not _is_subject(reply)):
            return Violation("Invalid Publish Subject")
        return _Announced(subject, reply, header_bytes, total_bytes)


def _connect(text: bytes) -> Connect | Violation:
    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        return Violation("Authorization Violation")
    if not isinstance(options, dict):
        return Violation("Authorization Violation")
    return Connect(cast("dict[str, Any]", options))


def _subscribe(subject: bytes, subscription_id: bytes) -> Subscribe | Violation:
    if not _is_subject(subject) or not _SUBSCRIPTION_ID.fullmatch(subscription_id):
        return Violation("Invalid Subject")
    return Subscribe(subject, subscription_id)


def _unsubscribe(subscription_id: bytes, after: list[bytes]) -> Unsubscribe | Violation:
    if not _SUBSCRIPTION_ID.fullmatch(subscription_id) or (after and not _NUMBER.fullmatch(after[0])):
        return Violation("Unknown Protocol Operation")
    return Unsubscribe(subscription_id, int(after[0]) if after else 0)


def _is_subject(subject: bytes) -> bool:
    return len(subject) <= MAX_SUBJECT_BYTES and _SUBJECT.fullmatch(subject) is not None
