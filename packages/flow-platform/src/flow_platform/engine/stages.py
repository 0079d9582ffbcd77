"""Where an execution's time goes: marks of this process, kept only while the execution is young.

The marks are instants of the monotonic clock, so they measure and never decide. They live in memory, bounded; an
execution whose marks were dropped or made by another engine simply has no stages.

    accept -> commit -> claim -> hand_over -> user_code -> result -> (commit, answer: measured by the client)
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MAX_TRACKED: Final = 10_000  # Marks of 100 bytes each; older ones are of no use to anybody.


@dataclass
class _Marks:
    received: float
    committed: float
    leased: float = 0.0


class Stages:
    def __init__(self) -> None:
        self._marks: OrderedDict[str, _Marks] = OrderedDict()

    @staticmethod
    def now() -> float:
        return time.perf_counter()

    def accepted(self, execution_id: str, received: float) -> None:
        """The submit was received at that instant and is committed now."""
        self._marks[execution_id] = _Marks(received, self.now())
        while len(self._marks) > MAX_TRACKED:
            self._marks.popitem(last=False)

    def leased(self, execution_id: str) -> None:
        if marks := self._marks.get(execution_id):
            marks.leased = self.now()

    def finish(self, execution_id: str, runner: dict[str, float]) -> dict[str, float]:
        """Returns all stages in milliseconds and forgets the marks.

        Args:
            runner: The runner's own stages; their sum is the time between assignment and published output.
        """
        marks = self._marks.pop(execution_id, None)
        if marks is None or not marks.leased:
            return dict(runner)
        outside = (self.now() - marks.leased) * 1000 - sum(runner.values())
        return {
            "commit": round((marks.committed - marks.received) * 1000, 3),
            "claim": round((marks.leased - marks.committed) * 1000, 3),
            "transit": round(max(0.0, outside), 3),
            **runner,
        }
