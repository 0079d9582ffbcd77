"""What a container gets to see: its subscriptions, and the bytes written to it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Subscription:
    pattern: list[bytes]
    delivered: int = 0
    after: int = 0

    def matches(self, tokens: list[bytes]) -> bool:
        for position, wanted in enumerate(self.pattern):
            if wanted == b">":
                return len(tokens) > position
            if position >= len(tokens) or wanted not in {b"*", tokens[position]}:
                return False
        return len(tokens) == len(self.pattern)


class Outbox:
    """Writes to one connection; nothing before `open` and nothing after the connection is closing."""

    def __init__(self) -> None:
        self.subscriptions: dict[bytes, Subscription] = {}
        self.verbose = False
        self._transport: asyncio.Transport | None = None

    def open(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def subscription_for(self, subject: bytes) -> bytes | None:
        """The first matching subscription only: a container with many overlapping ones must not multiply its input."""
        tokens = subject.split(b".")
        for subscription_id, subscription in self.subscriptions.items():
            if subscription.matches(tokens):
                return subscription_id
        return None

    def send(self, to: bytes, body: bytes, *, named: bytes = b"", reply: bytes = b"", status: bytes = b"") -> None:
        """Sends a message to whoever of this connection subscribes to `to`; nobody else can.

        Args:
            named: The subject shown, if not `to`: JetStream shows the stored message's own.
            status: Follows `NATS/1.0` in the header block; without it there is none.
        """
        subscription_id = self.subscription_for(to) if to else None
        if subscription_id is None:
            return
        subscription = self.subscriptions[subscription_id]
        subscription.delivered += 1
        if subscription.after and subscription.delivered >= subscription.after:
            del self.subscriptions[subscription_id]
        head = b"%b %b%b" % (named or to, subscription_id, b" " + reply if reply else b"")
        if not status:
            self.write(b"MSG %b %d\r\n" % (head, len(body)), body, b"\r\n")
            return
        headers = b"NATS/1.0%b%b\r\n\r\n" % (b"" if status[:1] in {b" ", b"\r"} else b" ", status)
        self.write(b"HMSG %b %d %d\r\n" % (head, len(headers), len(headers) + len(body)), headers, body, b"\r\n")

    def answer(self, reply: bytes, document: dict[str, Any]) -> None:
        self.send(reply, json.dumps(document).encode())

    def error(self, reason: bytes) -> None:
        self.write(b"-ERR '%b'\r\n" % reason.replace(b"'", b""))

    def acknowledge(self) -> None:
        if self.verbose:
            self.write(b"+OK\r\n")

    def write(self, *parts: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(parts)
