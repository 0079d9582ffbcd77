"""The contract of `McpServerTable`."""

from __future__ import annotations

import dataclasses

from flow_platform.domain.component import Component
from flow_platform.domain.mcp_server import McpServer, McpTool
from flow_platform.store.base import Store, Transaction, Workspace
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.mcp import McpSettings, McpTransport
from flow_sdk.wire.status import Kind
from tests.support.store_records import NOW, SECOND

BLOCK = Component("c1", "org", "workspace", Kind.CODE_BLOCK, "mcp-things", "Things", "", (), NOW)
SETTINGS = McpSettings(transport=McpTransport.HTTP, url="https://things.example.com/mcp", headers={"A": "${B}"})
TOOL = McpTool("a/b", "Title", "Ünï \udc00", {"type": "object"}, {"readOnlyHint": True})
SERVER = McpServer("m1", "org", "workspace", "things", SETTINGS, "c1", NOW, "ada", NOW)
KNOWN = dataclasses.replace(
    SERVER, server={"name": "T"}, protocol="2025-11-25", tools=(TOOL,), tool_count=1, refreshed_at=NOW + SECOND
)


async def prepared(store: Store, *servers: McpServer) -> None:
    def operation(tx: Transaction) -> None:
        tx.tenancy.insert_organization("org", "Org", NOW)
        tx.tenancy.insert_workspace(Workspace("org", "workspace", "Workspace"), NOW)
        tx.catalog.insert_component(BLOCK)
        for server in servers:
            tx.mcp_servers.save(server)

    await store.write(operation)


async def test_a_server_is_found_by_name_and_id_in_its_workspace(store: Store) -> None:
    await prepared(store, SERVER)

    def found(tx: Transaction) -> list[McpServer | None]:
        places = (
            ("org", "workspace", "things"),
            ("org", "workspace", "m1"),
            ("org", "other", "m1"),
            ("x", "workspace", "m1"),
        )
        return [tx.mcp_servers.find(*place) for place in places]

    assert await store.read(found) == [SERVER, SERVER, None, None]


async def test_saving_again_replaces_all_but_who_it_is(store: Store) -> None:
    await prepared(store, SERVER)
    failed = dataclasses.replace(
        KNOWN, error=ErrorDocument(code="mcp_unreachable", message="gone"), updated_at=NOW + SECOND
    )

    for server in (KNOWN, failed, KNOWN):
        await store.write(lambda tx, server=server: tx.mcp_servers.save(server))
        assert await store.read(lambda tx: tx.mcp_servers.find("org", "workspace", "things")) == server


async def test_a_list_is_by_name_and_without_tools(store: Store) -> None:
    first = dataclasses.replace(KNOWN, id="m2", name="archive")
    await prepared(store, KNOWN, first)

    listed = await store.read(lambda tx: tx.mcp_servers.list("org", "workspace"))

    assert listed == [dataclasses.replace(first, tools=()), dataclasses.replace(KNOWN, tools=())]
    assert await store.read(lambda tx: tx.mcp_servers.count("org", "workspace")) == 2
    assert await store.read(lambda tx: tx.mcp_servers.list("org", "other")) == []
    assert await store.write(lambda tx: [tx.mcp_servers.delete(one) for one in ("m1", "m1")]) == [True, False]
    assert await store.read(lambda tx: tx.mcp_servers.count("org", "workspace")) == 1
