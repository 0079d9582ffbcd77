"""What a client registers of an MCP server: validated to the last field, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from flow_platform.domain.destination import parse_destination, shown_host
from flow_platform.domain.mcp_server import check_name
from flow_platform.domain.variable_names import check_variable
from flow_platform.engine.closed import Closed
from flow_platform.engine.publish_request import MAX_HOSTS, Requirements, Text
from flow_platform.engine.publish_secrets import MAX_SECRETS
from flow_sdk.mcp.calls import SECRET
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.mcp import McpSettings, McpTransport

MAX_URL: Final = 2_000
MAX_HEADERS: Final = 50
MAX_WORDS: Final = 100  # Of a command.
MAX_TEXT: Final = 4_000  # Of one word, header or variable.
MAX_SECONDS: Final = 3_600.0
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS: Final = frozenset(
    {"host", "content-length", "content-type", "accept", "connection", "transfer-encoding", "upgrade", "te", "trailer"}
)
_CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"})
_PORTS: Final = {"http": 80, "https": 443}


def _header_value(value: str) -> str:
    if not value.isprintable() or not value.isascii():
        raise ValueError("expected printable ASCII")
    return value


def _destination(value: str) -> str:
    return str(parse_destination(value))


def _list_if_none(value: object) -> object:
    return [] if value is None else value


_Names = BeforeValidator(_list_if_none)
_Variable = Annotated[str, AfterValidator(check_variable)]


class McpServerRequest(Closed):
    """An MCP server: `url`, or `command`. In `url`, `headers`, `command` and `env`, `${NAME}` stands for a secret."""

    name: Annotated[str, Field(max_length=63), AfterValidator(check_name)]
    url: Annotated[Text, Field(max_length=MAX_URL)] | None = Field(None, description="Of streamable HTTP.")
    headers: dict[str, Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_header_value)]] = Field(
        {}, max_length=MAX_HEADERS, description="Of each request to `url`."
    )
    command: Annotated[
        list[Annotated[Text, Field(min_length=1, max_length=MAX_TEXT)]], Field(max_length=MAX_WORDS), _Names
    ] = Field([], description="A program and its arguments, that speaks over standard input and output.")
    packages: Requirements = Field((), strict=False, description="That `command` needs: requirements of PyPI.")
    env: dict[_Variable, Annotated[Text, Field(max_length=MAX_TEXT)]] = Field(
        {}, max_length=MAX_SECRETS, description="Variables of `command`."
    )
    secrets: Annotated[list[_Variable], Field(max_length=MAX_SECRETS), _Names] = Field(
        [], description="Secrets that are variables of `command` as they are."
    )
    network: Annotated[list[Annotated[str, AfterValidator(_destination)]], Field(max_length=MAX_HOSTS), _Names] = Field(
        [], description="Where `command` may connect to."
    )
    timeout_seconds: float = Field(60.0, gt=0, le=MAX_SECONDS, description="For the answer to one request.")
    memory_bytes: int | None = Field(None, ge=16 << 20, le=64 << 30)
    isolation: Annotated[Isolation, Field(strict=False)] | None = Field(None, description="Of a call's container.")
    ring_id: str | None = Field(None, max_length=63, description="Where its tools are asked for.")

    @model_validator(mode="after")
    def _check(self) -> McpServerRequest:
        if (self.url is None) == (not self.command):
            raise ValueError("expected url or command: one of them")
        only = ("headers",) if self.url is None else ("packages", "env", "secrets", "network")
        for name in only:
            if getattr(self, name):
                raise ValueError(f"{name} goes with {'url' if self.url is None else 'command'} only")
        if self.url is not None:
            _parsed(self.url)
        for name, value in self.headers.items():
            _check_header(name, value)
        for secret in secret_names(self.settings()):
            check_variable(secret)
        return self

    def settings(self) -> McpSettings:
        """As they are kept."""
        return McpSettings(
            transport=McpTransport.STDIO if self.url is None else McpTransport.HTTP,
            url=self.url,
            headers=self.headers,
            command=self.command,
            packages=list(self.packages),
            env=self.env,
            secrets=self.secrets,
            network=self.network,
            timeout_seconds=self.timeout_seconds,
            memory_bytes=self.memory_bytes,
            isolation=self.isolation,
        )


def secret_names(settings: McpSettings) -> list[str]:
    """All that are named anywhere."""
    texts = [settings.url or "", *settings.headers.values(), *settings.command, *settings.env.values()]
    return sorted({*settings.secrets, *_named(texts)})


def destinations(settings: McpSettings) -> list[str]:
    """Where a container that speaks to the server may connect to."""
    if settings.url is None:
        return settings.network
    return [_destination_of(_parsed(settings.url))]


def _named(texts: Iterable[str]) -> set[str]:
    return {name for text in texts for name in SECRET.findall(text)}


def _parsed(url: str) -> SplitResult:
    """Raises ValueError when it is no address that can be declared."""
    expected = "expected url to be 'https://HOST/PATH' or 'http://HOST:PORT/PATH'"
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{expected}, in printable ASCII without spaces")
    try:
        parts = urlsplit(url)
        _destination_of(parts)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{expected}: {error}") from None
    if "@" in parts.netloc or parts.fragment:
        raise ValueError(f"{expected}, without user and fragment")
    return parts


def _destination_of(parts: SplitResult) -> str:
    """Raises ValueError or KeyError when it names no host, or no scheme that we speak."""
    return str(parse_destination(f"{shown_host(parts.hostname or '')}:{parts.port or _PORTS[parts.scheme]}"))


def _check_header(name: str, value: str) -> None:
    lower = name.lower()
    if not _HEADER.fullmatch(name) or lower in _OURS or lower.startswith("mcp-"):
        raise ValueError(f"header {name!r} cannot be set: expected a name that is not the protocol's own")
    if lower in _CREDENTIALS and not SECRET.search(value):
        raise ValueError(f"header {name!r} holds a credential: expected a secret in it, such as 'Bearer ${{MY_TOKEN}}'")
