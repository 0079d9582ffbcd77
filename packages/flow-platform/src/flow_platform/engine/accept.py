"""Makes the record of a new execution: the one place, whoever asks for it.

A submit, a schedule, a node of a graph, a manual retry and the validation of a deployment all come here, inside the
transaction of theirs, once it is clear which component is meant, in which ring and below which parent.

A graph workflow begins here, too: its first nodes are accepted in the same transaction. Where that is a graph again,
this goes on, as far as there is `Room`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain import execution as domain
from flow_platform.domain.clock import Entropy, new_id
from flow_platform.domain.component import Component, Version
from flow_platform.domain.execution import Execution
from flow_platform.domain.graph import Node
from flow_platform.domain.isolation import effective
from flow_platform.domain.policy import Policy
from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.engine import repetition
from flow_platform.engine.budgets import admit
from flow_platform.engine.graph_steps import CannotGoOn, take_step
from flow_platform.engine.releases import find_ring, resolve_deployment
from flow_platform.engine.standing import limit_keys_of, priority_of
from flow_platform.engine.submission import Submission, payload_of
from flow_platform.engine.turns_of_sessions import begin_turn, session_of, with_session_id
from flow_platform.store.base import Transaction
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.status import Kind

__all__ = ["MAX_DEPTH", "MAX_TIMEOUT_SECONDS", "NodeStarter", "Room", "Submission", "accept", "payload_of"]

MAX_TIMEOUT_SECONDS: Final = 30 * 24 * 3600.0
DEFAULT_TIMEOUT_SECONDS: Final = {Kind.TRANSFORM: 30.0}
FALLBACK_TIMEOUT_SECONDS: Final = 300.0  # The contract's default.
_NO_POLICY: Final = Policy()
MAX_DEPTH: Final = 32  # Executions below executions; deeper is recursion that has lost its way.
MAX_BEGUN_AT_ONCE: Final = 1_000  # Nodes that one transaction starts; graphs of graphs multiply.
REFUSALS: Final = frozenset({"not_deployed", "depth_limit", "tree_limit", "budget_exhausted"})
"""Why a node may not run, though all that it needs is there: it fails, and its graph goes on."""

USABLE: Final = frozenset({DeploymentState.ACTIVE, DeploymentState.SUPERSEDED})
MAX_TREE_OF_GRAPHS: Final = 10_000  # Executions below one root, from where on graphs start no workflows.
HISTORY: Final = 100  # Deployments of a component in a ring, newest first, among which a named version is looked for.


@dataclass
class Room:
    """The nodes that a transaction started. A graph among them that finds it full is begun by the sweeper."""

    made: list[Execution] = field(default_factory=list[Execution])
    before: int | None = None
    """How many executions were below the root before these; None until somebody asks."""

    @property
    def is_full(self) -> bool:
        return len(self.made) >= MAX_BEGUN_AT_ONCE


def accept(
    tx: Transaction,
    submission: Submission,
    component: Component,
    ring: Ring,
    parent: Execution | None,
    *,
    now: datetime,
    entropy: Entropy,
    room: Room | None = None,
) -> Execution:
    """Writes the execution, queued, with its input; the parent has one more unfinished child.

    A graph workflow is never queued: it waits, or has ended already when nothing in it could run. One that repeats
    another has the calls of that one.

    Raises:
        Conflict: `not_deployed`; `already_retried`.
        NotFound: The deployment that it is pinned to is unknown, or the component of a graph's node.
        InvalidInput, RateLimited: It cannot be a turn of the session that it names.
    """
    submission = with_session_id(submission)
    execution_id = new_id(now, entropy)
    deployment, version = _deployment(tx, submission, component, ring, execution_id, now, entropy)
    if deployment.ring_id != ring.id:
        ring = find_ring(tx, component.org_id, component.workspace_id, deployment.ring_id)
    policy = tx.policies.last_seen(component.workspace_id).for_execution(component.id, deployment.ring_id)
    execution = _execution(submission, parent, component, version, deployment, ring, execution_id, now, entropy, policy)
    room = room or Room()
    is_graph = version.definition.graph is not None
    if is_graph:
        execution = _waiting(execution, room, now)
    session = session_of(submission, component, version, execution.ring_id or ring.id)
    if session is not None:
        execution = begin_turn(tx, session, execution, now)
    payload = payload_of(submission)
    tx.executions.insert(execution, payload)
    if session is not None:
        tx.sessions.keep_turn(execution.id, session)
    repetition.begin(tx, execution, payload)
    if parent:
        tx.executions.adopt_child(parent.id)
    if is_graph and execution.available_at is None:
        return take_step(tx, execution, now, NodeStarter(tx, now, entropy, room))
    return execution


def _waiting(execution: Execution, room: Room, now: datetime) -> Execution:
    """A graph before its first step, which is now, at its start, or when the sweeper looks next."""
    begins_at = execution.available_at or (now if room.is_full else None)
    waiting = domain.apply(execution, domain.Suspended(now, begins_at))
    return dataclasses.replace(waiting, started_at=None) if begins_at else waiting


class NodeStarter:
    """Starts the nodes of graphs, as executions below them, as far as that is possible.

    Args:
        room: What was started is found in it, nodes of graphs that are nodes included.
    """

    def __init__(self, tx: Transaction, now: datetime, entropy: Entropy, room: Room) -> None:
        self._tx = tx
        self._now = now
        self._entropy = entropy
        self._room = room

    def __call__(self, graph: Execution, node: Node, input_data: Any, repeats: str | None) -> Execution:
        """The execution of the node; failed at once when it may not run or has nothing that it could run on.

        Raises:
            CannotGoOn: There is no such component or ring any more.
        """
        ref = node.component_ref
        submission = Submission(
            kind=ref.kind,
            component=ref.slug,
            input_data=input_data,
            lifecycle_event=graph.lifecycle_event,
            timeout_seconds=node.timeout_seconds,
            is_timeout_instead=True,
            retry=node.retry,
            retry_of_id=repeats,
        )
        component = self._tx.catalog.find_component(graph.org_id, graph.workspace_id, ref.kind, ref.slug)
        ring = self._tx.catalog.find_ring(graph.org_id, graph.workspace_id, graph.ring_id or "")
        if component is None or component.slug != ref.slug or ring is None:
            what = "its component" if ring else "the ring"
            raise CannotGoOn(f"node {node.id!r} ({ref}) cannot run: {what} is not there any more")
        try:
            self._check_size(graph, component)
            admit(self._tx, graph.org_id, graph.workspace_id, self._now)
            if ref.version is not None:
                pinned = self._deployment_of(component, ring, ref.version)
                submission = dataclasses.replace(submission, deployment_id=pinned.id)
            made = self._accept(submission, component, ring, graph)
        except errors.FlowError as error:
            if error.error_code not in REFUSALS:
                raise
            made = self._refused(submission, component, ring, graph, ref.version, error)
        self._room.made.append(made)
        return made

    def _accept(self, submission: Submission, component: Component, ring: Ring, graph: Execution) -> Execution:
        return accept(
            self._tx, submission, component, ring, graph, now=self._now, entropy=self._entropy, room=self._room
        )

    def _check_size(self, graph: Execution, component: Component) -> None:
        """Graphs of graphs multiply, and hold no slots that would bound them."""
        if graph.depth + 1 > MAX_DEPTH:
            raise errors.InvalidInput(
                f"execution {graph.id!r} is at depth {graph.depth}: expected at most {MAX_DEPTH} levels",
                code="depth_limit",
            )
        if component.kind is not Kind.WORKFLOW:
            return
        made = len(self._room.made)
        if self._room.before is None:
            self._room.before = self._tx.executions.count_descendants(graph.root_id, MAX_TREE_OF_GRAPHS) - made
        if self._room.before + made >= MAX_TREE_OF_GRAPHS:
            raise errors.InvalidInput(
                f"{MAX_TREE_OF_GRAPHS} executions are below {graph.root_id!r}: too many to start a workflow",
                code="tree_limit",
            )

    def _deployment_of(self, component: Component, ring: Ring, number: int) -> Deployment:
        """The newest deployment of a version that was active in the ring and was not taken back.

        Raises:
            Conflict: `not_deployed`.
        """
        page = self._tx.catalog.list_deployments(
            component.org_id, component.workspace_id, component.id, ring.id, None, HISTORY
        )
        for deployment in page.items:
            if deployment.version == number and deployment.state in USABLE:
                return deployment
        raise errors.Conflict(
            f"version {number} of {component.kind.value} {component.slug!r} is not deployed in ring {ring.name!r}",
            code="not_deployed",
            hint=f"bring it there once: flow promote {component.kind.path}/{component.slug} --to {ring.name}",
        )

    def _refused(
        self,
        submission: Submission,
        component: Component,
        ring: Ring,
        graph: Execution,
        number: int | None,
        error: errors.FlowError,
    ) -> Execution:
        """A record of what could not be started, so that the graph finds it failed whenever it looks."""
        version = self._tx.catalog.find_version(component.id, number)
        if version is None:
            raise CannotGoOn(error.message)
        new = new_id(self._now, self._entropy)
        queued = _execution(submission, graph, component, version, None, ring, new, self._now, self._entropy)
        document = ErrorDocument(code=error.error_code, message=error.message, retryable=False)
        failed = domain.apply(queued, domain.ExecutionFailed(self._now, document))
        self._tx.executions.insert(failed, payload_of(submission))
        return failed


def _deployment(
    tx: Transaction,
    submission: Submission,
    component: Component,
    ring: Ring,
    execution_id: str,
    now: datetime,
    entropy: Entropy,
) -> tuple[Deployment, Version]:
    if submission.deployment_id is None:
        return resolve_deployment(
            tx,
            component,
            ring,
            execution_id=execution_id,
            auto_deploy=submission.auto_deploy,
            now=now,
            entropy=entropy,
        )
    pinned = tx.catalog.find_deployment(component.org_id, component.workspace_id, submission.deployment_id)
    if pinned is None or pinned.component_id != component.id:
        raise errors.NotFound(f"deployment {submission.deployment_id!r} not found")
    return pinned, tx.catalog.get_version(pinned.version_id)


def _execution(
    submission: Submission,
    parent: Execution | None,
    component: Component,
    version: Version,
    deployment: Deployment | None,
    ring: Ring,
    execution_id: str,
    now: datetime,
    entropy: Entropy,
    policy: Policy = _NO_POLICY,
) -> Execution:
    timeout = _timeout(submission, version)
    start_at = submission.start_at if submission.start_at and submission.start_at > now else None
    return Execution(
        id=execution_id,
        org_id=component.org_id,
        workspace_id=component.workspace_id,
        kind=component.kind,
        component_id=component.id,
        component_slug=component.slug,
        component_name=component.name,
        version_id=version.id,
        version=version.number,
        deployment_id=deployment.id if deployment else None,
        ring_id=deployment.ring_id if deployment else ring.id,
        root_id=parent.root_id if parent else execution_id,
        parent_id=parent.id if parent else None,
        depth=parent.depth + 1 if parent else 0,
        created_at=now,
        deadline_at=(start_at or now) + timedelta(seconds=timeout),
        timeout_seconds=timeout,
        # Below an execution the parent's: clients always send a default, and a test is one down to its leaves.
        lifecycle_event=parent.lifecycle_event if parent else submission.lifecycle_event,
        billing_transaction_id=execution_id,
        # A container cannot bill its children to somebody else: below an execution the parent decides.
        parent_billing_transaction_id=(
            parent.billing_transaction_id if parent else submission.parent_billing_transaction_id
        ),
        session_id=submission.session_id,
        priority=priority_of(submission, policy, parent, start_at, now),
        retry=submission.retry or policy.retry or version.definition.retry,
        available_at=start_at,
        retry_of_id=submission.retry_of_id,
        limit_keys=limit_keys_of(submission, component.id, ring.id),
        submitted_by=None if parent else submission.submitted_by,
        isolation=effective(version.definition, ring),
    )


def _timeout(submission: Submission, version: Version) -> float:
    """The shorter one of what the caller asks for and what the component declares: clients always send a default."""
    asked, own = submission.timeout_seconds, version.definition.timeout_seconds
    if asked is None:
        return own or DEFAULT_TIMEOUT_SECONDS.get(version.definition.kind, FALLBACK_TIMEOUT_SECONDS)
    return asked if own is None or submission.is_timeout_instead else min(asked, own)
