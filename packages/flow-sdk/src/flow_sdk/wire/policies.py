"""What a client sees of a workspace's policies."""

from __future__ import annotations

from datetime import datetime

from flow_sdk.wire.execution import Document
from flow_sdk.wire.management import RetryDocument


class RateDocument(Document):
    """`count` starts in each period, of which `burst` may come at once."""

    count: int
    period_seconds: float
    burst: int


class PolicyDocument(Document):
    """The policy of a component, of a ring, of both, or (neither) of the workspace. Null: it does not say."""

    component_id: str | None
    ring_id: str | None
    concurrency: int | None
    concurrency_per_key: int | None
    rate: RateDocument | None
    priority: int | None
    retry: RetryDocument | None
    max_queued: int | None
    weight: int | None
    updated_at: datetime
    updated_by: str
