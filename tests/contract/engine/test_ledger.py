"""The ledger of a running engine: every history adds up, nothing is negative, nothing is counted twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from flow_platform.domain.budget import Budget
from flow_platform.domain.errors import BudgetExhausted, NotFound
from flow_platform.domain.model_call import ModelCall
from flow_platform.domain.principal import Principal, Role
from flow_platform.engine import billing
from flow_platform.gateway.metering import StoredBudget
from flow_sdk.wire.billing import TransactionDocument, TransactionNode
from flow_sdk.wire.status import Kind, Status
from tests.support.cost_history import CostHistory
from tests.support.retries import call, failed, refused, retry, workflow
from tests.support.stage import Stage

USED = {"cpu_ms": 100.0}  # 1,000 micro-credits.


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'flow.db'}"
    else:
        yield request.getfixturevalue("postgresql_url")


async def transaction(stage: Stage, transaction_id: str, principal: Principal | None = None) -> TransactionDocument:
    return await stage.engine.billing.transaction(principal or stage.admin, stage.org_id, transaction_id)


def nodes(node: TransactionNode) -> list[TransactionNode]:
    return [node, *(below for child in node.children for below in nodes(child))]


@pytest.mark.parametrize("seed", range(3))
async def test_any_history_adds_up(stage: Stage, seed: int) -> None:
    history = CostHistory(stage, seed)
    await history.prepare()

    await history.take(80)
    await history.settle()

    documents = await history.documents()
    for execution_id, document in documents.items():
        assert document.billing is not None
        told = (document.billing.own_credits, document.billing.credits)
        assert told == (history.own(execution_id), history.total(execution_id)), execution_id
        assert document.billing.transaction_id == execution_id
    for root in (one for one, parent in history.parents.items() if parent is None):
        document = await transaction(stage, root)
        shown = nodes(document)
        assert document.total_micro_credits == history.total(root)
        assert {one.transaction_id for one in shown} == {one for one in history.parents if history.root(one) == root}
        assert {one.lifecycle_event for one in shown} == {history.events[root]}
        for node in shown:
            assert 0 <= node.own_micro_credits == history.own(node.transaction_id)
            assert node.children_micro_credits == sum(child.total_micro_credits for child in node.children)
            assert node.total_micro_credits == node.own_micro_credits + node.children_micro_credits
    now = stage.clock.now()
    for by in ("component", "workspace", "day", "model"):
        usage = await stage.engine.billing.usage(
            stage.admin, stage.org_id, None, by, now - timedelta(days=30), now + timedelta(seconds=1)
        )
        assert usage.total_micro_credits == history.everything
    assert history.everything > 0
    assert any(len(own) > 1 for own in history.costs.values()), "a history without retries proves little"


async def test_a_tree_that_is_too_large_to_show_is_summed_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(billing, "MAX_SHOWN_TRANSACTIONS", 3)
    caller = await workflow(stage)
    stage.runner.slots = 50
    for n in range(5):
        child = await call(stage, caller, n)
        await stage.runner.report(await stage.claim(child.id), measured=USED)
        await stage.wait(child.id)
    await stage.runner.report(caller, measured=USED)
    await stage.wait(caller.execution_id)

    document = await transaction(stage, caller.execution_id)

    assert document.truncated
    assert (document.own_micro_credits, document.total_micro_credits) == (1_000, 6_000)
    assert [node.total_micro_credits for node in document.children] == [1_000, 1_000]


async def test_a_retry_by_hand_is_a_transaction_that_names_the_old_one(stage: Stage) -> None:
    old = await failed(stage, parent_billing_transaction_id="invoice-7")
    new = await retry(stage, old.id)
    await stage.runner.report(await stage.claim(new.id), measured=USED)
    await stage.wait(new.id)

    document = await transaction(stage, new.id)

    assert (document.retry_of_transaction_id, document.parent_transaction_id) == (old.id, "invoice-7")
    assert (document.own_micro_credits, document.total_micro_credits) == (1_000, 1_000)
    invoice = await transaction(stage, "invoice-7")
    assert (invoice.kind, invoice.own_micro_credits, invoice.total_micro_credits) == ("external", 0, 1_015)
    assert [(node.transaction_id, node.named) for node in invoice.children] == [(old.id, True), (new.id, True)]


async def test_what_names_an_execution_from_outside_is_below_it(stage: Stage) -> None:
    top = await stage.submit()
    other = await stage.submit(parent_billing_transaction_id=top.id)
    for one in (top, other):
        await stage.runner.report(await stage.claim(one.id), measured=USED)
        await stage.wait(one.id)
    history = CostHistory(stage, 0)
    spoken = ModelCall("call-1", stage.org_id, stage.workspace_id, "chat", "test", "echo", stage.clock.now())
    await history.meter.record(dataclasses.replace(spoken, billing_transaction_id=top.id, cost_micro_credits=7))

    document = await transaction(stage, top.id)

    assert (document.own_micro_credits, document.children_micro_credits) == (1_000, 1_007)
    assert [(node.transaction_id, node.named) for node in document.children] == [(other.id, True), ("call-1", True)]
    of_call = await transaction(stage, "call-1")
    assert (of_call.kind, of_call.total_micro_credits, of_call.parent_transaction_id) == ("model_call", 7, top.id)
    status = await stage.get(top.id)
    assert status.billing is not None
    assert status.billing.credits == 1_000  # What it started itself.


async def test_a_transaction_is_its_tenant_s(stage: Stage) -> None:
    top = await stage.submit(parent_billing_transaction_id="invoice-8")
    others = [
        Principal("x", stage.org_id, Role.ADMIN, "another"),
        Principal("x", "another", Role.ADMIN),
    ]
    for transaction_id in (top.id, "invoice-8", "nobody"):
        for principal in others:
            with pytest.raises(NotFound):
                await transaction(stage, transaction_id, principal)
    caller = await workflow(stage)
    child = await call(stage, caller, 1)
    inside = stage.inside(caller)
    assert (await transaction(stage, child.id, inside)).parent_transaction_id == caller.execution_id
    for transaction_id in (top.id, "invoice-8"):
        with pytest.raises(NotFound):
            await transaction(stage, transaction_id, inside)


async def test_a_budget_lets_finish_what_was_accepted_and_nothing_begin(stage: Stage) -> None:
    caller = await workflow(stage)
    known = await call(stage, caller, 1)
    await stage.engine.budgets.set(stage.admin, stage.org_id, stage.workspace_id, Budget(daily=1_500))
    accepted = await stage.submit()
    assert stage.engine.budgets.warning(stage.org_id, stage.workspace_id) is None
    await stage.runner.report(await stage.claim(accepted.id), measured={"cpu_ms": 120.0})
    await stage.wait(accepted.id)
    late = await stage.submit()
    assert "1200 of 1500 micro-credits of day" in str(stage.engine.budgets.warning(stage.org_id, stage.workspace_id))
    await stage.runner.report(await stage.claim(known.id), measured={"cpu_ms": 40.0})
    await stage.wait(known.id)

    error = await refused(stage.submit(), "budget_exhausted")
    await refused(call(stage, caller, 2), "budget_exhausted")
    assert isinstance(error, BudgetExhausted)
    assert (error.details[0]["spent_micro_credits"], error.details[0]["limit_micro_credits"]) == (1_600, 1_500)
    with pytest.raises(BudgetExhausted):
        await StoredBudget(stage.engine.store, stage.clock).check(stage.org_id, stage.workspace_id, None)

    # What was accepted runs; a workflow that runs again gets what it got before.
    await stage.runner.report(await stage.claim(late.id), measured=USED)
    assert (await stage.wait(late.id)).status is Status.COMPLETED
    await stage.runner.report(caller, error={"code": "process_crashed", "message": "signal 9"})
    again = await stage.claim(caller.execution_id)
    assert (await call(stage, again, 1)).id == known.id

    stage.clock.advance(timedelta(days=1))
    await stage.engine.executions.get(stage.admin, stage.org_id, stage.workspace_id, late.id)
    assert (await stage.submit()).status is Status.QUEUED


async def test_a_budget_that_only_warns_refuses_nothing(stage: Stage) -> None:
    budget = Budget(monthly=0, refuses=False)
    await stage.engine.budgets.set(stage.admin, stage.org_id, stage.workspace_id, budget)

    await stage.submit()

    assert stage.engine.budgets.warning(stage.org_id, stage.workspace_id) is not None


async def test_children_of_a_test_are_billed_as_a_test(stage: Stage) -> None:
    await stage.publish("flow", Kind.WORKFLOW)
    top = await stage.submit("flow", kind=Kind.WORKFLOW, lifecycle_event="test")
    child = await call(stage, await stage.claim(top.id), 1, lifecycle_event="workflow")
    await stage.runner.report(await stage.claim(child.id), measured=USED)

    document = await stage.wait(child.id)

    assert document.billing is not None
    assert (document.lifecycle_event, document.billing.own_credits) == ("test", 500)
