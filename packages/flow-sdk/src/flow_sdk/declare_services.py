"""Declaring services: records that say which component answers which HTTP endpoint.

@code_block
def note_order(order_id: int, note: str) -> dict: ...

shop = service(
"shop", name="Shop",
endpoints=[endpoint(note_order, "POST", "/orders/{order_id}/notes", async_eligible=True)],
)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flow_sdk.declare import Declared, check_slug, check_timeout
from flow_sdk.declare_agents import AgentDeclaration, ref_of
from flow_sdk.wire.status import Kind

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
AUTH_MODES: Final = ("platform", "service_token", "public")


@dataclass(frozen=True)
class EndpointDeclaration:
    """A declared endpoint. `ref`: the component that answers, as `kind/slug`."""

    ref: str
    method: str
    path: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def publish_body(self) -> dict[str, Any]:
        """As an endpoint is drafted over HTTP; defaults are left to the platform."""
        kind, _, slug = self.ref.partition("/")
        body = {"name": self.name, "method": self.method, "path": self.path, "component": {"kind": kind, "slug": slug}}
        return {**body, **self.options}


@dataclass(frozen=True)
class ServiceDeclaration:
    """A declared service. It is only a record: what answers are the components.

    Attributes:
        ring: Where its components run; None: where it was published first.
    """

    slug: str
    name: str
    description: str = ""
    ring: str | None = None
    endpoints: tuple[EndpointDeclaration, ...] = ()

    @property
    def ref(self) -> str:
        """How agents take all of it as tools."""
        return f"service:{self.slug}"

    def publish_body(self) -> dict[str, Any]:
        """As in a file for `flow service publish`."""
        body: dict[str, Any] = {
            "slug": self.slug,
            "name": self.name,
            "description": self.description,
            "endpoints": [endpoint.publish_body() for endpoint in self.endpoints],
        }
        return body if self.ring is None else {**body, "ring": self.ring}


def endpoint(
    component: Declared[..., Any] | AgentDeclaration | str,
    method: str,
    path: str,
    *,
    name: str | None = None,
    title: str = "",
    description: str = "",
    tags: Sequence[str] = (),
    request_schema: Mapping[str, Any] | None = None,
    response_schema: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
    async_eligible: bool = False,
    expose_as_agent_tool: bool = True,
    tool_description: str = "",
    when_to_use: Sequence[str] = (),
    auth: str = "platform",
) -> EndpointDeclaration:
    """Declares an endpoint of a service.

    Args:
        component: What answers: a declared function, an agent, or `kind/slug`.
        method: GET, POST, PUT, PATCH or DELETE.
        path: Such as `/orders/{order_id}`.
        name: What skills, tools and `flow service call` use; default: the component's slug.
        title: For people; default: made from the name.
        description: For people and agents; default: the component's.
        tags: For finding it.
        request_schema: JSON Schema of the whole input; default: the component's.
        response_schema: JSON Schema of the output, which is held against it; default: the component's.
        timeout_seconds: Of one call; default: the component's.
        async_eligible: It may be called without waiting for it.
        expose_as_agent_tool: Agents that take the whole service get it.
        tool_description: What their model is told; default: the description.
        when_to_use: Hints for agents.
        auth: Who may call: `platform`, `service_token` or `public`.

    Raises:
        ValueError: An option has no meaning.
    """
    ref = ref_of(component)
    kind, _, slug = ref.partition("/")
    if not slug or kind not in {one.value for one in Kind}:
        raise ValueError(f"component {ref!r}: expected kind/slug, with {', '.join(one.value for one in Kind)}")
    if method.upper() not in METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    if not path.startswith("/"):
        raise ValueError(f"path {path!r}: expected one that begins with '/'")
    if auth not in AUTH_MODES:
        raise ValueError(f"auth {auth!r}: expected one of {', '.join(AUTH_MODES)}")
    check_timeout(timeout_seconds, None)
    options: dict[str, Any] = {
        "title": title,
        "description": description,
        "tags": list(tags),
        "request_schema": None if request_schema is None else dict(request_schema),
        "response_schema": None if response_schema is None else dict(response_schema),
        "timeout_seconds": timeout_seconds,
        "async_eligible": async_eligible,
        "tool_description": tool_description,
        "when_to_use": list(when_to_use),
    }
    given = {key: value for key, value in options.items() if value not in (None, "", [], False)}
    if not expose_as_agent_tool:
        given["expose_as_agent_tool"] = False
    if auth != AUTH_MODES[0]:
        given["auth"] = auth
    return EndpointDeclaration(ref, method.upper(), path, check_slug(name or slug), given)


def service(
    slug: str,
    *,
    endpoints: Sequence[EndpointDeclaration],
    name: str | None = None,
    description: str = "",
    ring: str | None = None,
) -> ServiceDeclaration:
    """Declares a service.

    Args:
        slug: Names it in its organization, and in its addresses.
        endpoints: What it answers, each made with `endpoint(...)`.
        name: For people; default: the slug.
        description: For people and agents.
        ring: Where its components run, from each publish on; default: the ring that it was published to first.

    Raises:
        ValueError: Two endpoints have the same name, or the same method and path; or there is none.
    """
    if not endpoints:
        raise ValueError(f"service {slug!r} has no endpoints: expected at least one")
    for what, keys in (
        ("the name", [one.name for one in endpoints]),
        ("method and path", [f"{one.method} {one.path}" for one in endpoints]),
    ):
        twice = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
        if twice is not None:
            raise ValueError(f"service {slug!r}: two endpoints have {what} {twice!r}: expected different ones")
    return ServiceDeclaration(check_slug(slug), name or slug, description, ring, tuple(endpoints))
