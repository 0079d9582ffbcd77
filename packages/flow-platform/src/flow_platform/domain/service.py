"""Hosted services: named sets of HTTP endpoints, each answered by a component, in immutable numbered versions."""

from __future__ import annotations

import enum
import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from flow_platform.domain.service_path import parameters_of, shape_of
from flow_sdk.wire.status import Kind

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
WITHOUT_BODY: Final = frozenset({"GET", "DELETE"})
IDEMPOTENT: Final = frozenset({"GET", "PUT", "DELETE"})  # RFC 9110, section 9.2.2.
MAX_ENDPOINTS: Final = 100  # Of one service; all of them are in one artifact.
MAX_SERVICES: Final = 500  # Of one workspace.
MAX_TOKENS: Final = 50  # Of one service.
MAX_SCHEMA_BYTES: Final = 64 << 10  # As JSON.
MAX_TIMEOUT_SECONDS: Final = 24 * 3600.0  # Of one call; a synchronous one holds a connection for so long.
TOKEN_PREFIX: Final = "fls_"  # noqa: S105 - not a token, but how each begins.
TOKEN_SHOWN_CHARACTERS: Final = len(TOKEN_PREFIX) + 6
DEFAULT_TOKEN_LIFE: Final = timedelta(days=90)
MAX_TOKEN_LIFE: Final = timedelta(days=366)
_TOKEN: Final = re.compile(r"fls_[A-Za-z0-9_-]{43}")  # 32 random bytes in base64.


class AuthMode(enum.StrEnum):
    """Who may call an endpoint. A credential of the platform that may submit may call each."""

    PLATFORM = "platform"
    SERVICE_TOKEN = "service_token"  # noqa: S105
    PUBLIC = "public"


@dataclass(frozen=True)
class Service:
    """A named service of one workspace.

    Attributes:
        slug: Unique in the organization, because the addresses of a service name no workspace.
        ring_id: Where its endpoints run.
        latest_version: 0 while it is a draft only.
    """

    id: str
    org_id: str
    workspace_id: str
    slug: str
    name: str
    description: str
    ring_id: str
    created_at: datetime
    created_by: str
    updated_at: datetime
    latest_version: int = 0


@dataclass(frozen=True)
class Endpoint:
    """One method of one path, and the component that answers it.

    Attributes:
        name: Unique in the service; what tools and skills are called by.
        component: Slug or id, as it was declared.
        component_id: Which one that was when the version was published; empty in a draft.
        request_schema: Of the whole input, parameters of the path included; None: that of the component.
        timeout_seconds: None: the component's own.
    """

    id: str
    name: str
    method: str
    path: str
    kind: Kind
    component: str
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    request_schema: dict[str, Any] | None = None
    response_schema: dict[str, Any] | None = None
    timeout_seconds: float | None = None
    async_eligible: bool = False
    expose_as_agent_tool: bool = True
    tool_description: str = ""
    when_to_use: tuple[str, ...] = ()
    auth: AuthMode = AuthMode.PLATFORM
    component_id: str = ""

    @property
    def shown_title(self) -> str:
        return self.title or self.name.replace("-", " ").replace("_", " ").capitalize()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Of its path."""
        return parameters_of(self.path)

    @property
    def place(self) -> tuple[str, tuple[str | None, ...]]:
        """What no other endpoint of the service has."""
        return self.method, shape_of(self.path)

    @property
    def schema(self) -> dict[str, Any]:
        """Of the whole input; of a published endpoint it is always there."""
        return self.request_schema or {}


@dataclass(frozen=True)
class PublishedService:
    """An immutable version, numbered from 1.

    Attributes:
        digest: SHA-256 of what was published, as `sha256:...`.
        skills: The artifact, as it is served.
    """

    service_id: str
    number: int
    digest: str
    name: str
    description: str
    endpoints: tuple[Endpoint, ...]
    created_at: datetime
    created_by: str
    skills: bytes = field(repr=False)
    checksum: str = ""


@dataclass(frozen=True)
class ServiceToken:
    """What is kept of a token: not the token.

    Attributes:
        shown: Its first characters.
        digest: SHA-256, hexadecimal; see `api_key.ApiKey` for why that is enough.
        last_used_at: Give or take a minute.
    """

    id: str
    service_id: str
    name: str
    shown: str
    digest: str = field(repr=False)
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: datetime | None = None


def is_service_token(text: str) -> bool:
    """Whether it has the form of one: what has not is not looked for."""
    return _TOKEN.fullmatch(text) is not None


def canonical(value: Any) -> bytes:
    """JSON that is the same for equal values: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # A schema may hold a lone surrogate: valid in JSON, refused by a strict encoder.
    return text.encode("utf-8", "surrogatepass")


def checksum(value: Any) -> str:
    """SHA-256 of the canonical JSON, as `sha256:...`."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def skill_name(name: str) -> str:
    """The name as skill folders are named: letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
