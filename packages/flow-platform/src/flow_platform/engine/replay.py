"""Gives the calls of a new attempt what an earlier attempt's calls were given. Inside the submitting transaction.

Source: the platform specification, section 4. What is compared, and why it needs no help of the client, says
`domain/replay.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flow_platform.domain.component import Component
from flow_platform.domain.execution import Execution
from flow_platform.domain.replay import Call, call_key, stands
from flow_platform.store.base import Payload, Transaction


class Replay:
    """One call of a running execution."""

    def __init__(self, tx: Transaction, parent: Execution, component: Component, payload: Payload) -> None:
        self._executions = tx.executions
        self._parent = parent
        self._component = f"{component.kind.value} {component.slug!r}"
        self._key = call_key(
            component.kind, component.id, payload.input_data, payload.config, payload.messages, payload.state
        )
        self._occurrence = self._executions.count_equal_calls(parent.id, parent.attempt, self._key)
        self._earlier = self._find_earlier()

    def earlier_execution(self) -> Execution | None:
        """The child of an earlier attempt that stands for this call: finished, or still running and then joined."""
        earlier = self._earlier
        if earlier is None:
            return None
        child = self._executions.find(earlier.execution_id)
        if child is None or not stands(child.status, self._error_of_earlier_attempt()):
            return None
        self._executions.make_call_again(dataclasses.replace(earlier, attempt=self._parent.attempt))
        return child

    def remember(self, child: Execution) -> None:
        """Notes a call that was really made."""
        attempt = self._parent.attempt
        if self._earlier is not None:
            again = dataclasses.replace(self._earlier, attempt=attempt, execution_id=child.id)
            self._executions.make_call_again(again)
            return
        self._executions.insert_call(
            Call(
                parent_id=self._parent.id,
                key=self._key,
                occurrence=self._occurrence,
                ordinal=self._executions.count_calls(self._parent.id) + 1,
                first_attempt=attempt,
                attempt=attempt,
                execution_id=child.id,
                component=self._component,
            )
        )

    def _find_earlier(self) -> Call | None:
        if self._parent.attempt == 1:
            return None
        return self._executions.find_call(self._parent.id, self._key, self._occurrence)

    def _error_of_earlier_attempt(self) -> str:
        return self._parent.error.code if self._parent.error else ""


def mismatch(tx: Transaction, parent: Execution) -> dict[str, Any] | None:
    """What an ended attempt did not call that an earlier one had called, and what it called instead.

    Said at the end and not refused on the way: calls that are made side by side may come in any order, so while an
    attempt runs, a missing call may still come.
    """
    expected = tx.executions.first_unmade_call(parent.id, parent.attempt)
    if expected is None:
        return None
    came = tx.executions.first_new_call(parent.id, parent.attempt)
    instead = f"it called {came.component} (call {came.ordinal}) instead" if came else "it called nothing instead"
    lost = f"attempt {parent.attempt} did not repeat call {expected.ordinal} to {expected.component}"
    return {
        "expected": {"call": expected.ordinal, "component": expected.component, "execution_id": expected.execution_id},
        "came": came and {"call": came.ordinal, "component": came.component, "execution_id": came.execution_id},
        "message": f"{lost}; {instead}. Code that is run again must make the same calls: "
        "it must not depend on time, randomness or other state",
    }
