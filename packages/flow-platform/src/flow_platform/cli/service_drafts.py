"""Makes of the draft of a service what a file says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from flow_platform.cli.remote import Remote

FIELDS: Final = ("slug", "name", "description", "ring", "endpoints")
"""What a file says of a service."""

_DEFAULTS: Final[dict[str, Any]] = {
    "title": "",
    "description": "",
    "tags": [],
    "request_schema": None,
    "response_schema": None,
    "timeout_seconds": None,
    "async_eligible": False,
    "expose_as_agent_tool": True,
    "tool_description": "",
    "when_to_use": [],
    "auth": "platform",
}
"""What an endpoint is where the file says nothing."""


def service_path(slug: str) -> str:
    from flow_sdk.executions import segment

    return f"/services/{segment('service', slug)}"


def write_draft(remote: Remote, wanted: dict[str, Any], first_ring: str | None = None) -> str:
    """Returns the slug. The published versions stay as they are.

    Args:
        remote: The platform.
        wanted: `FIELDS`; a `ring` is the service's from now on.
        first_ring: Where a service that is new and names no ring begins.
    """
    from flow_platform.cli.remote import Refused

    slug, endpoints = str(wanted["slug"]), cast("list[dict[str, Any]]", wanted.get("endpoints") or [])
    body = {name: wanted[name] for name in ("name", "description") if name in wanted}
    if "ring" in wanted:
        body["ring_id"] = remote.ring_id(str(wanted["ring"]))
    try:
        found = remote.patch(service_path(slug), body)
    except Refused as error:
        if error.error_code != "not_found":
            raise
        if "ring" not in wanted and first_ring is not None:
            body["ring_id"] = remote.ring_id(first_ring)
        found = remote.post("/services", {"slug": slug, **body})[1]
    names = {str(one.get("name")) for one in endpoints}
    existing = {one["name"] for one in found["endpoints"]}
    for name in existing:  # All of them: a new one may have the path of one that goes or changes.
        if name not in names:
            remote.delete(f"{service_path(slug)}/endpoints/{name}")
    for one in endpoints:
        if one.get("name") in existing:
            remote.patch(f"{service_path(slug)}/endpoints/{one['name']}", _DEFAULTS | one)
        else:
            remote.post(f"{service_path(slug)}/endpoints", one)
    return slug
