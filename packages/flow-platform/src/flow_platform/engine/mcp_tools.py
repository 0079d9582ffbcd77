"""What a ring of a workspace offers to MCP clients: its components and the endpoints of its published services.

Names are stable: `KIND__SLUG` and `service__SLUG__ENDPOINT`, cut with a digest where models would not take them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.component import Component, Version
from flow_platform.domain.mcp_server import COMPONENT_PREFIX, MCP_TAG
from flow_platform.domain.principal import Action, Principal
from flow_platform.domain.release import Ring
from flow_platform.domain.service import PublishedService, Service
from flow_platform.engine.releases import check_workspace, find_ring, require_not_execution
from flow_platform.engine.service_calls import Opened
from flow_platform.engine.service_tools import ServiceTool, tool_of
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.status import Kind

MAX_TOOLS: Final = 500  # Of one list; more are of no use to any model.
MAX_NAME: Final = 64  # Characters that models' providers take.
PAGE: Final = 200
SEPARATOR: Final = "__"
INPUT: Final = "input"
"""The argument that stands for an input which is no object."""

_DIGEST: Final = 8


@dataclass(frozen=True)
class McpTool:
    """Attributes:
    is_wrapped: The component's input is the argument `input`.
    version: Of the component that the list describes; a call runs what is deployed then.
    service: With the endpoint, in the place of a component.
    """

    name: str
    title: str
    description: str
    input_schema: dict[str, Any]
    component: Component | None = None
    version: int = 0
    is_wrapped: bool = False
    service: ServiceTool | None = None
    published: PublishedService | None = None

    @property
    def opened(self) -> Opened:
        """The service behind it."""
        assert self.service is not None  # noqa: S101 - only asked of tools of services.
        assert self.published is not None  # noqa: S101
        return Opened(self.service.service, self.published)


class McpTools:
    """The tools of all workspaces."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, principal: Principal, org_id: str, workspace_id: str, ring: str | None) -> list[McpTool]:
        """What the principal may run in the ring (of lowest order when there is none), by name.

        Raises:
            Forbidden: The role may not submit, or an execution asks.
            NotFound: There is no such workspace or ring.
        """
        require_not_execution(principal, Action.SUBMIT, org_id, workspace_id)

        def operation(tx: Transaction) -> list[McpTool]:
            found = _ring(tx, org_id, workspace_id, ring)
            tools: list[McpTool] = []
            for tool in _all(tx, org_id, workspace_id, found):
                tools.append(tool)
                if len(tools) == MAX_TOOLS:
                    break
            return sorted(tools, key=lambda tool: tool.name)

        return await self._store.read(operation)

    async def find(
        self, principal: Principal, org_id: str, workspace_id: str, ring: str | None, name: str
    ) -> tuple[McpTool, Ring]:
        """The tool with the name, and the ring.

        Raises:
            NotFound: There is none.
        """
        require_not_execution(principal, Action.SUBMIT, org_id, workspace_id)

        def operation(tx: Transaction) -> tuple[McpTool, Ring]:
            found = _ring(tx, org_id, workspace_id, ring)
            tool = _named(tx, org_id, workspace_id, found, name)
            if tool is None:
                raise errors.NotFound(f"tool {name[:80]!r} is not in ring {found.name!r}")
            return tool, found

        return await self._store.read(operation)

    async def services(
        self, principal: Principal, org_id: str, workspace_id: str, ring: str | None
    ) -> list[tuple[Service, PublishedService]]:
        """The published services of the ring, whose skills are there to read."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> list[tuple[Service, PublishedService]]:
            return list(_services(tx, org_id, workspace_id, _ring(tx, org_id, workspace_id, ring)))

        return await self._store.read(operation)


def tool_name(*parts: str) -> str:
    """The name of a tool: no longer than models take, and still another one for other parts."""
    whole = SEPARATOR.join(parts)
    if len(whole) <= MAX_NAME:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGEST]
    return f"{whole[: MAX_NAME - _DIGEST - 1]}_{digest}"


def _ring(tx: Transaction, org_id: str, workspace_id: str, ring: str | None) -> Ring:
    check_workspace(tx, org_id, workspace_id)
    if ring is not None:
        return find_ring(tx, org_id, workspace_id, ring)
    rings = tx.catalog.list_rings(org_id, workspace_id)
    if not rings:
        raise errors.NotFound("the workspace has no ring")
    return min(rings, key=lambda one: one.order)


def _all(tx: Transaction, org_id: str, workspace_id: str, ring: Ring) -> Iterator[McpTool]:
    for service, published in _services(tx, org_id, workspace_id, ring):
        yield from _tools_of(service, published)
    for kind in Kind:
        cursor: str | None = None
        while True:
            page = tx.catalog.list_components(org_id, workspace_id, kind, cursor, PAGE)
            for component in page.items:
                tool = _component_tool(tx, component, ring)
                if tool is not None:
                    yield tool
            cursor = page.next_cursor
            if cursor is None:
                break


def _named(tx: Transaction, org_id: str, workspace_id: str, ring: Ring, name: str) -> McpTool | None:
    word, separator, slug = name.partition(SEPARATOR)
    kind = next((kind for kind in Kind if kind.value == word), None)
    if kind is not None and separator and len(name) <= MAX_NAME:
        component = tx.catalog.find_component(org_id, workspace_id, kind, slug)
        tool = _component_tool(tx, component, ring) if component else None
        if tool is not None and tool.name == name:
            return tool
    return next((tool for tool in _all(tx, org_id, workspace_id, ring) if tool.name == name), None)


def _services(
    tx: Transaction, org_id: str, workspace_id: str, ring: Ring
) -> Iterator[tuple[Service, PublishedService]]:
    cursor: str | None = None
    while True:
        page = tx.services.list(org_id, workspace_id, cursor, PAGE)
        for service in page.items:
            if service.ring_id == ring.id and service.latest_version:
                published = tx.services.find_version(service.id, service.latest_version)
                if published is not None:
                    yield service, published
        cursor = page.next_cursor
        if cursor is None:
            return


def _tools_of(service: Service, published: PublishedService) -> Iterator[McpTool]:
    for endpoint in published.endpoints:
        if endpoint.expose_as_agent_tool:
            tool = tool_of(service, published, endpoint)
            yield McpTool(
                name=tool_name("service", service.slug, endpoint.name),
                title=endpoint.shown_title,
                description=tool.description,
                input_schema=tool.input_schema,
                service=tool,
                published=published,
            )


def _component_tool(tx: Transaction, component: Component, ring: Ring) -> McpTool | None:
    """None for what does not run in the ring."""
    if MCP_TAG in component.tags and component.slug.startswith(COMPONENT_PREFIX):
        return None  # Another server's tools are not ours to offer.
    version = _version(tx, component, ring)
    if version is None:
        return None
    schema = version.input_schema or {"type": "object"}
    is_wrapped = schema.get("type") != "object"
    return McpTool(
        name=tool_name(component.kind.value, component.slug),
        title=component.name,
        description=component.description or component.name,
        input_schema=_wrapped(schema) if is_wrapped else schema,
        component=component,
        version=version.number,
        is_wrapped=is_wrapped,
    )


def _version(tx: Transaction, component: Component, ring: Ring) -> Version | None:
    active = tx.rollouts.track(component.id, ring).active
    if active is not None:
        return tx.catalog.get_version(active.version_id)
    return tx.catalog.find_version(component.id) if ring.auto_deploy else None


def _wrapped(schema: dict[str, Any]) -> dict[str, Any]:
    inner = {name: part for name, part in schema.items() if name != "$defs"}
    made: dict[str, Any] = {"type": "object", "properties": {INPUT: inner}, "required": [INPUT]}
    return {**made, "$defs": schema["$defs"]} if "$defs" in schema else made
