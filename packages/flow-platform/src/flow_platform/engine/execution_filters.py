"""Filters of executions as people write them: a component by its slug, a ring by its name.

What is named and not there is an error and no empty answer: whoever cancels all of `report` and misspells it must not
read that nothing was left to cancel.
"""

from __future__ import annotations

from dataclasses import replace

from flow_platform.domain import errors
from flow_platform.engine.releases import check_workspace, find_component, find_ring
from flow_platform.store.base import ExecutionFilter, Transaction


def with_ids(tx: Transaction, org_id: str, workspace_id: str, where: ExecutionFilter) -> ExecutionFilter:
    """The same filter with the ids of what it names.

    Raises:
        NotFound: The organization has no such workspace, or that has no such component, ring or execution.
        InvalidInput: The component is the slug of several.
    """
    check_workspace(tx, org_id, workspace_id)
    component_id, ring_id, parent_id = where.component_id, where.ring_id, where.parent_id
    if component_id is not None:
        component_id = find_component(tx, org_id, workspace_id, component_id, where.kind).id
    if ring_id is not None:
        ring_id = find_ring(tx, org_id, workspace_id, ring_id).id
    if parent_id is not None and tx.executions.find_in_workspace(org_id, workspace_id, parent_id) is None:
        raise errors.NotFound(f"execution {parent_id!r} not found")
    return replace(where, component_id=component_id, ring_id=ring_id)
