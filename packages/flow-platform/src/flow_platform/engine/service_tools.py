"""Published services as tools of agents: `service:SLUG`, `service:SLUG/ENDPOINT`, `service:SLUG@VERSION/ENDPOINT`.

An agent freezes what it refers to when it is published; so a tool names the version that was the newest then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.service import Endpoint, PublishedService, Service
from flow_platform.engine.service_input import tool_schema
from flow_platform.engine.skills import tool_description
from flow_platform.engine.tool_references import RESOLVERS
from flow_platform.engine.validation import shown
from flow_platform.store.base import Transaction
from flow_sdk.wire.agent import AgentTool, ToolTarget

PREFIX: Final = "service"
_REFERENCE: Final = re.compile(r"([A-Za-z0-9_-]{1,63})(?:@([0-9]{1,9}))?(?:/([a-z0-9_-]{1,63}))?")


@dataclass(frozen=True)
class ServiceTool:
    """An endpoint as a tool. `input_schema` is of an object, and holds the parameters of the path, too."""

    name: str
    description: str
    input_schema: dict[str, Any]
    service: Service
    version: int
    endpoint: Endpoint

    @property
    def ref(self) -> str:
        """What it is called by, from within a container: service, version, endpoint."""
        return f"{self.service.id}/v{self.version}/{self.endpoint.name}"


def service_tools(
    tx: Transaction, org_id: str, workspace_id: str, id_or_slug: str, version: int | None = None
) -> list[ServiceTool]:
    """The endpoints of a published service that are exposed to agents, in the order of their names.

    Raises:
        NotFound: The workspace has no such service, or it has no such published version.
    """
    service, published = _published(tx, org_id, workspace_id, id_or_slug, version)
    return [tool_of(service, published, each) for each in published.endpoints if each.expose_as_agent_tool]


def tool_of(service: Service, published: PublishedService, endpoint: Endpoint) -> ServiceTool:
    return ServiceTool(
        name=endpoint.name,
        description=tool_description(endpoint),
        input_schema=tool_schema(endpoint),
        service=service,
        version=published.number,
        endpoint=endpoint,
    )


def resolve(tx: Transaction, org_id: str, workspace_id: str, reference: str) -> list[AgentTool]:
    """Implements `tool_references.ToolResolver`. An endpoint that is named need not be exposed."""
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise _invalid(f"'service:{reference}' is no reference: expected 'service:SLUG[@VERSION][/ENDPOINT]'")
    slug, number, name = found.groups()
    try:
        service, published = _published(tx, org_id, workspace_id, slug, int(number) if number else None)
    except errors.NotFound as error:
        raise _invalid(error.message) from error
    if name is None:
        endpoints = [each for each in published.endpoints if each.expose_as_agent_tool]
    else:
        endpoints = [each for each in published.endpoints if each.name == name]
    if not endpoints:
        wanted = f"endpoint {shown(name)}" if name else "endpoint that agents may call"
        raise _invalid(f"version {published.number} of service {service.slug!r} has no {wanted}")
    return [_agent_tool(tool_of(service, published, endpoint)) for endpoint in endpoints]


def _agent_tool(tool: ServiceTool) -> AgentTool:
    made = AgentTool(
        name=tool.name,
        description=tool.description,
        target=ToolTarget.SERVICE,
        ref=tool.ref,
        parameters=tool.input_schema,
    )
    seconds = tool.endpoint.timeout_seconds
    return made if seconds is None else made.model_copy(update={"timeout_seconds": seconds})


def _published(
    tx: Transaction, org_id: str, workspace_id: str, id_or_slug: str, version: int | None
) -> tuple[Service, PublishedService]:
    service = tx.services.find(org_id, id_or_slug)
    if service is None or service.workspace_id != workspace_id:
        raise errors.NotFound(f"service {id_or_slug!r} not found")
    number = service.latest_version if version is None else version
    published = tx.services.find_version(service.id, number)
    if published is None:
        raise errors.NotFound(f"service {service.slug!r} has no published version{f' {number}' if number else ''}")
    return service, published


def _invalid(message: str) -> errors.InvalidInput:
    return errors.InvalidInput(message, code="invalid_tool", details=[{"field": "tools", "message": message}])


RESOLVERS[PREFIX] = resolve
