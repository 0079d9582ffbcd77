"""What can be executed: components and their immutable, content-addressed versions."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.execution import RetryPolicy
from flow_sdk.wire.injected import InjectedSecret
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.runner import EnvironmentRef, Limits
from flow_sdk.wire.status import Kind

MAX_CODE_BYTES: Final = 256 << 10  # A source file; larger ones are data, and belong into the input.
MAX_DEPENDENCIES: Final = 200
_SLUG: Final = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Component:
    """A named thing of one workspace. `slug` is unique per workspace and kind."""

    id: str
    org_id: str
    workspace_id: str
    kind: Kind
    slug: str
    name: str
    description: str
    tags: tuple[str, ...]
    created_at: datetime
    latest_version: int = 0


@dataclass(frozen=True)
class Definition:
    """The content of a version: everything that decides how it behaves. Two equal definitions are one version."""

    kind: Kind
    code: str
    entry_point: str = "main"
    language: str = "python"
    dependencies: tuple[str, ...] = ()
    timeout_seconds: float | None = None
    retry: RetryPolicy = RetryPolicy()
    limits: Limits = Limits()
    network: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    injected: tuple[InjectedSecret, ...] = ()
    """Secrets that its requests get outside of the container."""

    examples: tuple[dict[str, Any], ...] = ()
    requires_context: bool = False
    graph: dict[str, Any] | None = None
    """The document of a graph workflow, as `graph_document.canonical` gives it; its code is empty then."""

    agent: dict[str, Any] | None = None
    """Of an agent: an `AgentDocument` with all references resolved. Its code only has the type of its output, which
    `entry_point` names."""

    isolation: Isolation | None = None
    """What it must run in at least; None: the default."""

    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the content, as `sha256:...`."""
        content = {
            "kind": self.kind.value,
            "code": self.code,
            "entry_point": self.entry_point,
            "language": self.language,
            "dependencies": sorted(self.dependencies),
            "timeout_seconds": self.timeout_seconds,
            "retry": vars(self.retry),
            "limits": self.limits.model_dump(),
            "network": sorted(self.network),
            "secrets": sorted(self.secrets),
            "examples": list(self.examples),
            "requires_context": self.requires_context,
            # Only where there is one: the digests of versions that were published before there were graphs stay.
            **({} if self.graph is None else {"graph": self.graph}),
            **({"injected": [one.model_dump() for one in self.injected]} if self.injected else {}),
            **({} if self.agent is None else {"agent": self.agent}),
            **({} if self.isolation is None else {"isolation": self.isolation.value}),
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        # An example may hold a lone surrogate: valid in JSON, refused by a strict encoder.
        return "sha256:" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Version:
    """An immutable version of a component, numbered from 1."""

    id: str
    component_id: str
    number: int
    digest: str
    definition: Definition
    created_at: datetime
    environment: EnvironmentRef = EnvironmentRef()
    input_schema: dict[str, Any] = field(default_factory=dict[str, Any])
    output_schema: dict[str, Any] = field(default_factory=dict[str, Any])


def check_slug(slug: str) -> str:
    """Returns the slug.

    Raises:
        InvalidInput: It is not 1 to 63 of a-z, 0-9, `-`, `_`, beginning and ending with a letter or digit.
    """
    if not _SLUG.fullmatch(slug):
        expected = "1 to 63 of a-z, 0-9, '-' and '_', beginning and ending with a letter or digit"
        raise errors.InvalidInput(
            f"slug {slug!r} is not valid: expected {expected}", details=[{"field": "slug", "message": expected}]
        )
    return slug
