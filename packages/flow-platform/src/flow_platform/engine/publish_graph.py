"""Publishing a graph workflow: there is nothing to build, but everything that it refers to must fit together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from flow_platform.domain import errors
from flow_platform.domain.component import Definition
from flow_platform.domain.graph import ComponentRef, Signature, component_ref, parse_graph
from flow_platform.domain.graph_document import canonical, parse_document
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.runner import BuildReply
from flow_sdk.wire.status import Kind

if TYPE_CHECKING:
    from flow_platform.engine.publish_request import PublishRequest

GRAPH_FIELDS: Final = ("type", "nodes", "edges", "outputs", "input_schema")
OF_ANY_COMPONENT: Final = ("slug", "name", "description", "tags", "timeout_seconds", "smoke_input")


def graph_definition(kind: Kind, request: PublishRequest) -> Definition | None:
    """The content of a graph workflow; None when the request is of code.

    Raises:
        InvalidInput: It is of both, or of a kind that has no graphs, or the graph has not the form of one.
    """
    given = [name for name in GRAPH_FIELDS if name in request.model_fields_set]
    if not given:
        return None
    if kind is not Kind.WORKFLOW:
        raise _refused(given[0], f"no {given[0]} for a {kind.value}: only workflows are graphs")
    of_code = sorted(request.model_fields_set - {*GRAPH_FIELDS, *OF_ANY_COMPONENT})
    if of_code:
        raise _refused(of_code[0], f"no {of_code[0]} beside {given[0]}: a graph has no code; its nodes' components do")
    document = parse_document({name: getattr(request, name) for name in given})
    return Definition(
        kind=kind,
        code="",
        entry_point="",
        language="",
        timeout_seconds=request.timeout_seconds,
        graph=canonical(document),
    )


async def check_graph(store: Store, org_id: str, workspace_id: str, document: dict[str, Any]) -> BuildReply:
    """Checks the graph against the newest versions of the components that are published in the workspace.

    Raises:
        InvalidInput: One detail per problem, each naming its node or edge.
    """

    def signatures(tx: Transaction) -> dict[ComponentRef, Signature]:
        refs = {component_ref(node["component_ref"]) for node in document["nodes"]}
        found = ((ref, _signature(tx, org_id, workspace_id, ref)) for ref in refs)
        return {ref: signature for ref, signature in found if signature is not None}

    known = await store.read(signatures)
    graph = await asyncio.to_thread(parse_graph, document, known.get)  # Up to 100 ms for the largest.
    return BuildReply(input_schema=graph.input_schema or {})


def _signature(tx: Transaction, org_id: str, workspace_id: str, ref: ComponentRef) -> Signature | None:
    component = tx.catalog.find_component(org_id, workspace_id, ref.kind, ref.slug)
    if component is None or component.slug != ref.slug:
        return None
    version = tx.catalog.find_version(component.id, ref.version)
    return Signature(version.input_schema or None, version.output_schema or None) if version else None


def _refused(field: str, expected: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"{field} is not valid: expected {expected}", details=[{"field": field, "message": f"expected {expected}"}]
    )
