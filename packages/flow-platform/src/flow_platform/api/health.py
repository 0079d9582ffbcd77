"""Whether the process lives, whether it takes work, and its metrics. Public: they name no tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer
from flow_platform.api.context import context_of
from flow_platform.api.errors import error_body
from flow_platform.api.routing import Route
from flow_platform.engine.blocked import RUNNER_SEEN_WITHIN
from flow_platform.metrics import Metrics
from flow_sdk.wire.status import Status

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "Health"
_UNFINISHED: Final = tuple(status for status in Status if not status.is_terminal)


class HealthRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/healthz", self.healthz, "The process lives.", tag=_TAG, answers={200: "ok"}),
            Route("GET", "/readyz", self.readyz, "It takes work.", tag=_TAG, answers={200: "ready"}),
            Route(
                "GET",
                "/metrics",
                self.metrics,
                "For Prometheus.",
                tag=_TAG,
                answers={200: "Metrics as text"},
                media_type="text/plain",
            ),
        ]

    async def healthz(self, _: Request) -> Response:
        return json_answer({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        if self._engine.is_ready:
            # Ready without runners, too: it takes and keeps work, and to take it out of service would help nobody.
            since = self._engine.clock.now() - RUNNER_SEEN_WITHIN
            runners = await self._engine.store.read(lambda tx: tx.runners.alive(since))
            return json_answer({"status": "ready", "runners": runners})
        body = error_body("not_ready", "NATS is not connected", [], context_of(request.scope).request_id)
        return Response(body, 503, {"Retry-After": "1"}, "application/json")

    async def metrics(self, _: Request) -> Response:
        counts = await self._engine.store.read(lambda tx: tx.executions.counts())
        for status in _UNFINISHED:
            self._metrics.executions.labels(status.value).set(counts.get(status, 0))
        return Response(self._metrics.exposition(), 200, {}, "text/plain; version=0.0.4; charset=utf-8")
