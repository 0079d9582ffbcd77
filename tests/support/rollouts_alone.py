"""Deployments over a store, without an engine around them."""

from __future__ import annotations

from flow_platform.domain.clock import Clock
from flow_platform.engine import graphs
from flow_platform.engine.cancel import CancelNotices
from flow_platform.engine.ends import Ends
from flow_platform.engine.rollouts import Rollouts
from flow_platform.engine.wakeups import Wakeups
from flow_platform.store.base import Store


def rollouts_over(store: Store, clock: Clock) -> Rollouts:
    wakeups = Wakeups()

    def publish(_subject: str, _body: bytes) -> None: ...

    return Rollouts(store, clock, wakeups, CancelNotices(publish, wakeups), Ends(graphs.advance))
