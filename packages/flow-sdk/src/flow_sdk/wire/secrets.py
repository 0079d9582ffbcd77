"""What is told of secrets and API keys, and how a runner asks for the secrets of one attempt.

Request and reply of a runner are JSON over core NATS, subject `subjects.RUNNER_SECRETS`; the values inside the reply
are sealed for the one that asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import Field

from flow_sdk.wire.execution import Document, ErrorDocument


class SecretDocument(Document):
    """What is told of a secret. `ring_id` null: the value of every ring that has none of its own."""

    name: str
    ring_id: str | None
    version: int
    created_at: datetime
    created_by: str


class ApiKeyDocument(Document):
    """What is told of an API key. `key`: itself, in the answer to its making alone. `workspace_id`: None: of all."""

    id: str
    name: str
    role: str
    workspace_id: str | None = None
    prefix: str
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: datetime | None
    key: str | None = Field(default=None, repr=False)


class SecretsRequest(Document):
    """Asks for what the component of a leased execution needs.

    Attributes:
        public_key: X25519, base64; new for each request.
    """

    runner_id: str
    instance: str
    execution_id: str
    lease_epoch: int
    public_key: str


class SecretsReply(Document):
    """The values, or the error that the attempt ends with. An error that is `retryable`: the attempt is repeated."""

    sealed: str = Field(default="", repr=False)
    error: ErrorDocument | None = None


def secrets_context(execution_id: str, lease_epoch: int) -> bytes:
    """What the sealed values are bound to."""
    return f"{execution_id}/{lease_epoch}".encode()


def encode_secrets(values: Mapping[str, str]) -> bytes:
    """Names and values in turn. Neither can hold a NUL: both go into an environment."""
    return "\0".join(text for item in values.items() for text in item).encode()


def decode_secrets(message: bytes) -> dict[str, str]:
    if not message:
        return {}
    texts = message.decode().split("\0")
    return dict(zip(texts[::2], texts[1::2], strict=True))
