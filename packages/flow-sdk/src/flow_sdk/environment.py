"""What a client takes from the environment of its container. Source: the client contract, sections 1 and 4."""

from __future__ import annotations

import os
from typing import Final
from uuid import UUID

DEFAULT_TIMEOUT_SECONDS: Final = 300.0


def identifier(given: str | UUID | None, variable: str) -> str | None:
    """An id: the argument, also an empty one, wins over the environment; an empty one is none."""
    value = os.environ.get(variable) if given is None else given
    return None if value is None else str(value).strip() or None


def timeout(given: float | None) -> float:
    """Seconds for one attempt: the argument, `PLATFORM_API_TIMEOUT`, or 300.

    Raises:
        ValueError: It is not a positive number.
    """
    variable = os.environ.get("PLATFORM_API_TIMEOUT")
    source, value = ("timeout", given) if given is not None else ("PLATFORM_API_TIMEOUT", variable)
    if not value and given is None:
        return DEFAULT_TIMEOUT_SECONDS
    try:
        seconds = float(value or 0)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"{source} {value!r} is not valid: expected a positive number of seconds")
    return seconds


def billing_headers() -> dict[str, str]:
    named = {"X-Parent-Billing-Txn-Id": "PARENT_BILLING_TXN_ID", "X-Lifecycle-Event": "LIFECYCLE_EVENT"}
    return {header: value for header, variable in named.items() if (value := os.environ.get(variable))}


def is_own(base_url: str, token: str) -> bool:
    """Whether they are those of the execution that this code runs in."""
    own_url, own_token = os.environ.get("PLATFORM_API_URL"), os.environ.get("AUTH_TOKEN")
    return bool(own_url) and base_url.rstrip("/") == (own_url or "").rstrip("/") and token == own_token


def workspace_path() -> str:
    """Of the workspace of the execution that this code runs in."""
    return f"/api/v1/orgs/{os.environ.get('ORG_ID', '')}/workspaces/{os.environ.get('WORKSPACE_ID', '')}"
