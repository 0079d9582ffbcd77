"""Schedules of a workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer, paging, query_text
from flow_platform.api.body import read_model
from flow_platform.api.context import principal_of, reference, workspace_of
from flow_platform.api.routing import PAGING, WORKSPACE, Parameter, Route
from flow_platform.api.schedule_bodies import ScheduleBody, ScheduleChange
from flow_platform.domain.firing import Firing
from flow_platform.domain.principal import Action
from flow_platform.engine.releases import require_not_execution
from flow_platform.engine.schedules import next_firings
from flow_platform.store.base import Page
from flow_platform.store.schedule_table import StoredSchedule
from flow_sdk.wire.management import PageDocument
from flow_sdk.wire.schedule import FiringDocument, ScheduledComponent, ScheduleDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Schedules"


class ScheduleRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        every = f"{WORKSPACE}/schedules"
        one = f"{every}/{{schedule_id}}"
        filters = (
            Parameter("component_id", "Only those of the component.", {"type": "string"}),
            Parameter("execution_id", "Only the one that started the execution.", {"type": "string"}),
        )
        key = Parameter("Idempotency-Key", "The same key answers the first firing.", {"type": "string"}, "header")
        return [
            Route(
                "GET",
                every,
                self.page,
                "A page of schedules without payloads, each with its last firing.",
                tag=_TAG,
                answers={200: PageDocument},
                parameters=[*filters, *PAGING],
            ),
            Route(
                "POST",
                every,
                self.create,
                "Makes a schedule.",
                tag=_TAG,
                answers={201: ScheduleDocument},
                body=ScheduleBody,
            ),
            Route(
                "GET", one, self.get, "One schedule and when it fires next.", tag=_TAG, answers={200: ScheduleDocument}
            ),
            Route(
                "PATCH",
                one,
                self.change,
                "Changes fields, from now on.",
                tag=_TAG,
                answers={200: ScheduleDocument},
                body=ScheduleChange,
            ),
            Route("DELETE", one, self.delete, "Deletes it; executions go on.", tag=_TAG, answers={204: "Deleted"}),
            Route(
                "POST",
                f"{one}/trigger",
                self.trigger,
                "Starts one run now.",
                tag=_TAG,
                answers={202: FiringDocument},
                parameters=[key],
            ),
            Route(
                "GET",
                f"{one}/firings",
                self.firings,
                "A page of its history.",
                tag=_TAG,
                answers={200: PageDocument},
                parameters=PAGING,
            ),
        ]

    async def page(self, request: Request) -> Response:
        cursor, limit = paging(request)
        page = await self._engine.schedules.list(
            principal_of(request),
            *workspace_of(request),
            query_text(request, "component_id"),
            query_text(request, "execution_id"),
            cursor,
            limit,
        )
        items = [schedule_document(schedule) for schedule in page.items]
        return page_answer(Page([], page.next_cursor), items)

    async def create(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_not_execution(principal, Action.SUBMIT, org_id, workspace_id)  # Before the body is read.
        body = await read_model(request, ScheduleBody)
        made = await self._engine.schedules.create(principal, org_id, workspace_id, body.new())
        return json_answer(self._whole(made), 201)

    async def get(self, request: Request) -> Response:
        found = await self._engine.schedules.get(principal_of(request), *workspace_of(request), _id(request))
        return json_answer(self._whole(found))

    async def change(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_not_execution(principal, Action.SUBMIT, org_id, workspace_id)
        body = await read_model(request, ScheduleChange)
        changed = await self._engine.schedules.change(principal, org_id, workspace_id, _id(request), body.changes())
        return json_answer(self._whole(changed))

    async def delete(self, request: Request) -> Response:
        await self._engine.schedules.delete(principal_of(request), *workspace_of(request), _id(request))
        return Response(status_code=204)

    async def trigger(self, request: Request) -> Response:
        key = request.headers.get("idempotency-key")
        firing = await self._engine.schedules.trigger(principal_of(request), *workspace_of(request), _id(request), key)
        return json_answer(firing_document(firing), 202)

    async def firings(self, request: Request) -> Response:
        cursor, limit = paging(request)
        page = await self._engine.schedules.firings(
            principal_of(request), *workspace_of(request), _id(request), cursor, limit
        )
        return page_answer(Page([], page.next_cursor), [firing_document(firing) for firing in page.items])

    def _whole(self, schedule: StoredSchedule) -> ScheduleDocument:
        document = schedule_document(schedule)
        return document.model_copy(
            update={
                "input_data": schedule.plan.input_data,
                "config": schedule.config,
                "next_firings": next_firings(schedule, self._engine.clock.now()),
            }
        )


def _id(request: Request) -> str:
    return reference(request, "schedule_id", "schedule")


def schedule_document(schedule: StoredSchedule) -> ScheduleDocument:
    """As a list shows it."""
    plan = schedule.plan
    return ScheduleDocument(
        id=plan.id,
        name=schedule.name,
        component=ScheduledComponent(kind=schedule.kind, id=plan.component_id, slug=schedule.component_slug),
        ring_id=plan.ring_id,
        cron=plan.cron,
        interval_seconds=None if plan.interval is None else plan.interval.total_seconds(),
        time_zone=plan.time_zone,
        overlap=plan.overlap.value,
        catch_up_seconds=plan.catch_up.total_seconds(),
        timeout_seconds=schedule.timeout_seconds,
        paused=plan.is_paused,
        starts_at=plan.starts_at,
        ends_at=plan.ends_at,
        created_at=plan.created_at,
        created_by=schedule.created_by,
        updated_at=schedule.updated_at,
        next_firing_at=schedule.due_at,
        last_firing=None if schedule.last_firing is None else firing_document(schedule.last_firing),
    )


def firing_document(firing: Firing) -> FiringDocument:
    return FiringDocument(
        schedule_id=firing.schedule_id,
        number=firing.number,
        cause=firing.cause.value,
        scheduled_at=firing.scheduled_at,
        until=firing.until,
        decided_at=firing.decided_at,
        status=firing.status.value,
        reason=firing.reason or None,
        execution_id=firing.execution_id,
        execution_status=firing.execution_status,
        error=firing.error,
    )
