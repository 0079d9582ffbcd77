"""Ends, calls and retries on a stage, as tests of retries need them again and again."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Principal
from flow_platform.engine.retry import BulkRetried
from flow_platform.engine.retry_rules import Changed
from flow_platform.store.base import ExecutionFilter
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind
from tests.support.stage import Stage

ERROR = {"code": "component_error", "type": "ValueError", "message": "no"}


async def retry(stage: Stage, execution_id: str, changed: Changed | None = None, **more: Any) -> Execution:
    principal = more.pop("principal", stage.admin)
    key = more.pop("key", None)
    return await stage.engine.retries.retry(
        principal, stage.org_id, stage.workspace_id, execution_id, changed or Changed(**more), key
    )


async def retry_all(stage: Stage, *, dry_run: bool = False, version: Any = None, **where: Any) -> BulkRetried:
    return await stage.engine.retries.retry_matching(
        stage.admin, stage.org_id, stage.workspace_id, ExecutionFilter(**where), version, dry_run=dry_run
    )


async def refused(asked: Awaitable[object], code: str) -> errors.FlowError:
    with pytest.raises(errors.FlowError) as caught:
        await asked
    assert caught.value.error_code == code, caught.value
    return caught.value


async def end(stage: Stage, execution: Execution | Assignment, output: Any = None, error: Any = None) -> None:
    assignment = execution if isinstance(execution, Assignment) else await stage.claim(execution.id)
    await stage.end(assignment, output, error)


async def failed(stage: Stage, slug: str = "block", principal: Principal | None = None, **fields: Any) -> Execution:
    execution = await stage.submit(slug, principal, **fields)
    await end(stage, execution, error=ERROR)
    stage.clock.advance(timedelta(milliseconds=1))  # Lists are in the order of time.
    return execution


async def workflow(stage: Stage, slug: str = "flow", principal: Principal | None = None) -> Assignment:
    await stage.publish(slug, Kind.WORKFLOW)
    return await stage.claim((await stage.submit(slug, principal, kind=Kind.WORKFLOW)).id)


async def call(stage: Stage, caller: Assignment, n: int, slug: str = "block", **more: Any) -> Execution:
    return await stage.submit(slug, principal=stage.inside(caller), input_data={"n": n}, **more)
