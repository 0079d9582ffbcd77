"""The port to a kind of provider, in the words of OpenAI's chat completions, and how failures are told apart."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from flow_platform.domain import errors
from flow_platform.gateway.providers import Target

Json = dict[str, Any]

MAX_MESSAGE: Final = 500  # Characters of what a provider says about its refusal.
_TRANSIENT: Final = frozenset({408, 409, 425, 429})
_KEY_LIKE: Final = re.compile(r"\b(?:sk|pk|key|AIza|gsk|xai)[-_A-Za-z0-9*.]{8,}")
_NO_SCRIPTS: Final[Mapping[str, object]] = {}


@dataclass(frozen=True)
class UpstreamCall:
    """One request to a provider.

    Attributes:
        body: As the caller sent it.
        key: Never shown: not in this record's text, not in errors, not in logs.
        trial: Which try of the call it is, from 1.
        scripts: Of the `test` provider, by name.
    """

    target: Target
    body: Json
    key: str | None = field(default=None, repr=False)
    trial: int = 1
    scripts: Mapping[str, object] = field(default_factory=lambda: _NO_SCRIPTS, repr=False)


class Adapter(Protocol):
    """Speaks with one kind of provider. All raise `UpstreamFailed`, `UpstreamRefused` and `NotFound`."""

    def stream(self, call: UpstreamCall) -> AsyncGenerator[Json]:
        """The chunks (`chat.completion.chunk`) as they come, usage with or behind the last one.

        Raises:
            UpstreamFailed: Also when the stream ends before the answer does.
        """
        ...

    async def complete(self, call: UpstreamCall) -> Json:
        """A `chat.completion`."""
        ...

    async def embed(self, call: UpstreamCall) -> Json: ...

    async def list_models(self, call: UpstreamCall) -> list[str]:
        """The provider's own list, by the names that calls use."""
        ...


def failure_of_status(
    target: Target, status: int, message: str, retry_after: float | None = None, key: str | None = None
) -> errors.FlowError:
    """What an HTTP status of a provider means; 0: the connection broke."""
    who = f"provider {target.provider.name!r}"
    said = f": {shown(message, key)}" if message else ""
    match status:
        case 0:
            return errors.UpstreamFailed(f"the connection to {who} broke{said}")
        case 401 | 403:  # What it says about the key is not repeated: some show parts of it.
            return errors.UpstreamRefused(
                f"{who} refused its key with {status}",
                code="model_key_refused",
                hint=f"check the secret {target.provider.key_name!r}",
                helps_elsewhere=True,
            )
        case 404:
            return errors.UpstreamRefused(
                f"{who} answered 404 for model {target.model!r}{said}", code="model_unavailable", helps_elsewhere=True
            )
        case 429:
            return errors.UpstreamRateLimited(f"{who} answered 429{said}", retry_after=retry_after)
        case _ if status >= 500 or status in _TRANSIENT:
            return errors.UpstreamFailed(f"{who} answered {status}{said}", retry_after=retry_after)
        case _ if status >= 400:
            return errors.UpstreamRefused(f"{who} answered {status}{said}")
        case _:
            return errors.UpstreamFailed(f"{who} answered {status}: expected 200", is_transient=False)


def shown(text: str, key: str | None) -> str:
    """What a provider said, bounded, in one line, without anything like a key."""
    if key:
        text = text.replace(key, "...")
    text = _KEY_LIKE.sub("...", text)
    return " ".join(text.split())[:MAX_MESSAGE]
