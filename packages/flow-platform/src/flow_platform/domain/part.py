"""Parts of agents that have names of their own: models, prompts, tools, schemas, states; versioned as components are.

A part is only a value. An agent that refers to one is given its content when the agent is published; what becomes of
the part later changes no version of an agent.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flow_platform.domain import errors

_REFERENCE: Final = re.compile(r"([a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?|[0-9a-f-]{36})(?:@([1-9][0-9]{0,8}))?")


class PartKind(enum.StrEnum):
    MODEL = "model"
    PROMPT = "prompt"
    TOOL = "tool"
    SCHEMA = "schema"
    STATE = "state"

    @property
    def path(self) -> str:
        return self.value + "s"


@dataclass(frozen=True)
class Part:
    """A named part of one workspace. `slug` is unique per workspace and kind."""

    id: str
    org_id: str
    workspace_id: str
    kind: PartKind
    slug: str
    name: str
    description: str
    created_at: datetime
    latest_version: int = 0


@dataclass(frozen=True)
class PartVersion:
    """An immutable version of a part, numbered from 1."""

    part_id: str
    number: int
    digest: str
    content: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class PartRef:
    """`slug` or `slug@version`; without a version the newest is meant."""

    slug: str
    version: int | None = None

    def __str__(self) -> str:
        return self.slug if self.version is None else f"{self.slug}@{self.version}"


def part_ref(text: str) -> PartRef:
    """Raises InvalidInput when it is none."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise errors.InvalidInput(f"reference {text!r} is not valid: expected 'slug' or 'slug@version'")
    return PartRef(match[1], int(match[2]) if match[2] else None)


def digest_of(kind: PartKind, content: dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of the content, as `sha256:...`."""
    canonical = json.dumps([kind.value, content], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
