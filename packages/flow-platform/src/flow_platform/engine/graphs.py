"""Graph workflows, run by the engine."""

from __future__ import annotations

from datetime import datetime

from flow_platform.domain.execution import Execution
from flow_platform.store.base import Transaction


def advance(_tx: Transaction, _graph: Execution, _now: datetime) -> list[Execution]:
    return []
