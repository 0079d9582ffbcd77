"""Graph workflows over a store alone: no bus, no runner; a test ends nodes as it likes, in transactions of its own."""

from __future__ import annotations

from typing import Any

from flow_platform.domain import execution as domain
from flow_platform.domain.clock import ManualClock, system_entropy
from flow_platform.domain.execution import Execution
from flow_platform.domain.graph_result import NodeOutcome
from flow_platform.domain.principal import Principal, Role
from flow_platform.engine import graphs
from flow_platform.engine.accept import Submission, accept
from flow_platform.engine.catalog import Catalog
from flow_platform.engine.ends import Ends
from flow_platform.engine.first_start import ensure_first_tenant
from flow_platform.engine.publish_request import PublishRequest
from flow_platform.store.base import Result, Store, Transaction, Workspace
from flow_sdk.wire.execution import MetricsDocument
from flow_sdk.wire.runner import BuildReply, BuildRequest
from flow_sdk.wire.status import Kind
from tests.support.rollouts_alone import rollouts_over


class GraphBench:
    def __init__(self, store: Store, workspace: Workspace) -> None:
        self.store = store
        self.clock = ManualClock()
        self.ends = Ends(graphs.advance)
        self._where = workspace.org_id, workspace.workspace_id
        self._admin = Principal("admin", workspace.org_id, Role.ADMIN)
        self._catalog = Catalog(store, self.clock, self._build, rollouts_over(store, self.clock))

    @classmethod
    async def over(cls, store: Store) -> GraphBench:
        return cls(store, await ensure_first_tenant(store, ManualClock()))

    async def publish(self, slug: str, **graph: Any) -> None:
        """A graph; without fields of one a code block."""
        kind = Kind.WORKFLOW if graph else Kind.CODE_BLOCK
        content = graph or {"code": "def main(): ..."}
        request = PublishRequest.model_validate({"slug": slug, **content})
        await self._catalog.publish(self._admin, *self._where, kind, request)

    async def submit(self, slug: str, input_data: Any) -> Execution:
        def operation(tx: Transaction) -> Execution:
            component = tx.catalog.find_component(*self._where, Kind.WORKFLOW, slug)
            assert component is not None
            ring = min(tx.catalog.list_rings(*self._where), key=lambda ring: ring.order)
            submission = Submission(Kind.WORKFLOW, slug, input_data)
            return accept(tx, submission, component, ring, None, now=self.clock.now(), entropy=system_entropy)

        return await self.store.write(operation)

    async def nodes(self, graph_id: str) -> dict[str, tuple[Execution, Any]]:
        """The executions of nodes that were started, by node, each with its input."""

        def operation(tx: Transaction) -> dict[str, tuple[Execution, Any]]:
            found: dict[str, tuple[Execution, Any]] = {}
            for call, _ in tx.executions.calls_with_status(graph_id):
                child = tx.executions.find(call.execution_id or "")
                assert child is not None
                found[call.key] = child, tx.executions.payload(child.id).input_data
            return found

        return await self.store.read(operation)

    async def find(self, execution_id: str) -> Execution:
        found = await self.store.read(lambda tx: tx.executions.find(execution_id))
        assert found is not None
        return found

    def end(self, tx: Transaction, execution_id: str, outcome: NodeOutcome) -> None:
        """Inside of a transaction: the execution was handed out and ended like this."""
        queued = tx.executions.find(execution_id, for_update=True)
        assert queued is not None
        now = self.clock.now()
        running = domain.apply(queued, domain.AttemptStarted(now, "runner", "instance", now))
        metrics = outcome.metrics or MetricsDocument()
        if outcome.status == "completed":
            tx.executions.save_result(queued.id, Result(outcome.output))
            ended = domain.apply(running, domain.AttemptSucceeded(now, metrics))
        else:
            assert outcome.error is not None
            ended = domain.apply(running, domain.ExecutionFailed(now, outcome.error, metrics))
        self.ends.change(tx, queued, ended, now)

    async def _build(self, _: BuildRequest) -> BuildReply:
        return BuildReply()
