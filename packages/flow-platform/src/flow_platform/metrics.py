"""Metrics of a process that serves them. Apart from the logs, so that no other process loads the library."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

HELD_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Seconds; from a read of one row to the longest held read."""


class Metrics:
    """The counters of one process, in a registry of its own, so that two platforms in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.http_requests = Counter(
            "flow_http_requests", "Answered requests.", ("method", "route", "status"), registry=self.registry
        )
        self.http_request_seconds = Histogram(
            "flow_http_request_seconds",
            "Time until the end of the answer; held reads included.",
            ("method", "route"),
            buckets=HELD_BUCKETS,
            registry=self.registry,
        )
        self.event_streams = Gauge("flow_event_streams", "Open streams of events.", registry=self.registry)
        self.executions = Gauge(
            "flow_executions_unfinished",
            "Executions that have not ended, by status.",
            ("status",),
            registry=self.registry,
        )

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
