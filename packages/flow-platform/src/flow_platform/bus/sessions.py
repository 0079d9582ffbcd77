"""What the gateway asks of the attempt behind a connection. The runner implements it."""

from __future__ import annotations

from typing import Literal, Protocol

MessageKind = Literal["output", "events", "status"]
Tried = Literal["CONNECT", "PUB", "SUB"]
DenialCode = Literal["unauthenticated", "token_invalid", "token_revoked", "forbidden", "rate_limited"]
"""As the API calls it: nothing offered, not this session's token, the attempt has ended, not allowed, too many."""


class GatewaySession(Protocol):
    """One attempt of one execution. A connection sees this session and nothing else."""

    @property
    def execution_id(self) -> str:
        """As it stands in the subjects: `exec.input.{execution_id}`."""
        ...

    def check(self, token: str) -> bool:
        """Whether the token is this session's. Compares in constant time; called once per connection."""
        ...

    async def input(self) -> bytes:
        """The body of `exec.input.{execution_id}`. Called as often as the container asks."""
        ...

    async def publish(self, kind: MessageKind, body: bytes) -> int:
        """Takes a message of the container and returns the stream's sequence number once it is stored.

        Calls of one connection start in the order of the messages, but do not wait for each other.

        Raises:
            FlowError: Refused. The container gets the error's message and HTTP status as a JetStream error.
        """
        ...

    def denied(self, tried: Tried, code: DenialCode, subject: str = "") -> None:
        """Is told of what the gateway did not allow, as often as the container tries it. Must be cheap."""
        ...
